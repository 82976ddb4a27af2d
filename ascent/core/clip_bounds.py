"""Clip bounds that each update chooses for itself: a controller reads ratios and credits, a surrogate clips.

Bounds are bounds on the ratio (0.6 means pi / pi_behaviour = 0.6), never distances from 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ascent.core.decisions import EMPTY, Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Part, State
from ascent.core.surrogates import ClippedRatio, likelihood_ratio


@dataclass(frozen=True)
class Bounds:
    """What a controller chose.

    Attributes:
        low, high: scalars, 0 <= low < 1 < high, bounds on the ratio.
        report: scalars to log, by name.
    """

    low: Tensor
    high: Tensor
    report: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)


class Controller(Protocol):
    """Chooses the bounds of one update, without state and without gradient."""

    def __call__(
        self, ratio: Float[Tensor, "N T"], advantage: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"]
    ) -> Bounds: ...


@dataclass(frozen=True)
class Constant:
    """The same bounds for every update: PPO's, or DAPO's clip-higher.

    Attributes:
        low, high: bounds on the ratio, low < 1 < high.
    """

    low: float = 0.8
    high: float = 1.2

    def __post_init__(self) -> None:
        if not 0 <= self.low < 1 < self.high:
            raise ValueError(f"bounds must satisfy 0 <= low < 1 < high; got low={self.low!r}, high={self.high!r}.")

    def __call__(self, ratio: Tensor, advantage: Tensor, mask: Tensor) -> Bounds:
        return Bounds(ratio.new_tensor(self.low), ratio.new_tensor(self.high))


@dataclass(frozen=True)
class ControlledClip(Part):
    """A clipped ratio [N, T] whose bounds a controller chooses on the whole update, before its first gradient.

    So a split into micro-batches or processes clips by the same bounds. Logged: `clip_bound_low`, `clip_bound_high` and
    the controller's report, beside what `ClippedRatio` logs.

    Attributes:
        controller: (ratio, advantage, mask), each [N, T], -> Bounds.
        surrogate: the clipped ratio; it reads the columns `clip_below` and `clip_above` that are written here.
    """

    controller: Controller
    surrogate: ClippedRatio = ClippedRatio("clip_below", "clip_above", against="behaviour")

    prepares = frozenset({"log_prob"})
    follows_advantage = True

    def __post_init__(self) -> None:
        if (self.surrogate.low, self.surrogate.high) != ("clip_below", "clip_above"):
            raise ValueError(
                "surrogate must read the bounds that are chosen here: ClippedRatio('clip_below', 'clip_above', ...); "
                f"got low={self.surrogate.low!r}, high={self.surrogate.high!r}."
            )

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        if evaluation is None:
            raise ValueError("the bounds are chosen on the update's ratios; pass prepare the evaluation of the update.")
        mask, surrogate = decisions.mask, self.surrogate
        ratio = likelihood_ratio(evaluation.log_prob, surrogate.other(decisions), mask, surrogate.ratio)
        chosen = self.controller(ratio, decisions.advantage, mask)
        columns = {"clip_below": 1.0 - chosen.low, "clip_above": chosen.high - 1.0}
        columns |= {f"clip_report/{name}": number for name, number in chosen.report.items()}
        return {name: number.to(ratio.dtype).expand(len(decisions)) for name, number in columns.items()}

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return self.surrogate(evaluation, decisions)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        low = 1.0 - decisions.column("clip_below", "ControlledClip")
        high = 1.0 + decisions.column("clip_above", "ControlledClip")
        named = {"clip_bound_low": low, "clip_bound_high": high}
        for name in decisions.extras:
            if name.startswith("clip_report/"):
                named[name.removeprefix("clip_report/")] = decisions.column(name)
        return {name: torch.as_tensor(column)[:, None] for name, column in named.items()}
