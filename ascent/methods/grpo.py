"""GRPO: PPO's clipped ratio without a critic; the group of responses to one prompt is the baseline.

    A_i = (R_i - mean(R_group)) / std(R_group)                      the same for every token of response i
    loss = 1/G sum_i 1/|o_i| sum_t [ max(-A_i r_it, -A_i clip(r_it, 1 - low, 1 + high)) + beta * k3_it ]
    k3 = pi_ref/pi - log(pi_ref/pi) - 1

Shao et al. 2024, DeepSeekMath, arXiv 2402.03300, eqs. 3, 4 and 4.1.2 (outcome supervision). Departures: groups of
equal scores get advantage exactly 0 instead of 0/(0 + eps); eps is 1e-6 (verl's), the paper states none.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.centre import Centre
from ascent.core.divergences import Divergence
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.reductions import REDUCTIONS, Reduction
from ascent.core.registry import register
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term


@register(
    "grpo",
    title="DeepSeekMath: pushing the limits of mathematical reasoning in open language models",
    paper="Shao et al., preprint",
    year=2024,
    url="https://arxiv.org/abs/2402.03300",
    family="language",
    status="baseline",
)
def grpo(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    kl_coefficient: float = 0.04,
    scale: Literal["group", "batch", "none"] = "group",
    ddof: int = 1,
    eps: float = 1e-6,
    reduction: Reduction = "seq-mean-token-mean",
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
) -> Method:
    """Group relative policy optimization.

    Args:
        clip_low: epsilon below 1, >= 0; inf switches the bound off.
        clip_high: epsilon above 1, >= 0; 0.28 is DAPO's clip-higher.
        kl_coefficient: beta of the k3 divergence to the reference, >= 0; 0 needs no reference model.
        scale: whose standard deviation divides the advantage: "group", "batch" or "none".
        ddof: 1 for the sample deviation, 0 for the population's.
        eps: added to the deviation, >= 0.
        reduction: how tokens add up; the paper averages within each response first.
        passes: walks over each collection (mu in the paper), >= 1.
        minibatches: optimiser steps per pass, >= 1.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the paper's 7B model uses 1e-6.
    """
    within("clip_low", clip_low, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("clip_high", clip_high, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("kl_coefficient", kl_coefficient, "[0, inf)", "Use 0 for no reference model")
    one_of("scale", scale, ("group", "batch", "none"))
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-6")
    one_of("reduction", reduction, REDUCTIONS)
    whole("passes", passes, 1, "Use 1 as the paper does")
    whole("minibatches", minibatches, 1, "Use 1 to stay on policy")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    losses = {"policy": Term(ClippedRatio(low=clip_low, high=clip_high), reduction=reduction)}
    if kl_coefficient:
        losses["kl"] = Term(Divergence(kind="k3", against="reference"), kl_coefficient, reduction=reduction)
    return Method(
        slug="grpo",
        advantage=Centre(by="group", scale=None if scale == "none" else scale, ddof=ddof, eps=eps),
        losses=losses,
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
