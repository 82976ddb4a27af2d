"""DAPO: four repairs of GRPO for long reasoning.

1. clip-higher:       the upper bound of the ratio is wider, so rare tokens can become likely
2. dynamic sampling:  groups whose scores are all equal give no gradient; they are refused and refilled
3. token-mean:        every token of the update weighs the same, so long responses are not discounted
4. overlong shaping:  r' = r - clip((|y| - (L - buffer)) / buffer, 0, 1), a soft punishment near the budget L

    A_i = (R'_i - mean(R'_group)) / std(R'_group)
    loss = 1/sum_i|o_i| sum_i sum_t max(-A_i r_it, -A_i clip(r_it, 1 - low, 1 + high)),     no KL

Yu et al. 2025, arXiv 2503.14476, eqs. 8-13. Departure: the buffer is a share of the budget (4096 / 20480 = 0.2 in the
paper) so that it suits tasks of any length.
"""

from __future__ import annotations

from ascent.core.centre import Centre
from ascent.core.filters import Informative, Overlong
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.returns import Score
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term


@register(
    "dapo",
    title="DAPO: an open-source LLM reinforcement learning system at scale",
    paper="Yu et al., NeurIPS",
    year=2025,
    url="https://arxiv.org/abs/2503.14476",
    family="language",
    status="baseline",
)
def dapo(
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dynamic_sampling: bool = True,
    overlong_buffer: float = 0.2,
    overlong_limit: int | None = None,
    overlong_penalty: float = 1.0,
    ddof: int = 1,
    eps: float = 1e-6,
    passes: int = 1,
    minibatches: int = 16,
    learning_rate: float = 1e-4,
) -> Method:
    """Decoupled clip and dynamic sampling policy optimization.

    Args:
        clip_low: epsilon below 1, >= 0; inf switches the bound off.
        clip_high: epsilon above 1, >= 0; wider than clip_low keeps entropy.
        dynamic_sampling: whether groups of equal scores are refused before any forward pass.
        overlong_buffer: share of the budget over which the punishment rises, in [0, 1]; 0 switches it off.
        overlong_limit: budget L in tokens, >= 1; None reads the budget that the sampler recorded.
        overlong_penalty: greatest deduction, > 0.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; the paper takes 16 per collection.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the paper's 32B model uses 1e-6.
    """
    within("clip_low", clip_low, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("clip_high", clip_high, "[0, inf]", "Use 0.28; inf switches the bound off")
    within("overlong_buffer", overlong_buffer, "[0, 1]", "Use 0.2, or 0 for no length shaping")
    if overlong_limit is not None:
        whole("overlong_limit", overlong_limit, 1, "Use the response budget in tokens, or None to read it")
    within("overlong_penalty", overlong_penalty, "(0, inf)", "Use 1, the reward of a correct response")
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-6")
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 16 as the paper does")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    score = Score()
    if overlong_buffer:
        score = Score(Overlong(limit=overlong_limit, buffer=float(overlong_buffer), penalty=overlong_penalty))
    return Method(
        slug="dapo",
        advantage=Centre(of=score, by="group", scale="group", ddof=ddof, eps=eps),
        accept=Informative() if dynamic_sampling else None,
        losses={"policy": Term(ClippedRatio(low=clip_low, high=clip_high), reduction="token-mean")},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
