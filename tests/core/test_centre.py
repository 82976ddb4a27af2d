"""Centring against plain loops, the named special cases, and the edge cases that bite."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.random import generator


def scored(scores: list[float], group: list[int], columns: int = 3, dtype: torch.dtype = torch.float64) -> Decisions:
    """One score per row on its last decision; row i decides in its first `1 + i % columns` columns."""
    rows = len(scores)
    lengths = torch.arange(rows) % columns + 1
    mask = torch.arange(columns) < lengths[:, None]
    reward = torch.zeros(rows, columns, dtype=dtype)
    reward[torch.arange(rows), lengths - 1] = torch.tensor(scores, dtype=dtype)
    return Decisions(mask=mask, reward=reward, group=torch.tensor(group))


def per_row(credit: Tensor) -> list[float]:
    return credit[:, 0].tolist()


def plain(scores: list[float], by: list, scale: list | None, ddof: int, eps: float, others: bool, keep: bool) -> list:
    result = []
    for place, score in enumerate(scores):
        cell = [other for other, key in zip(scores, by, strict=True) if key == by[place]]
        if len(cell) == 1:
            centred = score if keep else 0.0
        elif others:
            centred = score - (sum(cell) - score) / (len(cell) - 1)
        else:
            centred = score - sum(cell) / len(cell)
        if scale is not None:
            cell = [other for other, key in zip(scores, scale, strict=True) if key == scale[place]]
            if len(set(cell)) > 1:
                centred /= (statistics.stdev(cell) if ddof else statistics.pstdev(cell)) + eps
        result.append(centred)
    return result


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(-5, 5).map(lambda x: round(x, 3)), st.integers(0, 3)), min_size=1, max_size=12),
    scale=st.sampled_from([None, "group", "batch"]),
    ddof=st.integers(0, 1),
    others=st.booleans(),
    keep=st.booleans(),
)
def test_equals_the_plain_loop(rows: list, scale: str | None, ddof: int, others: bool, keep: bool) -> None:
    scores, group = [row[0] for row in rows], [row[1] for row in rows]
    part = Centre(scale=scale, ddof=ddof, leave_one_out=others, singleton="keep" if keep else "zero")
    cells = {None: None, "group": group, "batch": [0] * len(group)}[scale]
    wanted = plain(scores, group, cells, ddof, 1e-6, others, keep)
    credit = part(scored(scores, group))
    assert per_row(credit) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_group_relative_advantage_by_hand() -> None:
    decisions = scored([1.0, 3.0, 10.0, 20.0], [7, 7, 2, 2])
    root = 2**0.5
    assert per_row(Centre()(decisions)) == [-1.0, 1.0, -5.0, 5.0]
    assert per_row(Centre(scale="group", eps=0.0)(decisions)) == pytest.approx([-1 / root, 1 / root] * 2)
    assert per_row(Centre(scale="group", ddof=0, eps=0.0)(decisions)) == pytest.approx([-1.0, 1.0] * 2)
    assert per_row(Centre(leave_one_out=True)(decisions)) == [-2.0, 2.0, -10.0, 10.0]
    assert per_row(Centre(by="batch")(decisions)) == [-7.5, -5.5, 1.5, 11.5]


def test_every_decision_of_a_row_gets_the_row_s_credit() -> None:
    decisions = scored([1.0, 3.0, 4.0], [0, 0, 0], columns=3)
    credit = Centre()(decisions)
    wanted = credit[:, :1].expand(3, 3)
    assert torch.equal(credit, torch.where(decisions.mask, wanted, 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("score", [0.1, 0.7, 1e6 + 0.1, -3.3])
@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("others", [False, True])
def test_constant_groups_give_exactly_zero(dtype: torch.dtype, score: float, count: int, others: bool) -> None:
    decisions = scored([score] * count + [0.0, 1.0], [0] * count + [1, 1], dtype=dtype)
    for scale in (None, "group", "batch"):
        credit = Centre(scale=scale, eps=0.0, leave_one_out=others)(decisions)
        assert not credit[:count].any()
        assert credit[count:].isfinite().all() and credit[count:, 0].any()
        assert credit.dtype == dtype


def test_singletons() -> None:
    decisions = scored([5.0, 1.0, 2.0], [0, 1, 1])
    assert per_row(Centre()(decisions)) == [0.0, -0.5, 0.5]
    assert per_row(Centre(singleton="keep")(decisions)) == [5.0, -0.5, 0.5]
    assert per_row(Centre(singleton="keep", leave_one_out=True)(decisions)) == [5.0, -1.0, 1.0]
    assert per_row(Centre(singleton="keep", scale="group", ddof=1)(decisions))[0] == 5.0


def test_a_scale_without_variance_divides_by_one() -> None:
    decisions = scored([1.0, 3.0], [0, 0]).with_extras({"tag": torch.tensor([0, 1])})
    assert per_row(Centre(scale="tag")(decisions)) == [-1.0, 1.0]


def test_composite_keys_are_the_product_of_their_columns() -> None:
    scores, group, tag = [1.0, 3.0, 10.0, 30.0, 5.0], [0, 0, 0, 0, 1], [4, 4, 9, 9, 4]
    decisions = scored(scores, group).with_extras({"tag": torch.tensor(tag)})
    part = Centre(by=("group", "tag"))
    assert per_row(part(decisions)) == [-1.0, 1.0, -10.0, 10.0, 0.0]
    assert part.needs == {"group", "tag"}
    assert Centre(of="reward", by="batch").needs == {"reward"}
    joint = decisions.with_extras({"joint": torch.tensor([0, 0, 1, 1, 2])})
    torch.testing.assert_close(part(decisions), Centre(by="joint")(joint))


def test_rows_without_decisions_do_not_count() -> None:
    decisions = scored([1.0, 3.0, 50.0], [0, 0, 0])
    mask = decisions.mask.clone()
    mask[2] = False
    reward = torch.where(mask, decisions.reward, torch.nan)
    assert per_row(Centre(scale="batch", eps=0.0)(decisions.replace(mask=mask, reward=reward))) == pytest.approx(
        [-(0.5**0.5), 0.5**0.5, 0.0]
    )
    none = decisions.replace(mask=torch.zeros_like(mask))
    for part in (Centre(), Centre(scale="group"), Centre(by=("group", "group")), Centre(unit="decision")):
        assert torch.equal(part(none), torch.zeros_like(none.reward))


def test_decisions_as_the_unit() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    values = torch.tensor([[1.0, 2.0, torch.nan], [3.0, 4.0, 10.0]], dtype=torch.float64)
    decisions = Decisions(mask=mask, reward=values, group=torch.tensor([[0, 1, 1], [0, 1, 1]]))
    part = Centre(of="reward", unit="decision")
    # Group 0 holds 1 and 3, group 1 holds 2, 4 and 10.
    torch.testing.assert_close(
        part(decisions), torch.tensor([[-1.0, -10 / 3, 0.0], [1.0, -4 / 3, 14 / 3]], dtype=torch.float64)
    )


def test_turns_as_the_unit() -> None:
    mask = torch.tensor([[True, True, True, False, True], [True, False, True, True, True]])
    turn = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 1, 1]])
    # The score of a turn stands on its last decision: 2 and 5 in turn 0, 3 and 7 in turn 1.
    reward = torch.tensor([[9.0, 2.0, 9.0, 9.0, 3.0], [9.0, 9.0, 5.0, 9.0, 7.0]], dtype=torch.float64)
    decisions = Decisions(mask=mask, reward=reward, turn=turn)
    part = Centre(of="reward", by="turn", unit="turn")
    wanted = [[-1.5, -1.5, -2.0, 0.0, -2.0], [1.5, 0.0, 1.5, 2.0, 2.0]]
    assert part(decisions).tolist() == wanted
    assert part.needs == {"reward", "turn"}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-100, 100), factor=st.floats(0.1, 10))
def test_invariances(seed: int, shift: float, factor: float) -> None:
    draw = generator(seed)
    scores = torch.randn(8, generator=draw, dtype=torch.float64)
    group = torch.randint(0, 3, (8,), generator=draw)
    order = torch.randperm(8, generator=draw)
    decisions = scored(scores.tolist(), group.tolist(), columns=1)
    normal = Centre(scale="group", eps=0.0)
    credit = normal(decisions)
    torch.testing.assert_close(normal(decisions.rows(order)), credit[order], rtol=0, atol=1e-10)
    moved = decisions.replace(reward=factor * decisions.reward + shift)
    torch.testing.assert_close(normal(moved), credit, rtol=1e-6, atol=1e-8)
    # The leave-one-out credit of a cell of n is n / (n - 1) times the centred one.
    size = torch.bincount(group)[group].to(torch.float64)
    ratio = torch.where(size > 1, size / (size - 1).clamp(min=1), 0.0)[:, None]
    torch.testing.assert_close(Centre(leave_one_out=True)(decisions), ratio * Centre()(decisions))


def test_errors_name_the_argument_and_the_column() -> None:
    with pytest.raises(ValueError, match="ddof must be 0 or 1; got 2"):
        Centre(ddof=2)
    with pytest.raises(ValueError, match="eps must be >= 0; got -1"):
        Centre(eps=-1)
    with pytest.raises(ValueError, match="singleton must be 'zero' or 'keep'; got 'drop'"):
        Centre(singleton="drop")
    decisions = scored([1.0], [0])
    with pytest.raises(MissingColumn, match="'stratum'"):
        Centre(by="stratum")(decisions)
