"""Credits made of credits: blend, weight, clip, optimal baseline, normalise."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ascent.core.centre import Key, cell_sum, cells, from_lowest, key_columns
from ascent.core.decisions import Decisions
from ascent.core.part import Part
from ascent.core.reductions import last
from ascent.core.returns import Score, Source, named, read


@dataclass(frozen=True)
class Blend(Part):
    """`(1 - weight) * first + weight * second` [N, T].

    Attributes:
        first, second: columns or functions of the decisions.
        weight: of `second`, any finite number, usually in [0, 1].
    """

    first: Source
    second: Source
    weight: float = 0.5

    @property
    def needs(self) -> frozenset[str]:
        return named(self.first, self.second)

    def __call__(self, decisions: Decisions) -> Tensor:
        first, second = read(self.first, decisions, "Blend"), read(self.second, decisions, "Blend")
        return (1.0 - self.weight) * first + self.weight * second


@dataclass(frozen=True)
class Weighted(Part):
    """A credit times a recorded weight [N, T].

    Attributes:
        of: column or function of the decisions.
        by_column: column [N] or [N, T] of weights.
    """

    of: Source
    by_column: str

    @property
    def needs(self) -> frozenset[str]:
        return named(self.of, self.by_column)

    def __call__(self, decisions: Decisions) -> Tensor:
        weight = decisions.per_decision(self.by_column, "Weighted")
        return torch.where(decisions.mask, read(self.of, decisions, "Weighted") * weight, 0.0)


@dataclass(frozen=True)
class Clipped(Part):
    """A credit limited to [low, high] [N, T].

    Attributes:
        of: column or function of the decisions.
        low, high: limits, None is open.
    """

    of: Source
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if self.low is None and self.high is None:
            raise ValueError("Clipped needs low, high or both; got neither.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must be <= high; got low={self.low}, high={self.high}.")

    @property
    def needs(self) -> frozenset[str]:
        return named(self.of)

    def __call__(self, decisions: Decisions) -> Tensor:
        return read(self.of, decisions, "Clipped").clamp(self.low, self.high)


@dataclass(frozen=True)
class OptimalBaseline(Part):
    """Scores minus the variance-minimising baseline of their cell [N, T].

    The constant baseline of least variance is `E[w R] / E[w]` with w the squared length of the score function
    (Greensmith, Bartlett, Baxter 2004). Where token gradients have equal length and are orthogonal, w is
    the number of tokens (OPO, arXiv:2505.23585).

    Attributes:
        of: the scores; a row's is read on its last decision.
        by: key of the cells.
        weight: w, a column or function read on the row's last decision; None counts the row's decisions.
    """

    of: Source = field(default_factory=Score)
    by: Key = "group"
    weight: Source | None = None

    @property
    def needs(self) -> frozenset[str]:
        weight = frozenset() if self.weight is None else named(self.weight)
        return named(self.of) | key_columns(self.by) | weight

    def __call__(self, decisions: Decisions) -> Tensor:
        scores = read(self.of, decisions, "OptimalBaseline")
        ends = last(decisions, "row")
        score = scores[ends]
        if self.weight is None:
            weight = decisions.mask.sum(1)[decisions.mask.any(1)].to(score.dtype)
        else:
            weight = read(self.weight, decisions, "OptimalBaseline")[ends]
        cell, count = cells(self.by, decisions, ends)
        shifted = from_lowest(score, cell, count)
        total = cell_sum(weight, cell, count)
        baseline = cell_sum(weight * shifted, cell, count) / torch.where(total > 0, total, 1.0)
        present = decisions.mask.any(1, keepdim=True)
        row = torch.zeros_like(scores[:, :1]).masked_scatter(present, shifted - baseline[cell])
        return torch.where(decisions.mask, row, 0.0)


@dataclass(frozen=True)
class Normalised(Part):
    """A credit with mean 0 and deviation 1 over the decisions of the batch or update it is given [N, T].

    As `Method.normalise` it is PPO's advantage normalisation per update. A single decision is left as it is, and
    constant credits become exactly 0.

    Attributes:
        of: column or function of the decisions.
        eps: added to the deviation, >= 0.
        centre: False divides only (by the deviation about the mean), which keeps every sign.
        ddof: 1 for the sample deviation, 0 for the population's.
    """

    of: Source = "advantage"
    eps: float = 1e-8
    centre: bool = True
    ddof: int = 1

    @property
    def needs(self) -> frozenset[str]:
        return named(self.of)

    def __call__(self, decisions: Decisions) -> Tensor:
        mask = decisions.mask
        credit = read(self.of, decisions, "Normalised")
        whole = decisions.whole
        kept = credit if whole else credit[mask]
        if kept.numel() > 1:
            # Measured from one of the credits, so that constant ones give a deviation of exactly 0.
            shifted = kept - kept.flatten()[0]
            deviation, mean = torch.std_mean(shifted, correction=self.ddof)
            if self.centre and self.eps > 0:  # of constant credits 0 is left, whatever divides it
                kept = (shifted - mean) / (deviation + self.eps)
            else:
                divisor = torch.where(deviation > 0, deviation + self.eps, 1.0)
                kept = (shifted - mean if self.centre else kept) / divisor
        return kept if whole else torch.zeros_like(credit).masked_scatter(mask, kept)
