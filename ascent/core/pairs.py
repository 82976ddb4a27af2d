"""Losses that compare whole rows of one group: sequence log-ratios, group means, preferences between rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Part, State
from ascent.core.reductions import last


def row_sum(column: Tensor, mask: Tensor) -> Tensor:
    """[N] sum of a [N, T] column over the decisions of each row: no length normalisation."""
    return torch.where(mask, column, torch.zeros((), dtype=column.dtype, device=column.device)).sum(1)


def row_log_ratio(evaluation: Evaluation, decisions: Decisions, against: str = "reference") -> Tensor:
    """[N] log pi(row) - log pi_<against>(row), differentiable."""
    frozen = decisions.column(f"{against}_log_prob", "row_log_ratio")
    return row_sum(evaluation.log_prob - frozen, decisions.mask)


def group_cells(decisions: Decisions) -> tuple[Tensor, Tensor, Tensor]:
    """Cell of each row [N], rows that decide in each row's group [N], and which rows decide [N] bool."""
    group = decisions.column("group", "a comparison of rows")
    rows = group if group.dim() == 1 else group[:, 0]
    present = decisions.mask.any(1)
    cell = torch.unique(rows, return_inverse=True)[1]
    count = torch.zeros(len(rows), dtype=torch.int64, device=rows.device).index_add_(0, cell, present.to(torch.int64))
    return cell, count[cell], present


def deviation(column: Tensor, cell: Tensor, count: Tensor, present: Tensor) -> Tensor:
    """[N] column minus the mean of its group over the rows that decide; 0 for rows that do not. Differentiable."""
    column = torch.where(present, column, torch.zeros((), dtype=column.dtype, device=column.device))
    total = torch.zeros_like(column).index_add(0, cell, column)[cell]
    return torch.where(present, column - total / count.clamp(min=1), torch.zeros_like(column))


def on_last(row: Tensor, decisions: Decisions) -> Tensor:
    """[N, T]: a per-row value on the row's last decision, 0 elsewhere."""
    return torch.where(last(decisions, "row"), row[:, None], torch.zeros((), dtype=row.dtype, device=row.device))


def preferred(decisions: Decisions) -> tuple[Tensor, Tensor]:
    """Rows [P] that win and rows [P] that lose, of every pair of a group whose scores differ."""
    cell, count, present = group_cells(decisions)
    score = row_sum(decisions.reward, decisions.mask)
    rows = torch.nonzero(present).squeeze(1)
    rows = rows[torch.argsort(cell[rows], stable=True)]
    size = count[rows]
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = cell[rows[1:]] != cell[rows[:-1]]
    start = torch.nonzero(first).squeeze(1)[first.cumsum(0) - 1]
    # Every row meets every row of its group: row i stands size[i] times against places start[i] + 0, 1, ...
    ends = size.cumsum(0)
    winner = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), size)
    place = torch.arange(len(winner), device=rows.device) - (ends - size)[winner]
    one, other = rows[winner], rows[(start[winner] + place).clamp(max=max(len(rows) - 1, 0))]
    won = score[one] > score[other]
    return one[won], other[won]


def pair_share(decisions: Decisions) -> Columns:
    """Column `pair_share` [N]: 1 / (pairs of the update), so that the pairs of any split add up to their mean."""
    pairs = max(len(preferred(decisions)[0]), 1)
    return {"pair_share": torch.full_like(decisions.reward[:, 0], 1.0 / pairs)}


def on_winner(loss: Tensor, winner: Tensor, decisions: Decisions) -> Tensor:
    """[N, T]: losses of pairs [P], weighted by `pair_share`, on the last decision of the row that won."""
    won = torch.zeros(len(decisions), dtype=loss.dtype, device=loss.device).index_add(0, winner, loss)
    return on_last(won * decisions.column("pair_share", "a loss of preferences"), decisions)


@dataclass(frozen=True)
class Preference(Part):
    """A loss of D = log-ratio(winner) - log-ratio(loser), mean over all pairs of a group whose scores differ.

        sigmoid:  -log sigmoid(beta * D)            (DPO, arXiv 2305.18290, eq. 7)
        square:   (D - 1 / (2 * beta))^2            (IPO, arXiv 2310.12036, eq. 17)

    The winner is the row with the greater total reward; equal scores are no pair. The value of a pair sits on
    the last decision of its winner; the term that uses it has unit="row" and reduction="token-sum".

    Attributes:
        link: the loss of D.
        beta: > 0, weight of the KL to the reference that the implied reward carries.
    """

    link: Literal["sigmoid", "square"] = "sigmoid"
    beta: float = 0.1
    needs = frozenset({"log_prob", "reference_log_prob", "reward", "group"})
    keep_together = "group"

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        return pair_share(decisions)

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        ratio = row_log_ratio(evaluation, decisions)
        winner, loser = preferred(decisions)
        difference = ratio[winner] - ratio[loser]
        loss = -logsigmoid(self.beta * difference) if self.link == "sigmoid" else (difference - 0.5 / self.beta) ** 2
        return on_winner(loss, winner, decisions)


@dataclass(frozen=True)
class BradleyTerry(Part):
    """-log sigmoid(v(winner) - v(loser)) [N, T], mean over all pairs of a group whose scores differ.

    The value at a row's last decision is the score that a reward model gives to the row (Ouyang et al. 2022,
    arXiv 2203.02155, eq. 1). Use it as `Preference`: unit="row", reduction="token-sum".
    """

    needs = frozenset({"value", "reward", "group"})
    keep_together = "group"

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        return pair_share(decisions)

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        winner, loser = preferred(decisions)
        score = row_sum(evaluation.value, last(decisions, "row"))
        return on_winner(-logsigmoid(score[winner] - score[loser]), winner, decisions)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """`accuracy`: share of the pairs that the scores order rightly, spread over the rows."""
        winner, loser = preferred(decisions)
        score = row_sum(evaluation.value, last(decisions, "row"))
        right = (score[winner] > score[loser]).to(score.dtype)
        share = decisions.column("pair_share", "BradleyTerry")[winner]
        # The method averages over decisions, so the sum is divided by their share of the update.
        weight = decisions.column("weight", "BradleyTerry")
        total = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
        return {"accuracy": ((right * share).sum() / total).expand(decisions.mask.shape)}


def partners(decisions: Decisions) -> tuple[Tensor, Tensor]:
    """The row that each row is compared with [N], and which rows have one [N] bool: disjoint pairs of each group.

    Rows that decide are paired in the order of their `key` (of their place, where there is none): first with second,
    third with fourth. An odd row out has no partner; its number here is its own.
    """
    cell, _, present = group_cells(decisions)
    rows = torch.nonzero(present).squeeze(1)
    if "key" in decisions:
        name = decisions.key if decisions.key.dim() == 1 else decisions.key[:, 0]
        rows = rows[torch.argsort(name[rows], stable=True)]
    rows = rows[torch.argsort(cell[rows], stable=True)]
    new = torch.ones_like(rows, dtype=torch.bool)
    new[1:] = cell[rows[1:]] != cell[rows[:-1]]
    place = torch.arange(len(rows), device=rows.device)
    rank = place - torch.cummax(torch.where(new, place, 0), 0).values if len(rows) else place
    other = place + 1 - 2 * (rank % 2)
    inside = (other < len(rows)) & (other >= 0)
    other = torch.where(inside, other, place)
    paired = inside & (cell[rows[other]] == cell[rows])
    partner = torch.arange(len(present), device=rows.device)
    partner[rows] = torch.where(paired, rows[other], rows)
    found = torch.zeros_like(present)
    found[rows] = paired
    return partner, found
