"""A critic that learns targets of mean 0 and deviation 1, whatever the rewards are.

The value network says u; the value is `u * deviation + mean` of the targets seen so far (running moments, debiased),
and its loss compares u with the scaled target. That is the "ValueNorm" of multi-agent PPO's released code (Yu et al.
2022, arXiv 2103.01955); PopArt (van Hasselt et al. 2016, arXiv 1602.07714) also rescales the last layer, which is the
trainer's: `training/popart.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ascent.core.critics import ValueLoss
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Part, State

LEAST = 1e-2  # variance below which targets count as constant


def moments(state: State) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the targets so far, of a `ScaledValueLoss`'s state; 0 and 1 before the first."""
    weight = state["weight"]
    if not float(weight) > 0:
        return torch.zeros_like(weight), torch.ones_like(weight)
    mean = state["mean"] / weight
    return mean, (state["square"] / weight - mean.square()).clamp(min=LEAST).sqrt()


def unscaled(decisions: Decisions, value: Tensor) -> Tensor:
    """Values [N, T] out of what the network said."""
    mean, deviation = (decisions.column(name, "Unscaled")[:, None] for name in ("value_mean", "value_deviation"))
    return value * deviation + mean


@dataclass(frozen=True)
class Unscaled(Part):
    """A credit that reads values in the units of rewards; beside a `ScaledValueLoss`, which keeps the moments.

    Attributes:
        of: the credit of `value` and `next_value`, [N, T].
    """

    of: Callable[[Decisions], Tensor]

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"value", "next_value", "terminated"})

    def __call__(self, decisions: Decisions) -> Tensor:
        following = torch.where(decisions.terminated, 0.0, unscaled(decisions, decisions.next_value))
        return self.of(decisions.replace(value=unscaled(decisions, decisions.value), next_value=following))


@dataclass(frozen=True)
class ScaledValueLoss(ValueLoss):
    """A value loss in units of the targets' running deviation.

    Attributes:
        keep: share of the moments that an update keeps, in [0, 1).
    """

    keep: float = 0.99999

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep must be in [0, 1); got {self.keep!r}.")
        if self.clip is not None:
            raise ValueError(f"clip must be None: old and new values have different scales; got {self.clip!r}.")

    def start(self) -> State:
        return {name: torch.zeros((), dtype=torch.float64) for name in ("mean", "square", "weight")}

    def columns(self, decisions: Decisions, state: State) -> Columns:
        """[N] the mean and deviation of the targets so far; 0 and 1 before the first."""
        mean, deviation = moments(state)
        like = decisions.column("reward") if "reward" in decisions else torch.zeros(())
        rows = (len(decisions),)
        return {
            "value_mean": mean.to(like).expand(rows).clone(),
            "value_deviation": deviation.to(like).expand(rows).clone(),
        }

    def annotate(self, decisions: Decisions, state: State) -> Columns:
        return self.columns(decisions, state)

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        return self.columns(decisions, state)

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        mean, deviation = (
            decisions.column(name, "ScaledValueLoss")[:, None] for name in ("value_mean", "value_deviation")
        )
        return super().__call__(evaluation, decisions.replace(value_target=(decisions.value_target - mean) / deviation))

    def after(self, decisions: Decisions, totals: Columns, state: State) -> State:
        target = decisions.value_target[decisions.mask].double()
        if not target.numel():
            return state
        seen = {"mean": target.mean(), "square": target.square().mean(), "weight": torch.ones((), dtype=torch.float64)}
        return {name: self.keep * state[name] + (1.0 - self.keep) * seen[name].to(state[name]) for name in seen}
