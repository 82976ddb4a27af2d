"""Surrogate losses: values [N, T] whose gradient is a policy gradient. Smaller is better."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ascent.core.critics import pooled
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Part
from ascent.core.plan import Linear
from ascent.core.term import Value

Bound = float | str | Linear
"""A distance from 1, a schedule of it, or the name of a prepared column [N] or [N, T] that holds it."""
Level = Literal["token", "sequence", "sequence-token"]

# Log-ratios are limited to +-20 nats as in verl: exp stays finite, so no infinity meets a zero gradient.
LIMIT = 20.0


def likelihood_ratio(
    log_prob: Float[Tensor, "N T"], other: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], level: Level = "token"
) -> Float[Tensor, "N T"]:
    """pi / pi_other [N, T], differentiable in `log_prob`.

    Args:
        log_prob, other: [N, T], nats.
        mask: [N, T] bool.
        level: "token" is each decision's own. "sequence" is the geometric mean over the row's decisions (GSPO,
            arXiv:2507.18071). "sequence-token" has the sequence's number and the gradient of the decision's own
            log-prob (GSPO-token, same paper).
    """
    difference = log_prob - other
    if level == "token":
        return difference.clamp(-LIMIT, LIMIT).exp()
    length = mask.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(mask, difference, 0.0).sum(1, keepdim=True) / length
    sequence = mean.clamp(-LIMIT, LIMIT).exp()
    if level == "sequence":
        return sequence.expand(mask.shape)
    return sequence.detach() * (log_prob - log_prob.detach()).exp()


def limits(low: Bound | None, high: Bound | None, decisions: Decisions) -> tuple[float | Tensor, float | Tensor]:
    """1 - low and 1 + high; None is open."""

    def distance(bound: Bound | None) -> float | Tensor:
        if bound is None:
            return torch.inf
        if isinstance(bound, Linear):
            done = decisions.per_decision("progress", "a scheduled clip bound")
            return bound.start + (bound.end - bound.start) * done
        return decisions.per_decision(bound, "a clip bound") if isinstance(bound, str) else bound

    return 1.0 - distance(low), 1.0 + distance(high)


def is_open(low: Bound | None, high: Bound | None) -> bool:
    """Whether nothing is ever clipped, so that a clip fraction would be a number about no clip."""
    return low in (None, torch.inf) and high in (None, torch.inf)


def between(number: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """`number` clipped to [low, high], each a float or a tensor."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        low = low if isinstance(low, Tensor) else torch.full_like(number, low)
        high = high if isinstance(high, Tensor) else torch.full_like(number, high)
        return torch.clamp(number, low, high)
    return number.clamp(low, high)


def check_bounds(low: Bound | None, high: Bound | None) -> None:
    """Raise ValueError for a negative distance."""
    for name, bound in (("low", low), ("high", high)):
        ends = (bound.start, bound.end) if isinstance(bound, Linear) else (bound,)
        if any(isinstance(end, int | float) and end < 0 for end in ends):
            raise ValueError(f"{name} must be >= 0 (a distance from the ratio 1); got {bound!r}.")


def scheduled(*bounds: Bound | None) -> frozenset[str]:
    """What scheduled bounds read: the run's progress, a column that the method's `prepare` writes."""
    return frozenset({"progress"} if any(isinstance(bound, Linear) for bound in bounds) else ())


