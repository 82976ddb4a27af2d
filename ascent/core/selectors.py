"""Which decisions a term keeps: [N, T] bool, chosen once on a whole update and without gradient.

The control arm that exposes a sham selector is built in: `order="random"` picks as many decisions by a hash of
what they are, so it depends neither on row order nor on the sharding of rows that carry a `key`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from ascent.core.centre import cells
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import EVALUATED, Evaluation
from ascent.core.part import Part
from ascent.core.random import mix, uniform
from ascent.core.term import Selector

Order = Literal["high", "low", "random"]
Scope = Literal["batch", "row", "group"]


class Measure(Protocol):
    """A number per decision, (evaluation, decisions) -> [N, T], and the columns that it reads."""

    @property
    def needs(self) -> frozenset[str]: ...

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor: ...


def measured(score: str | Measure) -> frozenset[str]:
    """The columns that a score reads."""
    return frozenset({score}) if isinstance(score, str) else frozenset(score.needs)


def evaluated(needs: frozenset[str]) -> frozenset[str]:
    """Those of `needs` that a policy computes."""
    return frozenset(need for need in needs if need in EVALUATED or need.startswith("probe:"))


def measure(score: str | Measure, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
    """[N, T] scores: an evaluated or recorded column by name (`probe:<name>` for a probe), or a measure.

    Raises:
        ValueError: the score reads the evaluation and none was given.
    """
    if evaluated(measured(score)) and evaluation is None:
        raise ValueError(f"the score {score!r} reads the evaluation; pass prepare the evaluation of the whole update.")
    if not isinstance(score, str):
        return score(evaluation if evaluation is not None else Evaluation(), decisions)
    if score in EVALUATED or score.startswith("probe:"):
        assert evaluation is not None
        return evaluation.column(score.removeprefix("probe:"), "a selector")
    return decisions.per_decision(score, "a selector")


def lots(decisions: Decisions, seed: int) -> Tensor:
    """[N, T] float64 uniforms, one for each decision: a hash of its `key` (and `index` where it is per decision)
    and of its place among the row's decisions. Without both, the row number stands in for the key."""
    place = decisions.mask.cumsum(1)
    by_index = "index" in decisions and decisions.index.dim() == 2
    if "key" in decisions:
        identity = decisions.per_decision("key")
    elif by_index:
        identity = torch.zeros_like(place)
    else:
        identity = torch.arange(len(place), device=place.device)[:, None].expand(place.shape)
    if by_index:
        identity = mix(identity.to(torch.int64), decisions.index.to(torch.int64))
    return uniform(identity.to(torch.int64), place, seed)


