"""SubPO: the return is a set function F of what a trajectory visits, the reward of a step its marginal gain.

    Delta_j = F(tau_{0:j+1}) - F(tau_{0:j}),      sum_j Delta_j = F(tau) - F({s_0})
    grad J  = E[ sum_i grad log pi(a_i | .) * ( sum_{j >= i} Delta_j - b(tau_{0:i}) ) ]               (to_go, the paper)

The world pays Delta as its reward, so the whole method is REINFORCE with reward-to-go of gains and a baseline that may
read the history. The released grid code is another estimator: it weighs log pi(a_h) by F(tau_{0:h+1}), undiscounted and
without baseline. As F(tau_{0:h}) does not depend on a_h, its expectation is that of weight Delta_h alone, the
one-step *greedy* gradient, with more variance. All are here as `credit`:

    to_go       sum_{j >= i} discount^(j-i) Delta_j
    greedy      Delta_i                               (= to_go with discount 0)
    official    F(tau_{0:i+1}) / scale
    trajectory  F(tau) - F({s_0})                     (no decomposition: the same mean as to_go, more variance)

Prajapat, Mutny, Zeilinger and Krause 2023, arXiv 2307.13372; code manish-pra/non-additive-RL. `baseline="critic"` is
the released continuous version: generalised advantages of the gains. Departure: the batch mean at equal time leaves the
own trajectory out, so that the estimate stays unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.critics import ValueLoss
from ascent.core.decisions import Columns, Decisions
from ascent.core.divergences import Entropy
from ascent.core.method import Credit, Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, within
from ascent.core.reductions import REDUCTIONS, Reduction
from ascent.core.registry import register
from ascent.core.returns import GAE, LambdaReturn, RewardToGo, SoFar
from ascent.core.surrogates import LogProb
from ascent.core.term import Term

Estimator = Literal["to_go", "greedy", "official", "trajectory"]
Baseline = Literal["none", "time", "critic"]


@dataclass(frozen=True)
class WholeTrajectory(SoFar):
    """F(tau) - F({s_0}) on every decision of its episode [N, T]: what came before plus what follows."""

    def __call__(self, decisions: Decisions) -> Tensor:
        follows = RewardToGo(reward=self.reward)(decisions)
        reward = torch.where(decisions.mask, decisions.reward, 0.0)
        return super().__call__(decisions) + follows - reward


@dataclass(frozen=True)
class AtEqualTime(Centre):
    """A weight minus its mean over the other episodes at the same time since their start [N, T]."""

    by: str = "elapsed"
    leave_one_out: bool = True
    unit: Literal["decision"] = "decision"

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        columns = torch.arange(decisions.mask.shape[1])
        return {"elapsed": columns.expand(decisions.mask.shape).contiguous()}


def weight(credit: Estimator, discount: float, start_value: float, scale: float) -> Credit:
    """What log pi(a_i) is multiplied by, before the baseline."""
    if credit == "to_go":
        return RewardToGo(discount=discount)
    if credit == "greedy":
        return RewardToGo(discount=0.0)
    if credit == "trajectory":
        return WholeTrajectory()
    return SoFar(offset=start_value, scale=scale)


@register(
    "submodular_rl",
    title="Submodular reinforcement learning",
    paper="Prajapat et al., ICLR",
    year=2023,
    url="https://arxiv.org/abs/2307.13372",
    family="control",
)
def submodular_rl(
    credit: Estimator = "to_go",
    baseline: Baseline = "time",
    discount: float | None = None,
    trace: float = 0.95,
    start_value: float = 0.0,
    scale: float = 1.0,
    entropy_coefficient: float | None = None,
    value_coefficient: float = 0.5,
    reduction: Reduction = "seq-mean-token-sum",
    learning_rate: float = 1e-2,
) -> Method:
    """Policy gradient of marginal gains, for worlds whose reward is the gain of a set function.

    Args:
        credit: "to_go" (paper), "greedy", "official" (the release's weight) or "trajectory" (no decomposition).
        baseline: "none"; "time", the mean of the other trajectories at the same time; "critic", learned, with GAE.
        discount: of to_go and of the critic, in [0, 1]; None is 1, and 0.99 with a critic.
        trace: lambda of GAE, in [0, 1]; with a critic only.
        start_value: F({s_0}), which the release's weight contains, >= 0; with credit="official" only.
        scale: what the release's weight is divided by (MAX_RET), > 0; with credit="official" only.
        entropy_coefficient: weight of the entropy bonus, >= 0; None is 0, and 0.01 with a critic.
        value_coefficient: weight of the critic's squared error, >= 0.
        reduction: how decisions add up; the release takes the mean over time as well, `token-mean`.
        learning_rate: of Adam, > 0.
    """
    one_of("credit", credit, ("to_go", "greedy", "official", "trajectory"))
    one_of("baseline", baseline, ("none", "time", "critic"))
    learned = baseline == "critic"
    discount = (0.99 if learned else 1.0) if discount is None else discount
    entropy_coefficient = (0.01 if learned else 0.0) if entropy_coefficient is None else entropy_coefficient
    within("discount", discount, "[0, 1]", "Use 1 for a walk of fixed length")
    within("trace", trace, "[0, 1]", "Use 0.95")
    within("start_value", start_value, "[0, inf)", "Use F of the first state alone, or 0")
    within("scale", scale, "(0, inf)", "The release takes 2 (H + 1)")
    within("entropy_coefficient", entropy_coefficient, "[0, inf)", "Use 0 for no bonus")
    within("value_coefficient", value_coefficient, "[0, inf)", "Use 0.5")
    one_of("reduction", reduction, REDUCTIONS)
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-2")
    if learned and credit != "to_go":
        raise ValueError(f"baseline='critic' estimates gains to go; got credit={credit!r}. Use credit='to_go'.")
    if credit != "official" and (start_value or scale != 1.0):
        raise ValueError(
            f"start_value and scale belong to credit='official'; got start_value={start_value!r}, scale={scale!r} "
            f"with credit={credit!r}."
        )
    losses = {"policy": Term(LogProb(), reduction=reduction)}
    if entropy_coefficient:
        losses["entropy"] = Term(Entropy(), entropy_coefficient, reduction=reduction)
    step = Adam(learning_rate=learning_rate)
    if learned:
        losses["value"] = Term(ValueLoss(), value_coefficient, reduction=reduction)
        return Method(
            slug="submodular_rl",
            advantage=GAE(discount, trace),
            value_target=LambdaReturn(discount, trace),
            losses=losses,
            plan=Plan(),
            step=step,
        )
    raw = weight(credit, discount, start_value, scale)
    advantage = raw if baseline == "none" else AtEqualTime(of=raw)
    return Method(slug="submodular_rl", advantage=advantage, losses=losses, plan=Plan(), step=step)
