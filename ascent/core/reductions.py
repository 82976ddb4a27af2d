"""Reductions under the names that verl uses, as coefficients from the counts of the whole update.

Each returns `c` [N, 1] or [N, T] with `reduced = (c * where(mask, value, 0)).sum()`. The coefficients of an
update are computed once; because the sum is linear, any split into micro-batches or processes adds up to it.
A row is one sequence. Rows without a counted decision do not count as sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ascent.core.decisions import Decisions

Mask = Bool[Tensor, "N T"]
Factors = Float[Tensor, "N 1"]
Reduction = Literal["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


def _lengths(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Decisions per row [N, 1] and the number of rows that hold any, both at least 1 where divided by."""
    lengths = mask.sum(1, keepdim=True).to(torch.float64)
    return lengths, (lengths > 0).sum().clamp(min=1)


def token_mean(mask: Mask, decisions: Decisions, horizon: float | None) -> Factors:
    """Every decision weighs 1 / (number of decisions)."""
    return (1.0 / mask.sum().clamp(min=1).to(torch.float64)).expand(len(mask), 1)


def token_sum(mask: Mask, decisions: Decisions, horizon: float | None) -> Factors:
    """Every decision weighs 1."""
    return torch.ones(len(mask), 1, dtype=torch.float64, device=mask.device)


def seq_mean_token_sum(mask: Mask, decisions: Decisions, horizon: float | None) -> Factors:
    """Sum within a sequence, mean over sequences."""
    _, rows = _lengths(mask)
    return (1.0 / rows.to(torch.float64)).expand(len(mask), 1)


def seq_mean_token_mean(mask: Mask, decisions: Decisions, horizon: float | None) -> Factors:
    """Mean within a sequence, mean over sequences."""
    lengths, rows = _lengths(mask)
    return 1.0 / (lengths.clamp(min=1) * rows)


def seq_mean_token_sum_norm(mask: Mask, decisions: Decisions, horizon: float | None) -> Factors:
    """Sum within a sequence divided by a constant length, mean over sequences (Dr. GRPO)."""
    lengths, rows = _lengths(mask)
    if horizon is not None:
        constant = torch.full((), horizon, dtype=torch.float64, device=mask.device)
    elif "budget" in decisions.extras:
        constant = decisions.extras["budget"].max().to(torch.float64)
    else:
        constant = lengths.max() if len(lengths) else lengths.new_ones(())
    return (1.0 / (constant.clamp(min=1) * rows)).expand(len(mask), 1)


REDUCTIONS: Mapping[str, Callable[[Tensor, Decisions, float | None], Tensor]] = MappingProxyType(
    {
        "token-mean": token_mean,
        "token-sum": token_sum,
        "seq-mean-token-sum": seq_mean_token_sum,
        "seq-mean-token-mean": seq_mean_token_mean,
        "seq-mean-token-sum-norm": seq_mean_token_sum_norm,
    }
)


def last(decisions: Decisions, unit: str) -> Tensor:
    """[N, T] bool: True on the last decision of each row, or of each `trajectory` / `segment` inside a row."""
    mask = decisions.mask
    columns = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    if unit == "row":
        final = torch.where(mask, columns, -1).amax(1, keepdim=True) if mask.shape[1] else columns
        return mask & (columns == final)
    ids = decisions.per_decision(unit, f"unit={unit!r}")
    after = torch.full_like(ids, -1)
    ending = mask.clone()
    # Walk back so that masked columns between two decisions of one unit do not end it.
    upcoming, known = after[:, :1].squeeze(1), torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    for column in range(mask.shape[1] - 1, -1, -1):
        here = mask[:, column]
        ending[:, column] = here & (~known | (ids[:, column] != upcoming))
        upcoming = torch.where(here, ids[:, column], upcoming)
        known = known | here
    return ending