def ranks(score: Tensor, tie: Tensor, cell: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The rank of each of M entries in its cell, largest score first, ties by `tie`; and the sizes [count] of cells."""
    order = torch.argsort(tie, stable=True)
    order = order[torch.argsort(score[order], stable=True, descending=True)]
    order = order[torch.argsort(cell[order], stable=True)]
    size = torch.bincount(cell, minlength=count)
    start = size.cumsum(0) - size
    rank = torch.empty_like(cell)
    rank[order] = torch.arange(len(cell), device=cell.device) - start[cell[order]]
    return rank, size


def _scope_cells(scope: Scope, decisions: Decisions) -> tuple[Tensor, int]:
    mask = decisions.mask
    if scope == "row":
        rows = torch.arange(len(mask), device=mask.device)[:, None].expand(mask.shape)
        return rows[mask], len(mask)
    return cells(scope, decisions, mask)


def _spread(mask: Tensor, chosen: Tensor) -> Tensor:
    return torch.zeros_like(mask).masked_scatter(mask, chosen)


@dataclass(frozen=True)
class Top(Part):
    """The `fraction` of the decisions with the highest (lowest, or any) score; `ceil(fraction * n)` of n.

    Top 20% by entropy is the forking-token selection of arXiv:2506.01939.

    Attributes:
        score: column of the evaluation or the decisions, or a measure with `needs`.
        fraction: in [0, 1].
        scope: the n that are ranked together: the whole update, each row or each group.
        order: "high", "low", or "random": as many, by hash, as a control.
        least: at least so many of each scope, >= 0, where it has them.
        ties: "break" takes exactly that many, by hash; "keep" also takes the others that score as the last one does.
        seed: of the random order and of ties.
    """

    score: str | Measure = "entropy"
    fraction: float = 0.2
    scope: Scope = "batch"
    order: Order = "high"
    least: int = 0
    ties: Literal["break", "keep"] = "break"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise ValueError(f"fraction must be in [0, 1]; got {self.fraction!r}.")
        if self.least < 0:
            raise ValueError(f"least must be >= 0; got {self.least!r}.")
        if self.ties not in ("break", "keep"):
            raise ValueError(f"ties must be 'break' or 'keep'; got {self.ties!r}.")

    @property
    def needs(self) -> frozenset[str]:
        scope = frozenset({"group"}) if self.scope == "group" else frozenset()
        return scope if self.order == "random" else scope | measured(self.score)

    @property
    def prepares(self) -> frozenset[str]:
        return evaluated(self.needs)

    def __call__(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        mask = decisions.mask
        tie = lots(decisions, self.seed)[mask]
        cell, count = _scope_cells(self.scope, decisions)
        if self.order == "random":
            score = torch.zeros_like(tie)
        else:
            score = measure(self.score, evaluation, decisions)[mask]
            score = score if self.order == "high" else -score
        rank, size = ranks(score, tie, cell, count)
        # The small number keeps 0.1 * 30 = 3.0000000000000004 at 3.
        kept = torch.ceil(self.fraction * size.to(torch.float64) - 1e-9).clamp(min=self.least)
        chosen = rank < kept[cell]
        if self.ties == "keep" and self.order != "random":
            lowest = score.new_full((count,), torch.inf).scatter_reduce(0, cell[chosen], score[chosen], "amin")
            chosen = score >= lowest[cell]
        return _spread(mask, chosen)


@dataclass(frozen=True)
class Band(Part):
    """Decisions whose score lies in [low, high], at most a `fraction` of all decisions or `limit` of them.

    `Not(Band(covariance, low, high, fraction=2e-4))` is Clip-Cov of the entropy mechanism (arXiv:2505.22617).

    Attributes:
        score: column of the evaluation or the decisions, or a measure with `needs`.
        low, high: ends of the band, None is open.
        fraction: at most this share of ALL decisions of the update, but at least one in the band; None: no cap.
        limit: at most this many, >= 0; None: no cap.
        order: which of those in the band when there are too many: "random" (by hash), or the "high" / "low" scores.
        control: take as many, but at random from all decisions: the control arm.
        seed: of the random order and of ties.
    """

    score: str | Measure = "entropy"
    low: float | None = None
    high: float | None = None
    fraction: float | None = None
    limit: int | None = None
    order: Order = "random"
    control: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must be <= high; got low={self.low}, high={self.high}.")
        if self.fraction is not None and not 0.0 <= self.fraction <= 1.0:
            raise ValueError(f"fraction must be in [0, 1] or None; got {self.fraction!r}.")
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit must be >= 0 or None; got {self.limit!r}.")

    @property
    def needs(self) -> frozenset[str]:
        return measured(self.score)

    @property
    def prepares(self) -> frozenset[str]:
        return evaluated(self.needs)

    def __call__(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        mask = decisions.mask
        score = measure(self.score, evaluation, decisions)[mask]
        inside = torch.ones_like(score, dtype=torch.bool)
        if self.low is not None:
            inside = score >= self.low
        if self.high is not None:
            inside = inside & (score <= self.high)
        number = inside.sum()
        if self.fraction is not None and self.fraction < 1.0:
            # verl's max(int(fraction * decisions), 1), with the same guard against rounding as `Top`.
            most = int(self.fraction * len(score) + 1e-9)
            number = number.clamp(max=max(most, 1) if self.fraction > 0 else 0)
        if self.limit is not None:
            number = number.clamp(max=self.limit)
        tie = lots(decisions, self.seed)[mask]
        one = torch.zeros_like(tie, dtype=torch.int64)
        if self.control:
            rank, _ = ranks(torch.zeros_like(tie), tie, one, 1)
            return _spread(mask, rank < number)
        preference = {"high": score, "low": -score, "random": torch.zeros_like(score)}[self.order]
        # Those in the band come first: two cells, inside 0 and outside 1.
        rank, _ = ranks(preference, tie, (~inside).to(torch.int64), 2)
        return _spread(mask, inside & (rank < number))


@dataclass(frozen=True)
class Failed(Part):
    """The decisions of responses that failed, or of groups in which every response failed.

    Whether a group failed is decided on the whole collection, before rows are dealt into updates.

    Attributes:
        level: "row", or "group": the group has no success.
        success: a row whose rewards add up to at least this is right.
    """

    level: Literal["row", "group"] = "row"
    success: float = 1.0

    def __post_init__(self) -> None:
        if self.level not in ("row", "group"):
            raise ValueError(f"level must be 'row' or 'group'; got {self.level!r}.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward", "group"} if self.level == "group" else {"reward"})

    def failed(self, decisions: Decisions) -> Tensor:
        """[N] bool."""
        score = torch.where(decisions.mask, decisions.reward, 0.0).sum(1)
        wrong = score < self.success
        if self.level == "row":
            return wrong
        group = decisions.per_decision("group")[:, 0]
        names, place = torch.unique(group, return_inverse=True)
        # A row whose decisions are all masked out has no score and says nothing of its group.
        right = (~wrong & decisions.mask.any(1)).to(torch.int64)
        return torch.zeros(len(names), dtype=torch.int64, device=place.device).index_add_(0, place, right)[place] == 0

    def annotate(self, decisions: Decisions, state: Columns) -> Columns:
        return {f"failed_{self.level}": self.failed(decisions)}

    def __call__(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        name = f"failed_{self.level}"
        failed = decisions.column(name) if name in decisions else self.failed(decisions)
        return decisions.mask & failed[:, None]


@dataclass(frozen=True)
class Not(Part):
    """The decisions that `selector` does not choose.

    Attributes:
        selector: (evaluation, decisions) -> [N, T] bool.
    """

    selector: Selector

    def __call__(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        return decisions.mask & ~self.selector(evaluation, decisions)
