"""REINFORCE: raise the log-probability of what was done in proportion to what it earned.

    grad J = E[ sum_t grad log pi(a_t | s_t) * (G_t - b) ],      G_t = sum_{k >= t} discount^(k-t) r_k

Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
Machine Learning 8. With `baseline="none"` and `seq-mean-token-sum` the estimate is exactly unbiased. The
batch baseline is the mean score of the *other* rows, so that it stays unbiased.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.centre import Centre
from ascent.core.divergences import Entropy
from ascent.core.method import Credit, Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, within
from ascent.core.reductions import REDUCTIONS, Reduction
from ascent.core.registry import register
from ascent.core.returns import RewardToGo, Score
from ascent.core.surrogates import LogProb
from ascent.core.term import Term


@register(
    "reinforce",
    title="Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    paper="Williams, Machine Learning",
    year=1992,
    url="https://doi.org/10.1007/BF00992696",
    family="both",
    status="baseline",
)
def reinforce(
    baseline: Literal["none", "batch"] = "none",
    discount: float = 1.0,
    entropy_coefficient: float = 0.0,
    reduction: Reduction = "seq-mean-token-sum",
    learning_rate: float = 1e-4,
) -> Method:
    """Monte-Carlo policy gradient.

    Args:
        baseline: "none", or "batch": each row's score minus the mean score of the other rows (rows are sequences).
        discount: gamma of the reward to go, in [0, 1]; 1 where a score sits on the last token.
        entropy_coefficient: weight of the entropy bonus, >= 0.
        reduction: how decisions add up; `seq-mean-token-sum` is the unbiased gradient, `token-mean` suits long streams.
        learning_rate: of Adam, > 0.
    """
    one_of("baseline", baseline, ("none", "batch"))
    within("discount", discount, "[0, 1]", "Use 1 for undiscounted scores, 0.99 for control")
    within("entropy_coefficient", entropy_coefficient, "[0, inf)", "Use 0 for no bonus")
    one_of("reduction", reduction, REDUCTIONS)
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4")
    if baseline == "batch" and discount != 1.0:
        raise ValueError(
            f"baseline='batch' compares undiscounted scores of whole rows, but discount={discount!r}; "
            "use discount=1.0, or method 'a2c' for a learned baseline."
        )
    advantage: Credit = RewardToGo(discount=discount)
    if baseline == "batch":
        advantage = Centre(of=Score(), by="batch", leave_one_out=True)
    losses = {"policy": Term(LogProb(), reduction=reduction)}
    if entropy_coefficient:
        losses["entropy"] = Term(Entropy(), entropy_coefficient, reduction=reduction)
    return Method(
        slug="reinforce", advantage=advantage, losses=losses, plan=Plan(), step=Adam(learning_rate=learning_rate)
    )
