"""BAPO: before every update, search for the clip bounds that let positive tokens supply their share of the loss.

    J = E_{y ~ pi_r} sum_t min(r_t A_t, clip(r_t, c_low, c_high) A_t),           r_t = pi(y_t) / pi_r(y_t)     (Alg. 1)

With the data stale, tokens of negative advantage supply most of the loss, and symmetric clipping cuts exactly the
unlikely positive tokens that would raise entropy. The share of the positive ones is                             (eq. 8)

    rho = P / (P + N),    P(c_high) = sum_{A > 0} A_t min(r_t, c_high),    N(c_low) = sum_{A < 0} |A_t| max(r_t, c_low)

and the search, run anew on every update batch, stops at the first bounds with rho >= rho_0:

    c_low, c_high = a-, a+
    while rho < rho_0:   raise c_high by delta_1 as long as it stays within b+, then c_low by delta_2 within b-

Xi et al. 2025, arXiv 2510.18927; code WooooDyy/BAPO. Read so: the absolute value is per term, tokens weigh 1 (they are
samples of pi_r). `variant="reference_code"` raises c_low first, tests P / (N + 1e-8), lands on the maximum, and clips
dually at 3. Departures: the code searches on each micro-batch; the printed loop does not raise c_high where c_low has
no step left, here each bound goes to its own end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.clip_bounds import Bounds, ControlledClip
from ascent.core.filters import Informative
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term

DUAL_CLIP = 3.0
"""The reference code's clip_ratio_c."""
GUARD = 1e-8
"""What the reference code adds to N."""


@dataclass(frozen=True)
class Range:
    """The values that a bound may take: `start`, `start + step`, ... up to `end`.

    Attributes:
        start, end: start <= end.
        step: > 0.
        lands: whether a last, shorter step reaches `end` exactly (the reference code).
    """

    start: float
    end: float
    step: float
    lands: bool = False

    def values(self) -> Tensor:
        """[G] float64."""
        steps = (self.end - self.start) / self.step
        # 36 * 0.05 must reach from 1.2 to 3.0, whatever rounding says.
        count = math.ceil(steps - 1e-9) if self.lands else math.floor(steps + 1e-9)
        return (self.start + torch.arange(count + 1, dtype=torch.float64) * self.step).clamp(max=self.end)


