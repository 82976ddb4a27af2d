"""BN-MAPPO in the sampled coordination game, from policies as random as the tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ascent
from ascent.core.random import generator
from ascent.evaluation.team_returns import evaluate_team
from ascent.policies.bayesian_network import BayesianNetwork
from ascent.sampling.teams import TeamSampler
from ascent.systems.trial import Record
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.teams.parallel import Teams
from ascent.worlds.teams.tables import coordination

AGENTS, COPIES, LENGTH, EPISODES = 3, 32, 25, 128
WORLD = {"agents": AGENTS, "numbered": True}
MAPPO = "empty (MAPPO)"
ARMS: dict[str, dict[str, Any]] = {
    MAPPO: {"graph": "empty"},
    "complete": {"graph": "complete"},
    "random": {"graph": "random"},
    "learned": {"graph": "learned"},
    "learned, annealed": {"graph": "learned", "anneal": True},
}


def optimum(agents: int, length: int) -> float:
    """The best undiscounted return over `length` steps, by dynamic programming."""
    game = coordination(agents)
    value = torch.zeros(len(game.start), dtype=torch.float64)
    for _ in range(length):
        value = (game.reward + game.transition @ value).amax(-1)
    return float(value @ game.start)


@torch.no_grad()
def spread(policy: BayesianNetwork, states: Tensor, seed: int) -> None:
    """Draw the heads so that an agent's logits in each state, and what each heard action adds, are about N(0, 1).

    The usual heads of near 0 start in uniform play, which is one and the same start for all seeds and graphs.
    """
    features = policy.encoder(states).tanh()
    width, draw = features.shape[-1], generator(seed, "heads")
    drawn = torch.randn(policy.weight.shape, generator=draw)
    drawn[:, :width] /= features.norm(dim=-1).mean()
    policy.weight.copy_(drawn)


def team(arm: str, rate: float, steps: int, seed: int) -> dict[str, Any]:
    """Train one arm; drawn and most likely play on fresh episodes, as shares of the optimum."""
    method = ascent.method("bayesian_network_marl", learning_rate=rate, **ARMS[arm])
    teams = Teams("ascent/Coordination-v0", COPIES, WORLD)
    policy = BayesianNetwork(
        teams.agents, teams.observation_size, teams.actions, teams.state_size, method.parameters["graph"], seed=seed
    )
    spread(policy, torch.eye(teams.observation_size), seed)
    sampler = TeamSampler(policy, teams, LENGTH, seed)
    memory, record = Fresh(), Record()
    collect = Collect("collect", sampler, memory, statistics=sampler.statistics)
    learn = Learn("policy", policy, method, memory, seed=seed)
    system = System({"policy": policy}, {"fresh": memory}, (Phase("train", (collect, learn), steps),))
    best = optimum(AGENTS, LENGTH)
    fresh = Teams("ascent/Coordination-v0", COPIES, WORLD)
    first = evaluate_team(policy, fresh, EPISODES, greedy=False)
    Loop(system, [record]).run()
    drawn = evaluate_team(policy, fresh, EPISODES, greedy=False)
    likely = evaluate_team(policy, fresh, EPISODES)
    return {
        "first": float(first.returns.mean()) / best,
        "drawn": float(drawn.returns.mean()) / best,
        "likely": float(likely.returns.mean()) / best,
        "open_drawn": drawn.open_ratio,
        "open_likely": likely.open_ratio,
        "curve": [number / best for number in record.curve("episode_return")],
        "open_curve": record.curve("open_ratio"),
        "budget": record.curve("edge_budget"),
        "ratio": record.curve("ratio")[0],
    }
