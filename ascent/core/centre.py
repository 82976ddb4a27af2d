"""One general centring of scores: by group, batch, stratum, turn or any composite key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.part import Part
from ascent.core.reductions import last
from ascent.core.returns import Score, Source, named, read

Key = str | tuple[str, ...]
"""`"batch"` (one cell), a column name, or several names that form a composite key."""
Unit = Literal["row", "decision", "trajectory", "turn", "segment"]


def key_columns(*keys: Key | None) -> frozenset[str]:
    """The columns that keys read."""
    names: set[str] = set()
    for key in keys:
        names.update((key,) if isinstance(key, str) else key or ())
    return frozenset(names - {"batch"})


def cells(key: Key, decisions: Decisions, where: Tensor) -> tuple[Tensor, int]:
    """The cell of each entry where `where` [N, T] is True, numbered from 0, and the number of cells.

    Returns:
        [M] int64 in row-major order of the True entries, and how many cells there are.
    """
    number = torch.zeros(int(where.sum()), dtype=torch.int64, device=where.device)
    count = 1
    for name in (key,) if isinstance(key, str) else key:
        if name != "batch":
            ids = decisions.per_decision(name, f"the key {key!r}")[where]
            values, inverse = torch.unique(ids, return_inverse=True)
            if count > 1:
                values, inverse = torch.unique(number * len(values) + inverse, return_inverse=True)
            number, count = inverse, max(len(values), 1)
    return number, count


def cell_sum(values: Tensor, cell: Tensor, count: int) -> Tensor:
    """[count] sums of `values` [M] over their cells."""
    return values.new_zeros(count).index_add_(0, cell, values)


def from_lowest(values: Tensor, cell: Tensor, count: int) -> Tensor:
    """`values` minus the lowest of their cell: moments stay, and a constant cell becomes exactly 0."""
    low = values.new_zeros(count).scatter_reduce_(0, cell, values, "amin", include_self=False)
    return values - low[cell]


@dataclass(frozen=True)
class Centre(Part):
    """Scores minus the mean of their cell, perhaps divided by a standard deviation: [N, T] credit.

    One part is many estimators: by="group", scale="group" is GRPO (arXiv:2402.03300); scale=None is Dr. GRPO
    (arXiv:2503.20783); leave_one_out=True is RLOO (arXiv:2402.14740); by="group", scale="batch" mixes them; any
    column or tuple of columns is a stratified norm.

    Attributes:
        of: the scores, a column or a function of the decisions.
        by: key of the cells whose mean is subtracted.
        scale: key of the cells whose standard deviation divides; None does not divide.
        ddof: 1 for the sample deviation, 0 for the population's.
        eps: added to the deviation, >= 0.
        leave_one_out: subtract the mean of the *other* entries of the cell.
        singleton: a cell of one entry gets "zero", or "keep"s its raw score (verl's choice).
        unit: what counts once in the statistics; its score stands on the unit's last decision and the result is
            given to all its decisions.

    A cell (of `scale`) without variance divides by 1; a constant cell (of `by`) gives exactly 0, never rounding noise
    blown up by a tiny deviation. Rows without decisions do not count.
    """

    of: Source = field(default_factory=Score)
    by: Key = "group"
    scale: Key | None = None
    ddof: int = 1
    eps: float = 1e-6
    leave_one_out: bool = False
    singleton: Literal["zero", "keep"] = "zero"
    unit: Unit = "row"

    def __post_init__(self) -> None:
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof must be 0 or 1; got {self.ddof!r}.")
        if self.eps < 0:
            raise ValueError(f"eps must be >= 0; got {self.eps!r}.")
        if self.singleton not in ("zero", "keep"):
            raise ValueError(f"singleton must be 'zero' or 'keep'; got {self.singleton!r}.")

    @property
    def needs(self) -> frozenset[str]:
        unit = frozenset() if self.unit in ("row", "decision") else frozenset({self.unit})
        return named(self.of) | key_columns(self.by, self.scale) | unit

    def __call__(self, decisions: Decisions) -> Tensor:
        mask = decisions.mask
        scores = read(self.of, decisions, "Centre")
        ends = mask if self.unit == "decision" else last(decisions, self.unit)
        score = scores[ends]
        cell, count = cells(self.by, decisions, ends)
        size = cell_sum(torch.ones_like(score), cell, count)
        shifted = from_lowest(score, cell, count)
        centred = shifted - (cell_sum(shifted, cell, count) / size.clamp(min=1))[cell]
        if self.leave_one_out:
            # x - mean of the others = (x - mean) * n / (n - 1), and exactly 0 in constant cells.
            centred = centred * (size / (size - 1).clamp(min=1))[cell]
        if self.singleton == "keep":
            centred = torch.where((size == 1)[cell], score, centred)
        if self.scale is not None:
            centred = centred / self._deviation(score, decisions, ends)
        if not len(centred):
            return torch.zeros_like(scores)
        # A decision belongs to the first end at or after it: count the ends before it.
        flat = ends.reshape(-1).to(torch.int64)
        place = (flat.cumsum(0) - flat).clamp(max=len(centred) - 1).reshape(mask.shape)
        return torch.where(mask, centred[place], 0.0)

    def _deviation(self, score: Tensor, decisions: Decisions, ends: Tensor) -> Tensor:
        """[M] the divisor of each entry: deviation + eps, or 1 where there is no variance."""
        assert self.scale is not None
        cell, count = cells(self.scale, decisions, ends)
        size = cell_sum(torch.ones_like(score), cell, count)
        shifted = from_lowest(score, cell, count)
        residual = shifted - (cell_sum(shifted, cell, count) / size.clamp(min=1))[cell]
        variance = cell_sum(residual * residual, cell, count) / (size - self.ddof).clamp(min=1)
        return torch.where(variance > 0, variance.sqrt() + self.eps, 1.0)[cell]
