"""K critics as one number, and losses of value functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Part

Pool = Literal["min", "mean", "none"]


def check_pool(pool: str) -> None:
    """Raise ValueError unless `pool` is a way to read K critics."""
    if pool not in ("min", "mean", "none"):
        raise ValueError(f"pool must be 'min', 'mean' or 'none'; got {pool!r}.")


def pooled(values: Tensor, pool: Pool) -> Tensor:
    """K critics [N, T, K] as one number [N, T]: the smallest, or the mean; [N, T] and "none" stay as they are."""
    if values.dim() == 2 or pool == "none":
        return values
    return values.amin(-1) if pool == "min" else values.mean(-1)


@dataclass(frozen=True)
class ValueLoss(Part):
    """`0.5 (V - target)^2` per decision [N, T]; K critics [N, T, K] add up, each with its target or one for all.

    Attributes:
        clip: PPO2's clipped form (OpenAI baselines): the larger of the loss and the loss of the value that moved at
            most `clip` from the recorded `value`; None does not clip.
        kind: "squared", or "huber": linear with slope `delta` beyond an error of `delta`.
        delta: > 0, of "huber".
    """

    clip: float | None = None
    kind: Literal["squared", "huber"] = "squared"
    delta: float = 1.0
    needs = frozenset({"value", "value_target"})

    def __post_init__(self) -> None:
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be > 0 or None; got {self.clip!r}.")
        if self.kind not in ("squared", "huber"):
            raise ValueError(f"kind must be 'squared' or 'huber'; got {self.kind!r}.")
        if self.delta <= 0:
            raise ValueError(f"delta must be > 0; got {self.delta!r}.")

    @property
    def recorded(self) -> frozenset[str]:
        return self.needs if self.clip is not None else frozenset({"value_target"})

    def _cost(self, error: Tensor) -> Tensor:
        if self.kind == "squared":
            return 0.5 * error.square()
        size = error.abs()
        return torch.where(size <= self.delta, 0.5 * error.square(), self.delta * (size - 0.5 * self.delta))

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        value, target = evaluation.value, decisions.value_target
        target = target.unsqueeze(-1) if target.dim() < value.dim() else target
        cost = self._cost(value - target)
        if self.clip is not None:
            old = decisions.value
            moved = old + (value - old).clamp(-self.clip, self.clip)
            cost = torch.maximum(cost, self._cost(moved - target))
        return cost if cost.dim() == 2 else cost.flatten(2).sum(-1)
