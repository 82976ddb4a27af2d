"""REINFORCE++: a critic-free PPO whose advantage is normalised over the whole batch, not within a group.

    A_t = R - beta * sum_{k >= t} log(pi_old / pi_reference)(a_k),      A <- (A - mean_batch) / std_batch
    variant "baseline":  A = R - mean(R_group),  A <- (A - mean_batch) / std_batch,  loss + beta * k2 to the reference
    loss = 1/M sum_t max(-A_t r_t, -A_t clip(r_t, 1 - eps, 1 + eps))

Hu et al. 2025, arXiv 2501.03262 (both variants; statistics over tokens as in the authors' OpenRLHF). Not verified
against the text: beta = 0.01 and the batch statistics of the baseline variant being taken over tokens.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.centre import Centre
from ascent.core.divergences import Divergence
from ascent.core.method import Credit, Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.returns import RewardToGo
from ascent.core.shaping import Penalised
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term


@register(
    "reinforce_plus_plus",
    title="REINFORCE++: stabilizing critic-free policy optimization with global advantage normalization",
    paper="Hu et al., preprint",
    year=2025,
    url="https://arxiv.org/abs/2501.03262",
    family="language",
    status="baseline",
)
def reinforce_plus_plus(
    variant: Literal["plain", "baseline"] = "plain",
    kl_coefficient: float = 0.01,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    eps: float = 1e-8,
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
) -> Method:
    """Clipped policy gradient with global advantage normalisation.

    Args:
        variant: "plain" (KL in the reward, no group needed) or "baseline" (group mean subtracted, KL as a k2 loss).
        kl_coefficient: beta of the divergence to the reference, >= 0; 0 needs no reference model.
        clip_low: epsilon below 1, >= 0; inf switches the bound off.
        clip_high: epsilon above 1, >= 0; inf switches the bound off.
        eps: added to the batch's standard deviation, >= 0.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, 5e-7 models of billions.
    """
    one_of("variant", variant, ("plain", "baseline"))
    within("kl_coefficient", kl_coefficient, "[0, inf)", "Use 0 for no reference model")
    within("clip_low", clip_low, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("clip_high", clip_high, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("eps", eps, "[0, inf)", "Use 1e-8")
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 1 to stay on policy")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    losses = {"policy": Term(ClippedRatio(low=clip_low, high=clip_high))}
    raw: Credit = RewardToGo(reward=Penalised(kl_coefficient))
    if variant == "baseline":
        raw = Centre(by="group")
        if kl_coefficient:
            losses["kl"] = Term(Divergence(kind="k2", against="reference"), kl_coefficient)
    return Method(
        slug="reinforce_plus_plus",
        advantage=Centre(of=raw, by="batch", scale="batch", unit="decision", eps=eps),
        losses=losses,
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
