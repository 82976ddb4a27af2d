"""DPO: the likelihood of preferences under the reward that the policy implies.

    D = log(pi / pi_ref)(winner) - log(pi / pi_ref)(loser)
    loss = mean over pairs of -log sigmoid(beta D)

Rafailov et al. 2023, arXiv 2305.18290, eq. 7.

It is here as a baseline of `copg`: the winner of a pair is the row of the group with the greater reward, every pair
whose rewards differ counts, and a tie is no pair. For recorded human preferences write 1 and 0 as rewards.
"""

from __future__ import annotations

from ascent.core.method import Method
from ascent.core.pairs import Preference
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import whole, within
from ascent.core.registry import register
from ascent.core.term import Term


@register(
    "dpo",
    title="Direct preference optimization: your language model is secretly a reward model",
    paper="Rafailov et al., NeurIPS",
    year=2023,
    url="https://arxiv.org/abs/2305.18290",
    family="language",
    status="baseline",
)
def dpo(
    beta: float = 0.1,
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
    warmup: int = 0,
) -> Method:
    """Direct preference optimization on groups of scored responses.

    Args:
        beta: KL weight of the implied reward, > 0; 0.1 is the best of the copg paper's sweep.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; groups are never cut.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, 1e-6 models of billions.
        warmup: first steps over which the rate rises, >= 0.
    """
    within("beta", beta, "(0, inf)", "Use 0.1")
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 1 to take one step per batch")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    whole("warmup", warmup, 0, "Use 0 for none")
    return Method(
        slug="dpo",
        losses={"preference": Term(Preference("sigmoid", beta), unit="row", reduction="token-sum")},
        plan=Plan(passes=passes, minibatches=minibatches, unit="group"),
        step=Adam(learning_rate=learning_rate, warmup=warmup),
    )
