"""Dr. GRPO: GRPO without its two biases, the division by response length and by the group's deviation.

    A_i = R_i - mean(R_group)
    loss = 1/(G L) sum_i sum_t max(-A_i r_it, -A_i clip(r_it, 1 - low, 1 + high)),      L a constant

Liu et al. 2025, "Understanding R1-Zero-like training: a critical perspective", arXiv 2503.20783, section 3.2 and
Listing 1. L is the response budget. The advantage is (G-1)/G times the leave-one-out advantage of RLOO (appendix A).
"""

from __future__ import annotations

from ascent.core.centre import Centre
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import whole, within
from ascent.core.registry import register
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term


@register(
    "dr_grpo",
    title="Understanding R1-Zero-like training: a critical perspective",
    paper="Liu et al., COLM",
    year=2025,
    url="https://arxiv.org/abs/2503.20783",
    family="language",
    status="baseline",
)
def dr_grpo(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    horizon: float | None = None,
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
) -> Method:
    """GRPO done right: no length and no deviation in the denominator.

    Args:
        clip_low: epsilon below 1, >= 0; inf switches the bound off.
        clip_high: epsilon above 1, >= 0; inf switches the bound off.
        horizon: the constant L, > 0; None takes the response budget that the sampler recorded.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the paper's 7B model uses 1e-6.
    """
    within("clip_low", clip_low, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("clip_high", clip_high, "[0, inf]", "Use 0.2; inf switches the bound off")
    if horizon is not None:
        within("horizon", horizon, "(0, inf)", "Use the response budget in tokens, or None to read it")
    whole("passes", passes, 1, "Use 1 as the paper does")
    whole("minibatches", minibatches, 1, "Use 1 to stay on policy")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    policy = Term(ClippedRatio(low=clip_low, high=clip_high), reduction="seq-mean-token-sum-norm", horizon=horizon)
    return Method(
        slug="dr_grpo",
        advantage=Centre(by="group"),
        losses={"policy": policy},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
