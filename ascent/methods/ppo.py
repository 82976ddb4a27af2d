"""PPO: several passes over one collection, with the gain of leaving the old policy cut off.

    r_t = pi(a_t|s_t) / pi_old(a_t|s_t)
    loss = mean_t max(-A_t r_t, -A_t clip(r_t, 1 - low, 1 + high)) + c_v 1/2 (V - V^target)^2 - c_e H

Schulman et al. 2017, arXiv 1707.06347, eqs. 7, 9 and 11. The constants are Table 3 of the paper (MuJoCo) with the
implementation details that its released code relies on (Huang et al. 2022, "The 37 implementation details of
PPO"): normalised advantages per minibatch, Adam eps 1e-5, gradient norm 0.5, optional clipped value loss, optional
early stop. Departures: truncated episodes bootstrap; the early stop is checked at every update, not every pass.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.combinators import Normalised
from ascent.core.critics import ValueLoss
from ascent.core.divergences import Entropy
from ascent.core.method import Method
from ascent.core.plan import Adam, Linear, Plan, Stop
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.returns import GAE, LambdaReturn
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term


@register(
    "ppo",
    title="Proximal policy optimization algorithms",
    paper="Schulman et al., preprint",
    year=2017,
    url="https://arxiv.org/abs/1707.06347",
    family="control",
    status="baseline",
)
def ppo(
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.95,
    value_coefficient: float = 0.5,
    value_clip: float | None = None,
    entropy_coefficient: float = 0.0,
    normalise: bool = True,
    passes: int = 10,
    minibatches: int = 32,
    unit: Literal["decision", "row", "group"] = "decision",
    target_kl: float | None = None,
    learning_rate: float | Linear = 3e-4,
    anneal: Literal["none", "learning_rate", "both"] = "none",
    adam_eps: float = 1e-5,
    max_gradient_norm: float = 0.5,
) -> Method:
    """Proximal policy optimization with a clipped ratio.

    Args:
        clip_low: epsilon below 1, the ratio is cut at 1 - clip_low where the advantage is negative; >= 0.
        clip_high: epsilon above 1, >= 0.
        discount: gamma, in [0, 1].
        trace: lambda of GAE, in [0, 1].
        value_coefficient: weight of the critic's squared error, >= 0.
        value_clip: range in which the critic may leave its old value, > 0; None does not clip.
        entropy_coefficient: weight of the entropy bonus, >= 0; 0.01 in the paper's Atari runs.
        normalise: whether advantages are standardised within each update.
        passes: walks over the collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; 32 cuts 2048 steps into the paper's 64.
        unit: what is dealt into minibatches: single decisions, or whole rows (language, recurrent policies).
        target_kl: the walk ends after an update whose estimated KL to the old policy exceeds it, > 0; None never stops.
        learning_rate: of Adam, > 0; a number or a Linear schedule.
        anneal: what falls linearly to 0 over the run: nothing, the learning rate, or both it and the clip range.
        adam_eps: added to the root of Adam's second moment, > 0.
        max_gradient_norm: global norm to which the gradient is clipped, > 0.
    """
    within("clip_low", clip_low, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("clip_high", clip_high, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("discount", discount, "[0, 1]", "Use 0.99 for control, 1 for scored sequences")
    within("trace", trace, "[0, 1]", "Use 0.95")
    within("value_coefficient", value_coefficient, "[0, inf)", "Use 0.5")
    within("entropy_coefficient", entropy_coefficient, "[0, inf)", "Use 0 for no bonus")
    if value_clip is not None:
        within("value_clip", value_clip, "(0, inf)", "Use 0.2, or None for the plain squared error")
    whole("passes", passes, 1, "Use 10")
    whole("minibatches", minibatches, 1, "Use 32 for 2048 steps")
    one_of("unit", unit, ("decision", "row", "group"))
    if target_kl is not None:
        within("target_kl", target_kl, "(0, inf)", "Use 0.03, or None for no early stop")
    within("learning_rate", learning_rate, "[0, inf)", "Use 3e-4")
    within("adam_eps", adam_eps, "(0, inf)", "Use 1e-5")
    within("max_gradient_norm", max_gradient_norm, "(0, inf]", "Use 0.5, or inf to switch clipping off")
    one_of("anneal", anneal, ("none", "learning_rate", "both"))
    low, high, rate = clip_low, clip_high, learning_rate
    if anneal != "none" and not isinstance(rate, Linear):
        rate = Linear(rate)
    if anneal == "both":
        low, high = Linear(low), Linear(high)
    losses = {
        "policy": Term(ClippedRatio(low=low, high=high)),
        "value": Term(ValueLoss(clip=value_clip), value_coefficient),
    }
    if entropy_coefficient:
        losses["entropy"] = Term(Entropy(), entropy_coefficient)
    stop = None if target_kl is None else Stop("approximate_kl", above=target_kl, when="after")
    return Method(
        slug="ppo",
        advantage=GAE(discount, trace),
        value_target=LambdaReturn(discount, trace),
        normalise=Normalised() if normalise else None,
        losses=losses,
        plan=Plan(passes=passes, minibatches=minibatches, unit=unit, stop=stop),
        step=Adam(rate, eps=adam_eps, max_gradient_norm=max_gradient_norm),
    )
