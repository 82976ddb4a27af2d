"""CISPO: clip the importance weight, not the update, so that no token loses its gradient.

    loss = 1/sum_i|o_i| sum_i sum_t -sg(clip(r_it, 1 - low, 1 + high)) A_i log pi(o_it),      A_i as in GRPO, no KL

PPO's clip drops rare "fork" tokens (however, wait) after the first step of a collection; here they keep a bounded
weight. MiniMax 2025, MiniMax-M1, arXiv 2506.13585, eqs. 4-5, with token-mean and dynamic sampling from DAPO. The
paper puts no lower bound and does not print its upper one; 1 + high = 5 is the value of Khatri et al. 2025,
"The art of scaling RL compute for LLMs", arXiv 2510.13786 (not verified). The paper's length penalty is left out.
"""

from __future__ import annotations

from ascent.core.centre import Centre
from ascent.core.filters import Informative
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.surrogates import CISPO
from ascent.core.term import Term


@register(
    "cispo",
    title="MiniMax-M1: scaling test-time compute efficiently with lightning attention",
    paper="MiniMax, preprint",
    year=2025,
    url="https://arxiv.org/abs/2506.13585",
    family="language",
    status="baseline",
)
def cispo(
    clip_low: float | None = None,
    clip_high: float = 4.0,
    dynamic_sampling: bool = True,
    ddof: int = 1,
    eps: float = 1e-6,
    passes: int = 1,
    minibatches: int = 16,
    learning_rate: float = 1e-4,
) -> Method:
    """Clipped importance-sampling-weight policy optimization.

    Args:
        clip_low: distance below 1 of the weight, >= 0; None has no lower bound, as in the paper.
        clip_high: distance above 1 of the weight, >= 0; inf switches the bound off.
        dynamic_sampling: whether groups of equal scores are refused before any forward pass.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; the paper's comparison takes 16 per collection.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model.
    """
    if clip_low is not None:
        within("clip_low", clip_low, "[0, inf]", "Use None for no lower bound")
    within("clip_high", clip_high, "[0, inf]", "Use 4 for weights of at most 5")
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-6")
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 16 as the paper does")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    return Method(
        slug="cispo",
        advantage=Centre(by="group", scale="group", ddof=ddof, eps=eps),
        accept=Informative() if dynamic_sampling else None,
        losses={"policy": Term(CISPO(low=clip_low, high=clip_high), reduction="token-mean")},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
