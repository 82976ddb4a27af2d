"""BN-MAPPO: the joint policy of a team is a Bayesian network over its agents' actions.

    pi(a | s) = prod_i pi_i(a_i | o_i, a_{P_i})                  P_i: the parents of agent i in an acyclic graph G
    L = -mean min(r_i A, clip(r_i) A) - c_H H + c_V Huber(V) + alpha | open(G) - tau |
    r_i = pi_i / pi_i,old of each agent,   A one joint advantage of the moment,   open(G) = 2 |edges| / (n (n - 1))

G is fixed, drawn, or said by a network that sees the state; its gradient comes through the parents' actions, which are
multiplied by the straight-through edges (`policies/graphs.py`). With the empty graph this is multi-agent PPO (MAPPO,
Yu et al. 2022, arXiv 2103.01955), and if each agent also has its own critic, V_i(o_i) and A_i, it is independent PPO
(IPPO, de Witt et al. 2020, arXiv 2011.09533). tau falls from 1 to 0 when `anneal` is on: the team ends decentralised.

Chen and Zhang 2023, arXiv 2306.01920; code dchen48/BNPG. Departures: the draws behind G are recorded and replayed, so
that ratios are 1 at the old parameters (the release draws G anew: `resample_graph`, here once a collection); one
optimiser for actor and critic; value targets are scaled by running moments, with PopArt's correction by `popart`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.combinators import Normalised
from ascent.core.decisions import Columns, Decisions
from ascent.core.divergences import Entropy
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Clock, Part, State
from ascent.core.plan import Adam, Number, Plan, Ramp, at
from ascent.core.random import mix, uniform
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.returns import GAE, LambdaReturn
from ascent.core.surrogates import ClippedRatio
from ascent.core.teams import EachAgent, Team
from ascent.core.term import Term
from ascent.core.value_scale import ScaledValueLoss, Unscaled

Graph = Literal["learned", "empty", "complete", "line", "random"]
GRAPHS: tuple[str, ...] = ("learned", "empty", "complete", "line", "random")
Critic = Literal["central", "own"]
CRITICS: tuple[str, ...] = ("central", "own")
OPEN = "probe:open_ratio"


@dataclass(frozen=True)
class EdgeBudget(Part):
    """`|open ratio - tau|` of a whole update, [N, T] parts whose mean it is: sign(mean - tau) (open - tau).

    Attributes:
        tau: share of the possible edges that may be open, a number or a schedule.
    """

    tau: Number = 0.0
    needs = frozenset({OPEN, "progress"})
    prepares = frozenset({OPEN})

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        if evaluation is None or not bool(decisions.mask.any()):
            nothing = torch.zeros(len(decisions), device=decisions.mask.device)
            return {"edge_excess": nothing, "edge_budget": nothing}
        ratio = evaluation.column("open_ratio", "EdgeBudget")
        tau = at(self.tau, Clock(progress=float(decisions.column("progress")[0])))
        excess = torch.sign(ratio[decisions.mask].mean() - tau)
        each = ratio.new_ones(len(decisions))
        return {"edge_excess": each * excess, "edge_budget": each * tau}

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        excess, tau = (decisions.column(name, "EdgeBudget")[:, None] for name in ("edge_excess", "edge_budget"))
        return excess * (evaluation.column("open_ratio", "EdgeBudget") - tau)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        tau = decisions.column("edge_budget", "EdgeBudget")[:, None]
        return {"open_ratio": evaluation.column("open_ratio", "EdgeBudget"), "edge_budget": tau}


@dataclass(frozen=True)
class TeamRatio(ClippedRatio):
    """PPO's clipped ratio of each agent.

    Attributes:
        resample: draw the graph of every moment anew before the updates, as the release does; ratios then start off 1.
    """

    resample: bool = False

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | ({"graph_noise"} if self.resample else set())

    def annotate(self, decisions: Decisions, state: State) -> Columns:
        if not self.resample:
            return {}
        noise = decisions.column("graph_noise", "TeamRatio")
        # Bits of the recorded draw name the new one, so it is as reproducible and differs by copy and moment.
        names = (noise.double() * 2.0**52).long()
        return {"graph_noise": uniform(mix(names, 0x6772)).to(noise)}

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        if not self.resample:
            return {}
        return {"graph_noise": torch.rand(*decisions.mask.shape, 6, generator=generator)}


@register(
    "bayesian_network_marl",
    title="Context-aware Bayesian network actor-critic methods for cooperative multi-agent reinforcement learning",
    paper="Chen and Zhang, ICML",
    year=2023,
    url="https://arxiv.org/abs/2306.01920",
    family="control",
)
def bayesian_network_marl(
    graph: Graph = "learned",
    density: float = 0.5,
    critic: Critic = "central",
    anneal: bool = False,
    edge_coefficient: float = 0.1,
    anneal_from: float = 0.4,
    anneal_until: float = 0.7,
    stairs: int = 40,
    resample_graph: bool = False,
    clip: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.95,
    entropy_coefficient: float = 0.01,
    value_coefficient: float = 1.0,
    huber: float = 10.0,
    popart: bool = False,
    passes: int = 5,
    minibatches: int = 1,
    learning_rate: float = 7e-4,
    adam_eps: float = 1e-5,
    max_gradient_norm: float = 10.0,
) -> Method:
    """PPO of a team whose agents may see their parents' actions.

    Args:
        graph: "learned" from the state, or fixed: "empty" (MAPPO), "complete", "line", or "random" for each moment.
        density: chance of an edge of a "random" graph, in [0, 1].
        critic: "central", one of the whole state and one advantage a moment; or "own" of each agent, of what it sees
            itself, with an advantage of its own.
        anneal: pull the open ratio of a "learned" graph along a falling budget to 0.
        edge_coefficient: alpha, weight of |open ratio - budget| while annealing, in [0, 1].
        anneal_from: share of the run at which the budget begins to fall from 1, in [0, 1).
        anneal_until: share at which it is 0 and alpha begins to rise to 1, in (anneal_from, 1).
        stairs: equal steps in which the budget falls, >= 1.
        resample_graph: draw the graph anew before the updates instead of replaying the recorded draws.
        clip: epsilon of the ratio, >= 0.
        discount: gamma, in [0, 1].
        trace: lambda of GAE, in [0, 1].
        entropy_coefficient: weight of the agents' mean entropy, >= 0.
        value_coefficient: weight of the critic's loss, >= 0.
        huber: error, in deviations of the target, beyond which the critic's loss is linear, > 0.
        popart: correct the critic's last layer where the running scale of its targets moves, so that values stay.
        passes: walks over the collection, >= 1.
        minibatches: optimiser steps per pass, each on whole rows, >= 1.
        learning_rate: of Adam, > 0.
        adam_eps: added to the root of Adam's second moment, > 0.
        max_gradient_norm: global norm to which the gradient is clipped, > 0.
    """
    one_of("graph", graph, GRAPHS)
    one_of("critic", critic, CRITICS)
    one_of("anneal", anneal, (True, False))
    one_of("resample_graph", resample_graph, (True, False))
    one_of("popart", popart, (True, False))
    within("density", density, "[0, 1]", "Use 0.5")
    within("edge_coefficient", edge_coefficient, "[0, 1]", "Use 0.1")
    within("anneal_from", anneal_from, "[0, 1)", "Use 0.4")
    within("anneal_until", anneal_until, "(0, 1)", "Use 0.7")
    whole("stairs", stairs, 1, "Use 40")
    within("clip", clip, "[0, inf]", "Use 0.2")
    within("discount", discount, "[0, 1]", "Use 0.99")
    within("trace", trace, "[0, 1]", "Use 0.95")
    within("entropy_coefficient", entropy_coefficient, "[0, inf)", "Use 0.01")
    within("value_coefficient", value_coefficient, "[0, inf)", "Use 1")
    within("huber", huber, "(0, inf)", "Use 10")
    whole("passes", passes, 1, "Use 5")
    whole("minibatches", minibatches, 1, "Use 1")
    within("learning_rate", learning_rate, "(0, inf)", "Use 7e-4")
    within("adam_eps", adam_eps, "(0, inf)", "Use 1e-5")
    within("max_gradient_norm", max_gradient_norm, "(0, inf]", "Use 10")
    if not anneal_from < anneal_until:
        raise ValueError(f"anneal_from must be < anneal_until; got {anneal_from!r} and {anneal_until!r}.")
    if graph != "learned" and anneal:
        raise ValueError(f"anneal closes the edges of a learned graph; got graph={graph!r}. Use graph='learned'.")
    if resample_graph and graph not in ("learned", "random"):
        raise ValueError(f"resample_graph needs a graph that is drawn, learned or random; got graph={graph!r}.")
    losses = {
        "policy": Term(TeamRatio(low=clip, high=clip, resample=resample_graph)),
        "value": Term(ScaledValueLoss(kind="huber", delta=huber), value_coefficient),
    }
    if entropy_coefficient:
        losses["entropy"] = Term(Entropy(), entropy_coefficient)
    if anneal:
        tau = Ramp(1.0, 0.0, anneal_from, anneal_until, stairs)
        losses["edges"] = Term(EdgeBudget(tau), Ramp(edge_coefficient, 1.0, anneal_until, 1.0))
    credited = Team if critic == "central" else EachAgent
    return Method(
        slug="bayesian_network_marl",
        advantage=credited(Unscaled(GAE(discount, trace))),
        value_target=credited(Unscaled(LambdaReturn(discount, trace))),
        normalise=Normalised(),
        losses=losses,
        plan=Plan(passes=passes, minibatches=minibatches, unit="row"),
        step=Adam(learning_rate, eps=adam_eps, max_gradient_norm=max_gradient_norm),
    )
