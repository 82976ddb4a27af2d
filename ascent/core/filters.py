"""Which rows are worth a forward pass, and what a response loses for its length (DAPO, arXiv:2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ascent.core.centre import Key, cell_sum, cells, from_lowest, key_columns
from ascent.core.decisions import Columns, Decisions
from ascent.core.part import Part
from ascent.core.reductions import last
from ascent.core.returns import Score, Source, named, read


@dataclass(frozen=True)
class Informative(Part):
    """Dynamic sampling: True [N] for the rows of groups whose scores differ, the others give no gradient.

    Attributes:
        of: the scores, a column or a function of the decisions; a row's is read on its last decision.
        by: key of the groups.

    Rows without decisions are refused, and so is a group of one.
    """

    of: Source = field(default_factory=Score)
    by: Key = "group"

    @property
    def needs(self) -> frozenset[str]:
        return named(self.of) | key_columns(self.by)

    def __call__(self, decisions: Decisions) -> Tensor:
        ends = last(decisions, "row")
        score = read(self.of, decisions, "Informative")[ends]
        cell, count = cells(self.by, decisions, ends)
        differs = cell_sum(from_lowest(score, cell, count), cell, count) > 0
        present = decisions.mask.any(1)
        return torch.zeros_like(present).masked_scatter(present, differs[cell])


@dataclass(frozen=True)
class Overlong(Part):
    """Soft overlong punishment: the reward [N, T] with a length penalty added on the row's last decision.

    The penalty is 0 up to `limit - buffer` decisions, falls linearly to `-penalty` at `limit`, and stays there.
    Use it as the `reward` of a credit: `Score(reward=Overlong(4096, 512))`.

    Attributes:
        limit: longest response, in decisions; None reads the recorded response `budget` [N].
        buffer: length of the slope, > 0: an integer of decisions, or a float as a share of the limit, at most 1.0.
        penalty: > 0, largest deduction.
        reward: column or function of the decisions.
    """

    limit: int | None = None
    buffer: int | float = 512
    penalty: float = 1.0
    reward: Source = "reward"

    def __post_init__(self) -> None:
        most = 1.0 if isinstance(self.buffer, float) else self.limit
        if self.buffer <= 0 or (most is not None and self.buffer > most):
            accepted = f"decisions in [1, limit={self.limit}] or a share in (0, 1]"
            raise ValueError(f"buffer must be {accepted}; got {self.buffer!r}.")
        if self.penalty <= 0:
            raise ValueError(f"penalty must be > 0; got {self.penalty!r}.")

    @property
    def needs(self) -> frozenset[str]:
        return named(self.reward) | (frozenset({"budget"}) if self.limit is None else frozenset())

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        rows, columns = decisions.mask.shape
        return {"budget": torch.full((rows,), columns)} if self.limit is None else {}

    def __call__(self, decisions: Decisions) -> Tensor:
        reward = read(self.reward, decisions, "Overlong")
        length = decisions.mask.sum(1)
        limit = decisions.column("budget", "Overlong").to(reward.dtype) if self.limit is None else self.limit
        buffer = self.buffer * limit if isinstance(self.buffer, float) else self.buffer
        excess = (length - (limit - buffer)).to(reward.dtype) / buffer
        fall = self.penalty * excess.clamp(0.0, 1.0)
        return torch.where(decisions.mask, reward, 0.0) - torch.where(last(decisions, "row"), fall[:, None], 0.0)
