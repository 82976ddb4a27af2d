"""GSPO: the importance ratio and its clip belong to the response, because the reward does.

    s_i = (pi(y_i|x) / pi_old(y_i|x))^(1/|y_i|) = exp(mean_t log-ratio)
    loss = 1/G sum_i max(-A_i s_i, -A_i clip(s_i, 1 - low, 1 + high))

Zheng et al. 2025, "Group sequence policy optimization", arXiv 2507.18071, eqs. 5-7; bounds from section 5.1. The
variant "token" is GSPO-token (eqs. 13-14): the same number and, where a response's tokens share one advantage, the
same gradient, but token-wise advantages become possible.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.centre import Centre
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term


@register(
    "gspo",
    title="Group sequence policy optimization",
    paper="Zheng et al., preprint",
    year=2025,
    url="https://arxiv.org/abs/2507.18071",
    family="language",
    status="baseline",
)
def gspo(
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    variant: Literal["sequence", "token"] = "sequence",
    ddof: int = 1,
    eps: float = 1e-6,
    passes: int = 1,
    minibatches: int = 4,
    learning_rate: float = 1e-4,
) -> Method:
    """Group sequence policy optimization.

    Args:
        clip_low: distance below 1 of the length-normalised ratio, >= 0; inf switches the bound off.
        clip_high: distance above 1, >= 0; inf switches the bound off.
        variant: "sequence", or "token" for GSPO-token.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; the paper cuts each collection into 4.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model.
    """
    within("clip_low", clip_low, "[0, inf]", "Use 3e-4: the ratio is a geometric mean, so it stays near 1")
    within("clip_high", clip_high, "[0, inf]", "Use 4e-4: the ratio is a geometric mean, so it stays near 1")
    one_of("variant", variant, ("sequence", "token"))
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-6")
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 4 as the paper does")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    ratio: Literal["sequence", "sequence-token"] = "sequence" if variant == "sequence" else "sequence-token"
    policy = Term(ClippedRatio(low=clip_low, high=clip_high, ratio=ratio), reduction="seq-mean-token-mean")
    return Method(
        slug="gspo",
        advantage=Centre(by="group", scale="group", ddof=ddof, eps=eps),
        losses={"policy": policy},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