@dataclass(frozen=True)
class LogProb(Part):
    """`-A log pi(a|c)`: REINFORCE (Williams 1992)."""

    follows_advantage = True
    needs = frozenset({"log_prob", "advantage"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return -decisions.advantage * evaluation.log_prob


@dataclass(frozen=True)
class MaskedLogProb(Part):
    """`-M A log pi`, without gradient where the update has gone far enough: M is 0 where PPO's clip would act.

    M = 0 where A > 0 and r > 1 + high, or A < 0 and r < 1 - low, with r = pi / pi_old; 1 elsewhere. The ratio decides
    and does nothing else, so an importance weight against any other policy can stand before it (decoupled PPO).

    Attributes:
        low, high: distances from 1, or names of prepared columns; None is open.
    """

    low: Bound | None = 0.2
    high: Bound | None = 0.2

    follows_advantage = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"log_prob", "old_log_prob", "advantage"}) | scheduled(self.low, self.high)

    def __post_init__(self) -> None:
        check_bounds(self.low, self.high)

    def sides(self, evaluation: Evaluation, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """[N, T] bool: masked below (A < 0) and masked above (A > 0)."""
        low, high = limits(self.low, self.high, decisions)
        quotient = likelihood_ratio(evaluation.log_prob.detach(), decisions.old_log_prob, decisions.mask)
        advantage = decisions.advantage
        return (quotient < low) & (advantage < 0), (quotient > high) & (advantage > 0)

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        below, above = self.sides(evaluation, decisions)
        return torch.where(below | above, 0.0, -decisions.advantage * evaluation.log_prob)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """Shares of masked decisions (`clip_fraction` and its two sides), k3, ratio."""
        below, above = self.sides(evaluation, decisions)
        clip = {"clip_fraction": below | above, "clip_fraction_low": below, "clip_fraction_high": above}
        return _divergence(evaluation.log_prob - decisions.old_log_prob) | clip


@dataclass(frozen=True)
class Ratio(Part):
    """`-A pi / pi_old`, not clipped: the conservative policy iteration surrogate.

    Attributes:
        ratio: see `likelihood_ratio`.
    """

    ratio: Level = "token"
    follows_advantage = True
    needs = frozenset({"log_prob", "old_log_prob", "advantage"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        quotient = likelihood_ratio(evaluation.log_prob, decisions.old_log_prob, decisions.mask, self.ratio)
        return -decisions.advantage * quotient

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        return _divergence(evaluation.log_prob - decisions.old_log_prob)


@dataclass(frozen=True)
class Outcome(Part):
    """`-outcome`: the differentiable worth of the policy's own action (pathwise gradients, Q(s, a) of an actor).

    Attributes:
        pool: how K judges [N, T, K] become one number: "min" or "mean".
    """

    pool: Literal["min", "mean"] = "min"
    needs = frozenset({"outcome"})

    def __post_init__(self) -> None:
        if self.pool not in ("min", "mean"):
            raise ValueError(f"pool must be 'min' or 'mean'; got {self.pool!r}.")

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return -pooled(evaluation.outcome, self.pool)


def _divergence(difference: Tensor) -> dict[str, Tensor]:
    """`approximate_kl` = k3 of old against new (Schulman, joschu.net/blog/kl-approx.html) and the mean `ratio`."""
    quotient = difference.clamp(-LIMIT, LIMIT).exp()
    return {"approximate_kl": quotient - 1.0 - difference, "ratio": quotient}


@dataclass(frozen=True)
class ClippedRatio(Part):
    """`-min(A r, A clip(r, 1 - low, 1 + high))` (PPO, arXiv:1707.06347).

    Asymmetric bounds are DAPO's clip-higher (arXiv:2503.14476); `ratio="sequence"` is GSPO (arXiv:2507.18071);
    `dual` is dual-clip PPO (arXiv:1912.09729): where A < 0 the value is at most `-A dual`.

    Attributes:
        low, high: distances from 1, or names of columns written by some part's `prepare`.
        dual: > 1, or None.
        ratio: see `likelihood_ratio`.
        against: the policy under the ratio, "old" or "behaviour": whoever sampled, perhaps several policies in a row.
    """

    low: Bound = 0.2
    high: Bound = 0.2
    dual: float | None = None
    ratio: Level = "token"
    against: Literal["old", "behaviour"] = "old"

    follows_advantage = True

    @property
    def needs(self) -> frozenset[str]:
        # A world that records no behaviour gets the old policy's log-probs for it, so they are asked for in any case.
        log_probs = {"log_prob", "old_log_prob", f"{self.against}_log_prob"}
        return frozenset({"advantage", *log_probs}) | scheduled(self.low, self.high)

    def __post_init__(self) -> None:
        check_bounds(self.low, self.high)
        if self.against not in ("old", "behaviour"):
            raise ValueError(f"against must be 'old' or 'behaviour'; got {self.against!r}.")
        if self.dual is not None and self.dual <= 1:
            raise ValueError(f"dual must be > 1 or None; got {self.dual!r}.")

    def other(self, decisions: Decisions) -> Tensor:
        """[N, T] log-probs of the policy under the ratio."""
        return decisions.old_log_prob if self.against == "old" else decisions.behaviour_log_prob

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        low, high = limits(self.low, self.high, decisions)
        quotient = likelihood_ratio(evaluation.log_prob, self.other(decisions), decisions.mask, self.ratio)
        cost = -decisions.advantage
        value = cost * quotient
        with torch.no_grad():
            clipped = torch.maximum(value, cost * between(quotient, low, high))
        # The gradient of the larger of both is that of the first where it is the larger, and 0 elsewhere: told apart
        # once, without PyTorch's sharing of a gradient between equal numbers.
        value = torch.where(clipped > value, clipped, value)
        return value if self.dual is None else torch.where(cost > 0, torch.minimum(value, cost * self.dual), value)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """Shares of decisions whose gradient the clip removes (`clip_fraction` and its two sides; none where both
        bounds are open), k3, ratio."""
        columns = _divergence(evaluation.log_prob - self.other(decisions))
        if is_open(self.low, self.high):
            return columns
        low, high = limits(self.low, self.high, decisions)
        quotient = columns["ratio"]
        if self.ratio != "token":
            quotient = likelihood_ratio(evaluation.log_prob, self.other(decisions), decisions.mask, self.ratio)
        advantage = decisions.advantage
        below, above = (quotient < low) & (advantage < 0), (quotient > high) & (advantage > 0)
        clip = {"clip_fraction": below | above, "clip_fraction_low": below, "clip_fraction_high": above}
        return columns | clip


@dataclass(frozen=True)
class CISPO(Part):
    """`-sg(clip(r, 1 - low, 1 + high)) A log pi`: clipped weights, no decision loses its gradient (arXiv:2506.13585).

    Attributes:
        low: distance below 1; None is open, as in the paper's runs.
        high: distance above 1, or the name of a prepared column.
        ratio: see `likelihood_ratio`.
    """

    low: Bound | None = None
    high: Bound | None = 0.2
    ratio: Level = "token"

    follows_advantage = True

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"log_prob", "old_log_prob", "advantage"}) | scheduled(self.low, self.high)

    def __post_init__(self) -> None:
        check_bounds(self.low, self.high)

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        low, high = limits(self.low, self.high, decisions)
        log_prob = evaluation.log_prob
        quotient = likelihood_ratio(log_prob.detach(), decisions.old_log_prob, decisions.mask, self.ratio)
        return -decisions.advantage * between(quotient, low, high) * log_prob

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """Shares of decisions whose weight is clipped (whatever the advantage; none where both bounds are open), k3,
        ratio."""
        if is_open(self.low, self.high):
            return _divergence(evaluation.log_prob - decisions.old_log_prob)
        low, high = limits(self.low, self.high, decisions)
        quotient = likelihood_ratio(evaluation.log_prob, decisions.old_log_prob, decisions.mask, self.ratio)
        below, above = quotient < low, quotient > high
        clip = {"clip_fraction": below | above, "clip_fraction_low": below, "clip_fraction_high": above}
        return _divergence(evaluation.log_prob - decisions.old_log_prob) | clip


@dataclass(frozen=True)
class ImportanceWeighted(Part):
    """A value times a detached importance weight [N, T], as a rule against the behaviour policy.

    `cap` truncates (V-trace, arXiv:1802.01561; TIS); `mask_above` / `mask_below` give weight 0 outside the band (MIS,
    IcePop). Around a clipped ratio with `numerator="old"` it is decoupled PPO (arXiv:2110.00641).

    Attributes:
        of: the value that is weighted.
        cap: largest weight, > 0; None does not truncate.
        mask_above, mask_below: weights outside become 0; None is open.
        level: "token"; "sequence" is the product over the row's decisions; "geometric" their geometric mean.
        numerator: "new" weighs by pi_now / pi_behaviour (no gradient through it), "old" by pi_old / pi_behaviour.
        denominator: "behaviour", or "old": staleness alone, whoever sampled.
    """

    of: Value = field(default_factory=LogProb)
    cap: float | None = None
    mask_above: float | None = None
    mask_below: float | None = None
    level: Literal["token", "sequence", "geometric"] = "token"
    numerator: Literal["new", "old"] = "new"
    denominator: Literal["behaviour", "old"] = "behaviour"

    def __post_init__(self) -> None:
        if self.numerator == self.denominator:
            raise ValueError(f"denominator must be another policy than numerator={self.numerator!r}; the weight is 1.")
        for name in ("cap", "mask_above", "mask_below"):
            number = self.__dict__[name]
            if number is not None and number <= 0:
                raise ValueError(f"{name} must be > 0 or None; got {number!r}.")

    @property
    def needs(self) -> frozenset[str]:
        above = "log_prob" if self.numerator == "new" else "old_log_prob"
        return frozenset({f"{self.denominator}_log_prob", above})

    @property
    def follows_advantage(self) -> bool:
        return isinstance(self.of, Part) and self.of.follows_advantage

    def weight(self, evaluation: Evaluation, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """The weight [N, T] before and after truncation and masking, detached."""
        mask = decisions.mask
        with torch.no_grad():
            above = evaluation.log_prob if self.numerator == "new" else decisions.old_log_prob
            below = decisions.behaviour_log_prob if self.denominator == "behaviour" else decisions.old_log_prob
            difference = above - below
            if self.level != "token":
                difference = torch.where(mask, difference, 0.0).sum(1, keepdim=True)
                if self.level == "geometric":
                    difference = difference / mask.sum(1, keepdim=True).clamp(min=1)
                difference = difference.expand(mask.shape)
            raw = difference.clamp(-LIMIT, LIMIT).exp()
            weight = raw if self.cap is None else raw.clamp(max=self.cap)
            if self.mask_above is not None:
                weight = torch.where(raw > self.mask_above, 0.0, weight)
            if self.mask_below is not None:
                weight = torch.where(raw < self.mask_below, 0.0, weight)
        return raw, weight

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return self.weight(evaluation, decisions)[1] * self.of(evaluation, decisions)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """Mean weight before truncation, and the share of decisions whose weight was changed."""
        raw, weight = self.weight(evaluation, decisions)
        name = "importance" if self.denominator == "behaviour" else "staleness"
        return {f"{name}_weight": raw, f"{name}_changed": weight != raw}


def DecoupledClip(
    low: Bound = 0.2,
    high: Bound = 0.2,
    dual: float | None = None,
    cap: float | None = None,
    mask_above: float | None = None,
    ratio: Level = "token",
) -> ImportanceWeighted:
    """PPO clipped against the proximal (old) policy, weighted by old / behaviour.

    Decoupled PPO (Hilton, Cobbe, Schulman 2021, arXiv:2110.00641), as used in AReaL (arXiv:2505.24298).

    Args:
        low, high, dual, ratio: of `ClippedRatio`.
        cap: truncates the behaviour weight.
        mask_above: drops decisions whose behaviour weight is larger.
    """
    return ImportanceWeighted(ClippedRatio(low, high, dual, ratio), cap=cap, mask_above=mask_above, numerator="old")
