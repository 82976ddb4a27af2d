"""RLOO: REINFORCE on whole responses, each compared with the mean of the others of its prompt.

    A_i = R_i - 1/(k-1) sum_{j != i} R_j,       R_i = score_i - beta * log(pi_old / pi_reference)(y_i)
    loss = -(1/N) sum_i A_i log pi(y_i | x_i)

Kool, van Hoof, Welling 2019 ("Buy 4 REINFORCE samples, get a baseline for free!"); Ahmadian et al. 2024, "Back to
Basics", arXiv 2402.14740, eq. 6-8. The response is one action, hence `seq-mean-token-sum`. The estimate is unbiased
on policy. Departure: beta defaults to 0, because the paper's KL belongs to its learned reward, not to the estimator.
"""

from __future__ import annotations

from ascent.core.centre import Centre
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.reductions import REDUCTIONS, Reduction
from ascent.core.registry import register
from ascent.core.returns import Score
from ascent.core.shaping import Penalised
from ascent.core.surrogates import LogProb
from ascent.core.term import Term


@register(
    "rloo",
    title="Back to basics: revisiting REINFORCE-style optimization for learning from human feedback in LLMs",
    paper="Ahmadian et al., ACL",
    year=2024,
    url="https://arxiv.org/abs/2402.14740",
    family="language",
    status="baseline",
)
def rloo(
    kl_coefficient: float = 0.0,
    reduction: Reduction = "seq-mean-token-sum",
    minibatches: int = 1,
    learning_rate: float = 1e-4,
) -> Method:
    """REINFORCE leave-one-out.

    Args:
        kl_coefficient: beta of the log-ratio to the reference inside the reward, >= 0; above 0 a reference is needed.
        reduction: how tokens add up; `seq-mean-token-sum` treats a response as one action.
        minibatches: optimiser steps per collection, >= 1; 1 keeps it on policy.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, 1e-6 models of billions.
    """
    within("kl_coefficient", kl_coefficient, "[0, inf)", "Use 0 for verifiable rewards")
    one_of("reduction", reduction, REDUCTIONS)
    whole("minibatches", minibatches, 1, "Use 1 to stay on policy")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    return Method(
        slug="rloo",
        advantage=Centre(of=Score(Penalised(kl_coefficient)), by="group", leave_one_out=True),
        losses={"policy": Term(LogProb(), reduction=reduction)},
        plan=Plan(minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
