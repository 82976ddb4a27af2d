"""verl's reductions as coefficients: equal to its loops, and to themselves over any split."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.random import generator
from ascent.core.reductions import REDUCTIONS, last


def plain(loss: Tensor, mask: Tensor, name: str, horizon: float) -> float:
    """verl's `agg_loss`, entry by entry; rows without decisions are no sequences."""
    rows = [[float(loss[i, j]) for j in range(loss.shape[1]) if mask[i, j]] for i in range(len(loss))]
    rows = [row for row in rows if row]
    count = max(sum(len(row) for row in rows), 1)
    sequences = max(len(rows), 1)
    total = sum(sum(row) for row in rows)
    return {
        "token-mean": total / count,
        "token-sum": total,
        "seq-mean-token-sum": total / sequences,
        "seq-mean-token-mean": sum(sum(row) / len(row) for row in rows) / sequences,
        "seq-mean-token-sum-norm": total / horizon / sequences,
    }[name]


def batch(seed: int, rows: int, columns: int) -> tuple[Tensor, Decisions]:
    draw = generator(seed, "reductions")
    mask = torch.rand(rows, columns, generator=draw) < 0.6
    loss = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    return loss, Decisions(mask=mask)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 6), columns=st.integers(1, 8))
@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_equal_to_the_plain_loop(name: str, seed: int, rows: int, columns: int) -> None:
    loss, decisions = batch(seed, rows, columns)
    weights = REDUCTIONS[name](decisions.mask, decisions, 12.5)
    reduced = (weights * torch.where(decisions.mask, loss, 0.0)).sum()
    assert float(reduced) == pytest.approx(plain(loss, decisions.mask, name, 12.5), rel=1e-12, abs=1e-12)


def test_the_horizon_is_given_or_the_budget_or_the_longest_row() -> None:
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    norm = REDUCTIONS["seq-mean-token-sum-norm"]
    assert norm(mask, Decisions(mask=mask), 5.0)[0, 0] == pytest.approx(1 / 10)
    assert norm(mask, Decisions(mask=mask), None)[0, 0] == pytest.approx(1 / 6)
    budgeted = Decisions(mask=mask, extras={"budget": torch.tensor([8, 8])})
    assert norm(mask, budgeted, None)[0, 0] == pytest.approx(1 / 16)


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (0, 4), (3, 0)])
def test_an_empty_mask_gives_finite_coefficients(name: str, rows: int, columns: int) -> None:
    decisions = Decisions(mask=torch.zeros(rows, columns, dtype=torch.bool))
    assert bool(REDUCTIONS[name](decisions.mask, decisions, None).isfinite().all())


def plain_last(mask: Tensor, ids: Tensor) -> Tensor:
    result = torch.zeros_like(mask)
    for row in range(len(mask)):
        decided = [column for column in range(mask.shape[1]) if mask[row, column]]
        for place, column in enumerate(decided):
            final = place + 1 == len(decided)
            result[row, column] = final or ids[row, decided[place + 1]] != ids[row, column]
    return result


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 4), columns=st.integers(1, 8))
def test_the_last_decision_of_each_unit(seed: int, rows: int, columns: int) -> None:
    _, decisions = batch(seed, rows, columns)
    ids = torch.randint(0, 2, (rows, columns), generator=generator(seed)).cumsum(1)
    decisions = decisions.replace(segment=ids, trajectory=torch.arange(rows))
    assert torch.equal(last(decisions, "segment"), plain_last(decisions.mask, ids))
    rowwise = plain_last(decisions.mask, torch.zeros_like(ids))
    assert torch.equal(last(decisions, "row"), rowwise) and torch.equal(last(decisions, "trajectory"), rowwise)
