"""A term of a loss: a value per decision, and how its values add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Clock
from ascent.core.plan import Number, at
from ascent.core.reductions import REDUCTIONS, Reduction, last

Value = Callable[[Evaluation, Decisions], Tensor]
Selector = Callable[[Evaluation | None, Decisions], Tensor]


@dataclass(frozen=True)
class Term:
    """`coefficient * reduce(value)` over the decisions that count; a loss, so smaller is better.

    Attributes:
        value: (evaluation, decisions) -> [N, T].
        coefficient: weight of the term, a number or a schedule.
        keep: selector -> [N, T] bool; decisions that it drops get exactly zero gradient.
        reduction: a name of `reductions.REDUCTIONS` (verl's names).
        count: denominators count every decision ("all") or only the kept ones ("kept").
        unit: "decision", or "row" / "trajectory" / "segment": the value sits on the unit's last decision.
        horizon: the constant length of `seq-mean-token-sum-norm`; None takes the response budget that
            the sampler recorded (`budget`), or else the longest row of the update.
    """

    value: Value
    coefficient: Number = 1.0
    keep: Selector | None = None
    reduction: Reduction = "token-mean"
    count: Literal["all", "kept"] = "all"
    unit: Literal["decision", "row", "trajectory", "segment"] = "decision"
    horizon: float | None = None

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {sorted(REDUCTIONS)}; got {self.reduction!r}.")

    def weights(self, evaluation: Evaluation | None, decisions: Decisions, clock: Clock) -> Tensor:
        """[N, T] factors such that the term is `(weights * value).sum()` over any split of the update."""
        return self.factors(evaluation, decisions) * at(self.coefficient, clock)

    def factors(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        """The weights without the coefficient: equal for terms that keep and reduce alike."""
        floats = (name for name in ("advantage", "reward", "old_log_prob", "reference_log_prob") if name in decisions)
        dtype = next((decisions.column(name).dtype for name in floats), torch.get_default_dtype())
        mask = decisions.mask
        plain = self.keep is None and self.unit == "decision" and self.reduction == "token-mean"
        if plain and decisions.whole and mask.numel():  # one number, for which nothing needs to be counted
            return torch.full(mask.shape, 1.0 / mask.numel(), dtype=dtype, device=mask.device)
        counted = mask if self.unit == "decision" else last(decisions, self.unit)
        kept = counted if self.keep is None else counted & self.keep(evaluation, decisions)
        base = counted if self.count == "all" else kept
        return REDUCTIONS[self.reduction](base, decisions, self.horizon).to(dtype) * kept