@dataclass(frozen=True)
class Balance:
    """The bounds at which tokens of positive advantage supply their share of the loss; a clip-bound controller.

    Attributes:
        low, high: values of c_low below 1, of c_high above 1.
        share: rho_0 in (0, 1).
        order: which bound is raised first, to its end, before the other.
        quantity: what is tested: "share" P / (P + N) >= share, or "quotient" P / (N + 1e-8) >= share / (1 - share).
        contribution: "value" of the loss, or "gradient": only tokens that the bounds leave their gradient count.
    """

    low: Range = Range(0.6, 0.9, 0.02)
    high: Range = Range(1.2, 3.0, 0.05)
    share: float = 0.4
    order: Literal["high", "low"] = "high"
    quantity: Literal["share", "quotient"] = "share"
    contribution: Literal["value", "gradient"] = "value"

    def positive(self, ratio: Tensor, advantage: Tensor, bounds: Tensor) -> Tensor:
        """P [G] at each c_high, from the ratios and advantages [M] of the positive tokens."""
        ratio, product, weight = _sums(ratio, advantage)
        below = torch.searchsorted(ratio, bounds)
        clipped = bounds * (weight[-1] - weight[below])
        return product[below] + (clipped if self.contribution == "value" else 0.0)

    def negative(self, ratio: Tensor, advantage: Tensor, bounds: Tensor) -> Tensor:
        """N [G] at each c_low, from the ratios and advantages [M] of the negative tokens."""
        ratio, product, weight = _sums(ratio, -advantage)
        below = torch.searchsorted(ratio, bounds, right=True)
        clipped = bounds * weight[below]
        return product[-1] - product[below] + (clipped if self.contribution == "value" else 0.0)

    def __call__(self, ratio: Tensor, advantage: Tensor, mask: Tensor) -> Bounds:
        ratio, advantage = ratio[mask].double(), advantage[mask].double()
        up, down = advantage > 0, advantage < 0
        low, high = self.low.values().to(ratio.device), self.high.values().to(ratio.device)
        positive = self.positive(ratio[up], advantage[up], high)
        negative = self.negative(ratio[down], advantage[down], low)
        first, second = (len(high), len(low)) if self.order == "high" else (len(low), len(high))
        # The first bound rises while the second rests, then the second while the first stays at its end.
        raised = torch.cat([torch.arange(first), torch.full((second - 1,), first - 1)]).to(ratio.device)
        rests = torch.cat([torch.zeros(first, dtype=torch.int64), torch.arange(1, second)]).to(ratio.device)
        at_high, at_low = (raised, rests) if self.order == "high" else (rests, raised)
        meets = self.meets(positive[at_high], negative[at_low])
        found = torch.where(meets.any(), meets.int().argmax(), len(meets) - 1)
        shares = _share(positive[at_high], negative[at_low])
        signed = (up.sum() + down.sum()).clamp(min=1)
        report = {
            "positive_share": shares[found],
            "positive_share_at_start": shares[0],
            "positive_share_of_tokens": up.sum() / signed,
        }
        return Bounds(low[at_low[found]], high[at_high[found]], report)

    def meets(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Whether P and N are balanced; where both are 0 there is nothing to balance."""
        if self.quantity == "share":
            return _share(positive, negative) >= self.share - 1e-12
        wanted = self.share / (1.0 - self.share)
        return (negative <= 0) | (positive / (negative + GUARD) >= wanted - 1e-12)


def _sums(ratio: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ratios [M] in order, and the running sums [M + 1] of weight * ratio and weight: P and N are linear between."""
    order = ratio.argsort()
    ratio, weight = ratio[order], weight[order]
    zero = ratio.new_zeros(1)
    return ratio, torch.cat([zero, (weight * ratio).cumsum(0)]), torch.cat([zero, weight.cumsum(0)])


def _share(positive: Tensor, negative: Tensor) -> Tensor:
    total = positive + negative
    return torch.where(total > 0, positive / torch.where(total > 0, total, 1.0), 1.0)


@register(
    "bapo",
    title="BAPO: stabilizing off-policy reinforcement learning for LLMs via balanced policy optimization",
    paper="Xi et al., ICLR",
    year=2026,
    url="https://arxiv.org/abs/2510.18927",
    family="language",
)
def bapo(
    positive_share: float = 0.4,
    positive_quotient: float | None = None,
    low_start: float = 0.6,
    low_end: float = 0.9,
    low_step: float = 0.02,
    high_start: float = 1.2,
    high_end: float = 3.0,
    high_step: float = 0.05,
    variant: Literal["paper", "reference_code"] = "paper",
    contribution: Literal["value", "gradient"] = "value",
    dual_clip: float | None = None,
    segment_tokens: int | None = None,
    in_flight: int = 4,
    dynamic_sampling: bool = True,
    ddof: int = 1,
    eps: float = 1e-6,
    passes: int = 2,
    minibatches: int = 4,
    learning_rate: float = 1e-4,
) -> Method:
    """Balanced policy optimization with adaptive clipping.

    Args:
        positive_share: rho_0, wanted share of positive tokens in the loss, in (0, 1).
        positive_quotient: P / N wanted instead, > 0; a quotient q is the share q / (1 + q). None takes the share.
        low_start: a-, where c_low starts, a bound on the ratio in [0, 1).
        low_end: b-, where c_low ends, in [low_start, 1); equal to low_start it is a fixed bound.
        low_step: delta_2 of c_low, > 0.
        high_start: a+, where c_high starts, a bound on the ratio > 1.
        high_end: b+, where c_high ends, >= high_start; equal to it, a fixed bound.
        high_step: delta_1 of c_high, > 0.
        variant: "paper" raises c_high first and tests the share; "reference_code" c_low first and tests the quotient.
        contribution: whether a token counts by its "value" in the loss or only while it has a "gradient".
        dual_clip: limit > 1 of the ratio of negative tokens; None is the variant's, none or the code's 3.
        segment_tokens: partial rollouts: tokens that a response grows per act, >= 1; None answers prompts whole.
        in_flight: batches of responses under way in partial rollouts, >= 1; 1 leaves none to be resumed.
        dynamic_sampling: whether groups of equal scores are refused.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        passes: walks over each collection, >= 1: the data of pass k are k - 1 passes stale.
        minibatches: optimiser steps per pass, >= 1; groups are never cut.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the paper's 7B model uses 2e-6.
    """
    within("positive_share", positive_share, "(0, 1)", "Use 0.4; a quotient P/N goes to positive_quotient")
    if positive_quotient is not None:
        within("positive_quotient", positive_quotient, "(0, inf)", "Use 1 for equal weight, or None for the share")
    for name, bound in (("low_start", low_start), ("low_end", low_end)):
        within(name, bound, "[0, 1)", "It bounds the ratio itself: 0.6, not a distance from 1")
    for name, bound in (("high_start", high_start), ("high_end", high_end)):
        within(name, bound, "(1, inf)", "It bounds the ratio itself: 1.2, not a distance from 1")
    for name, start, end in (("low", low_start, low_end), ("high", high_start, high_end)):
        if start > end:
            raise ValueError(f"{name}_start must be <= {name}_end; got {start!r} and {end!r}. Bounds are only raised.")
    for name, step in (("low_step", low_step), ("high_step", high_step)):
        within(name, step, "(0, inf)", "Use 0.02 below and 0.05 above; equal ends make a bound fixed")
    one_of("variant", variant, ("paper", "reference_code"))
    one_of("contribution", contribution, ("value", "gradient"))
    if dual_clip is not None:
        within("dual_clip", dual_clip, "(1, inf)", "Use 3 as the code does, or None")
    if segment_tokens is not None:
        whole("segment_tokens", segment_tokens, 1, "Use a fraction of the longest response, or None")
    whole("in_flight", in_flight, 1, "Use 4: the longest response over the segment")
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-6")
    whole("passes", passes, 1, "Use 2; 1 with one minibatch is on policy, where the method is the identity")
    whole("minibatches", minibatches, 1, "Use 4 as the example script does")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")

    code = variant == "reference_code"
    share = positive_share if positive_quotient is None else positive_quotient / (1.0 + positive_quotient)
    controller = Balance(
        low=Range(low_start, low_end, low_step, lands=code),
        high=Range(high_start, high_end, high_step, lands=code),
        share=share,
        order="low" if code else "high",
        quantity="quotient" if code else "share",
        contribution=contribution,
    )
    dual = DUAL_CLIP if code and dual_clip is None else dual_clip
    surrogate = ClippedRatio("clip_below", "clip_above", dual=dual, against="behaviour")
    return Method(
        slug="bapo",
        advantage=Centre(by="group", scale="group", ddof=ddof, eps=eps),
        accept=Informative() if dynamic_sampling else None,
        losses={"policy": Term(ControlledClip(controller, surrogate), reduction="token-mean")},
        plan=Plan(passes=passes, minibatches=minibatches, unit="group"),
        step=Adam(learning_rate=learning_rate),
    )
