"""A pass deals every row once, in an order that only (seed, round, pass) decides; units stay together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascent.core.decisions import Decisions
from ascent.core.plan import Plan
from ascent.training.batches import deal, refuse_small, share, split, updates


def grouped(groups: list[int]) -> Decisions:
    return Decisions(mask=torch.ones(len(groups), 3, dtype=torch.bool), group=torch.tensor(groups))


@given(
    rows=st.integers(1, 40),
    minibatches=st.integers(2, 6),
    unit=st.sampled_from(["row", "decision"]),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60)
def test_a_pass_deals_every_row_once(rows: int, minibatches: int, unit: str, seed: int) -> None:
    collection = grouped(list(range(rows)))
    plan = Plan(passes=2, minibatches=minibatches, unit=unit)
    dealt = deal(collection, plan, seed, 0, 0)
    assert torch.cat(dealt).sort().values.tolist() == list(range(rows))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1
    again = deal(collection, plan, seed, 0, 0)
    assert all(torch.equal(first, second) for first, second in zip(dealt, again, strict=True))


def test_passes_rounds_and_seeds_deal_differently() -> None:
    collection, plan = grouped(list(range(64))), Plan(minibatches=2)
    dealt = {
        tuple(deal(collection, plan, *words)[0].tolist()) for words in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    }
    assert len(dealt) == 4


def test_one_minibatch_is_the_collection_as_it_is() -> None:
    assert deal(grouped([0, 1]), Plan(passes=3), 0, 0, 0) is None


@given(groups=st.lists(st.integers(-2, 6), min_size=3, max_size=30))
@settings(deadline=None, max_examples=60)
def test_groups_are_dealt_whole(groups: list[int]) -> None:
    plan = Plan(minibatches=2, unit="group")
    parts = [{groups[row] for row in part.tolist()} for part in deal(grouped(groups), plan, 0, 0, 0)]
    assert not parts[0] & parts[1]
    assert sum(len(part) for part in deal(grouped(groups), plan, 0, 0, 0)) == len(groups)


def test_groups_per_decision_cannot_be_dealt_as_rows() -> None:
    rows = Decisions(mask=torch.ones(4, 3, dtype=torch.bool), group=torch.zeros(4, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="one number per row"):
        deal(rows, Plan(minibatches=2, unit="group"), 0, 0, 0)


@given(
    groups=st.lists(st.integers(0, 5), min_size=1, max_size=24),
    rows=st.integers(1, 9),
    together=st.sampled_from(["row", "group"]),
)
@settings(deadline=None, max_examples=80)
def test_a_split_holds_every_row_once_and_no_group_in_two_parts(groups: list[int], rows: int, together: str) -> None:
    update = grouped(groups).with_extras({"row": torch.arange(len(groups))})
    parts = list(split(update, together, rows))
    assert torch.cat([part.column("row") for part in parts]).sort().values.tolist() == list(range(len(groups)))
    if together == "group":
        names = [set(part.group.tolist()) for part in parts]
        assert all(not first & second for place, first in enumerate(names) for second in names[:place])
        assert all(len(part) <= rows or len(set(part.group.tolist())) == 1 for part in parts)
    else:
        assert all(len(part) <= rows for part in parts)


def test_rows_of_one_context_stay_together() -> None:
    update = Decisions(
        mask=torch.ones(6, 1, dtype=torch.bool),
        context={"prompt": torch.zeros(3, 2)},
        context_row=torch.tensor([2, 0, 1, 2, 0, 1]),
    )
    parts = [part.context_row.tolist() for part in split(update, "context", 2)]
    assert sorted(map(sorted, parts)) == [[0, 0], [1, 1], [2, 2]]


@given(
    groups=st.lists(st.integers(0, 5), min_size=1, max_size=24),
    processes=st.integers(2, 4),
    together=st.sampled_from(["row", "group"]),
)
@settings(deadline=None, max_examples=60)
def test_the_shares_of_all_processes_are_the_update(groups: list[int], processes: int, together: str) -> None:
    update = grouped(groups)
    shares = [share(update, together, rank, processes) for rank in range(processes)]
    assert torch.cat(shares).sort().values.tolist() == list(range(len(groups)))
    if together == "group":
        owners = {groups[row]: rank for rank, part in enumerate(shares) for row in part.tolist()}
        assert all(owners[groups[row]] == rank for rank, part in enumerate(shares) for row in part.tolist())


def test_one_process_has_no_share() -> None:
    assert share(grouped([0, 1]), "row", 0, 1) is None


@pytest.mark.parametrize(("unit", "count"), [("row", 8), ("group", 4), ("decision", 48)])
def test_a_plan_that_no_collection_can_fill_is_refused_by_number(unit: str, count: int) -> None:
    refuse_small(Plan(minibatches=count, unit=unit), rows=8, groups=4, decisions=48)
    with pytest.raises(ValueError, match=rf"minibatches={count + 1} with {count} {unit}s.*Collect more"):
        refuse_small(Plan(minibatches=count + 1, unit=unit), rows=8, groups=4, decisions=48)


@pytest.mark.parametrize(("unit", "groups"), [("row", [0, 1, 2, 3, 4, 5, 6]), ("group", [0, 0, 1, 1, 1, 2, 3])])
def test_the_updates_hold_the_rows_that_were_dealt(unit, groups):
    collection = grouped(groups)
    plan = Plan(minibatches=3, unit=unit)
    dealt, found = deal(collection, plan, 5, 1, 2), updates(collection, plan, 5, 1, 2)
    assert dealt is not None
    for places, update in zip(dealt, found, strict=True):
        wanted = collection.rows(places).to_tensors()
        assert wanted.keys() == update.to_tensors().keys()
        assert all(torch.equal(update.to_tensors()[name], column) for name, column in wanted.items())
    assert updates(collection, Plan(passes=3), 5, 1, 2)[0] is collection
