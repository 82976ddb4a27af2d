"""The batch: what construction refuses, how columns are read, and that reshaping loses nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions, MissingColumn, concatenate
from ascent.core.random import generator


def batch(rows: int = 3, columns: int = 4, seed: int = 0) -> Decisions:
    draw = generator(seed, "decisions")
    mask = torch.arange(columns) < torch.randint(1, columns + 1, (rows, 1), generator=draw)
    return Decisions(
        mask=mask,
        context={"observation": torch.randn(rows, columns, 2, generator=draw)},
        action=torch.randint(0, 5, (rows, columns), generator=draw),
        reward=torch.randn(rows, columns, generator=draw, dtype=torch.float64),
        value=torch.randn(rows, columns, 2, generator=draw),
        group=torch.arange(rows),
        extras={"budget": torch.arange(rows), "noise": torch.randn(rows, columns, 3, generator=draw)},
    )


def same(first: Decisions, second: Decisions) -> bool:
    ours, theirs = first.to_tensors(), second.to_tensors()
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.ones(2, 3)}, r"mask must be a bool tensor of shape \[N, T\]; got torch.float32 \(2, 3\)"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, "mask must be a bool tensor"),
        ({"mask": None}, "mask must be a bool tensor .* got NoneType"),
        ({"reward": torch.zeros(3, 2)}, r"reward must have shape \[2, 3\].*; got \[3, 2\]"),
        ({"reward": torch.zeros(2, 3, dtype=torch.int64)}, "reward must hold float numbers; got torch.int64"),
        ({"group": torch.zeros(3, dtype=torch.int64)}, r"group must have shape \[2\] or \[2, 3\]"),
        ({"group": torch.zeros(2)}, "group must hold int numbers; got torch.float32"),
        ({"terminated": torch.zeros(2, 3, dtype=torch.int64)}, "terminated must hold bool numbers"),
        ({"advantage": torch.tensor([[0.0, torch.nan, 0.0]] * 2)}, r"advantage\[0, 1\] is nan where mask is True"),
        ({"extras": {"tag": torch.zeros(3)}}, r"extras\['tag'\] must be row-first \[2, ...\]; got \(3,\)"),
        ({"extras": {"reward": torch.zeros(2, 3)}}, r"extras\['reward'\] hides the column 'reward'"),
        ({"context": {"prompt": torch.zeros(4, 1)}}, r"context\['prompt'\] has 4 rows, mask has 2"),
        (
            {"context": {"prompt": torch.zeros(4, 1)}, "context_row": torch.tensor([0, 4])},
            r"context_row must be \[N\] = \[2\] integers in \[0, 4\)",
        ),
        (
            {"context": {"prompt": torch.zeros(4, 1)}, "context_row": torch.tensor([-1, 0])},
            r"context_row must be \[N\] = \[2\] integers in \[0, 4\)",
        ),
    ],
)
def test_construction_says_what_is_wrong(changes: dict, message: str) -> None:
    columns = {"mask": torch.ones(2, 3, dtype=torch.bool), **changes}
    with pytest.raises(ValueError, match=message):
        Decisions(**columns)


def test_padding_may_hold_anything() -> None:
    mask = torch.tensor([[True, False]])
    assert Decisions(mask=mask, reward=torch.tensor([[1.0, torch.inf]])).reward[0, 0] == 1.0


def test_an_absent_column_names_itself_and_its_reader() -> None:
    decisions = batch()
    with pytest.raises(MissingColumn, match="needs column 'advantage', which is absent") as caught:
        _ = decisions.advantage
    assert caught.value.name == "advantage"
    with pytest.raises(MissingColumn, match=r"GAE needs column 'rewards'.*did you mean 'reward'.*present: mask"):
        decisions.column("rewards", "GAE")
    assert "reward" in decisions and "budget" in decisions and "advantage" not in decisions
    assert list(decisions) == ["mask", "action", "reward", "value", "group", "budget", "noise"]


def test_columns_by_name_and_per_decision() -> None:
    decisions = batch()
    assert torch.equal(decisions.column("budget"), torch.arange(3))
    assert torch.equal(decisions.per_decision("group"), torch.arange(3)[:, None].expand(3, 4))
    assert torch.equal(decisions.per_decision("reward"), decisions.reward)


def test_replace_writes_and_checks_and_leaves_the_original_alone() -> None:
    decisions = batch()
    changed = decisions.replace(reward=torch.zeros(3, 4))
    assert not changed.reward.any() and decisions.reward.any()
    assert "value" not in decisions.replace(value=None)
    with pytest.raises(TypeError, match="no column 'rewards'; did you mean 'reward'"):
        decisions.replace(rewards=torch.zeros(3, 4))
    with pytest.raises(ValueError, match="reward must have shape"):
        decisions.replace(reward=torch.zeros(3, 5))
    further = decisions.with_extras({"tag": torch.arange(3), "advantage": torch.ones(3, 4)})
    assert torch.equal(further.extras["tag"], torch.arange(3)) and bool(further.advantage.all())
    assert "tag" not in decisions.extras and "budget" in further.extras


def test_rows_take_everything_of_a_row() -> None:
    decisions = batch()
    for index in (torch.tensor([2, 0]), torch.tensor([True, False, True]), slice(1, 3)):
        part = decisions.rows(index)
        assert torch.equal(part.reward, decisions.reward[index])
        assert torch.equal(part.extras["noise"], decisions.extras["noise"][index])
        assert torch.equal(part.context["observation"], decisions.context["observation"][index])


def test_shared_contexts_stay_shared() -> None:
    prompts = torch.arange(6).reshape(2, 3)
    decisions = Decisions(
        mask=torch.ones(4, 1, dtype=torch.bool), context={"prompt": prompts}, context_row=torch.tensor([0, 0, 1, 1])
    )
    part = decisions.rows(torch.tensor([3, 0]))
    assert part.context["prompt"] is prompts and part.context_row is not None
    assert part.context_row.tolist() == [1, 0]
    both = concatenate([decisions, part])
    assert both.context_row is not None and both.context_row.tolist() == [0, 0, 1, 1, 3, 2]
    assert torch.equal(both.context["prompt"][both.context_row[4]], prompts[1])


def test_flatten_keeps_each_decided_entry() -> None:
    decisions = batch(seed=1)
    short = Decisions.from_tensors({name: t for name, t in decisions.to_tensors().items() if "budget" not in name})
    flat = short.flatten()
    mask = decisions.mask
    assert flat.mask.shape == (int(mask.sum()), 1) and bool(flat.mask.all())
    assert torch.equal(flat.reward[:, 0], decisions.reward[mask])
    assert torch.equal(flat.group[:, 0], decisions.per_decision("group")[mask])
    assert torch.equal(flat.value[:, 0], decisions.value[mask])
    assert torch.equal(flat.extras["noise"][:, 0], decisions.extras["noise"][mask])
    assert torch.equal(flat.context["observation"][:, 0], decisions.context["observation"][mask])
    assert torch.equal(decisions.flatten().extras["budget"][:, 0], torch.arange(3)[:, None].expand(3, 4)[mask])


def test_concatenate_pads_and_inverts_rows() -> None:
    decisions = batch()
    parts = [decisions.rows(slice(0, 1)), decisions.rows(slice(1, 3))]
    assert same(concatenate(parts), decisions)
    wide = batch(2, 6, seed=2)
    joined = concatenate([decisions, wide])
    assert joined.mask.shape == (5, 6) and not joined.mask[:3, 4:].any()
    assert torch.equal(joined.reward[3:], wide.reward) and torch.equal(joined.reward[:3, :4], decisions.reward)
    with pytest.raises(ValueError, match=r"columns \['column/reward'\] are in some parts only"):
        concatenate([decisions, batch().replace(reward=None)])
    with pytest.raises(ValueError, match="at least one"):
        concatenate([])


def test_tensors_round_trip() -> None:
    decisions = batch()
    assert same(Decisions.from_tensors(decisions.to_tensors()), decisions)


def test_cleaned_empties_the_padding_only() -> None:
    mask = torch.tensor([[True, False], [True, True]])

    def poisoned(*shape: int) -> Tensor:
        tensor = torch.ones(2, 2, *shape)
        tensor[0, 1] = torch.nan
        return tensor

    square = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    decisions = Decisions(
        mask=mask,
        reward=poisoned(),
        value=poisoned(3),
        group=torch.arange(2),
        extras={"teacher_log_prob": poisoned(), "noise": poisoned(2), "square": square, "row": torch.ones(2)},
    )
    clean = decisions.cleaned()
    for name in ("reward", "value", "teacher_log_prob", "noise"):
        tensor = clean.column(name)
        assert not tensor[0, 1].any() and bool((tensor[mask] == 1).all())
    # An extra that is [N, K] with K = T by chance keeps its numbers.
    assert torch.equal(clean.extras["square"], square)
    assert torch.equal(clean.group, torch.arange(2))


def test_empty_batches_are_batches() -> None:
    for rows, columns in ((0, 4), (3, 0)):
        decisions = Decisions(mask=torch.zeros(rows, columns, dtype=torch.bool), reward=torch.zeros(rows, columns))
        assert len(decisions) == rows and decisions.flatten().mask.shape == (0, 1)


def test_a_table_prints_its_columns_and_their_shapes() -> None:
    shown = repr(Decisions(mask=torch.ones(2, 3, dtype=torch.bool), reward=torch.zeros(2, 3)))
    assert shown == "Decisions(mask [2, 3], reward [2, 3])"


def test_whole_is_remembered_for_rows_and_forgotten_with_the_mask():
    full = Decisions(mask=torch.ones(4, 2, dtype=torch.bool), reward=torch.zeros(4, 2))
    assert full.whole and full.rows(torch.tensor([1, 3])).whole and full.flatten().whole
    masked = full.replace(mask=torch.tensor([[True, False]] * 4))
    assert not masked.whole
    assert masked.flatten().whole and masked.cut([1, 3])[1].whole is False
    assert list(full) == ["mask", "reward"], "what is remembered is no column"


def test_cut_shares_contexts_that_rows_share():
    rows = Decisions(
        mask=torch.ones(3, 1, dtype=torch.bool),
        context={"x": torch.arange(2.0)[:, None]},
        context_row=torch.tensor([0, 1, 1]),
        extras={"budget": torch.tensor([4, 5, 6])},
    )
    first, second = rows.cut([1, 2])
    assert second.context["x"] is rows.context["x"]
    assert first.context_row.tolist() == [0] and second.context_row.tolist() == [1, 1]
    assert second.extras["budget"].tolist() == [5, 6]


def test_finite_numbers_whose_sum_is_not_are_accepted() -> None:
    largest = torch.finfo(torch.float32).max
    mask = torch.tensor([[True, True, False]])
    decisions = Decisions(mask=mask, reward=torch.tensor([[largest, largest, 0.0]]))
    assert decisions.replace(reward=torch.tensor([[1.0, 2.0, torch.inf]])).reward[0, 2] == torch.inf
    with pytest.raises(ValueError, match=r"reward\[0, 1\] is nan where mask is True"):
        decisions.replace(reward=torch.tensor([[1.0, torch.nan, 0.0]]))
    with pytest.raises(ValueError, match=r"reward\[0, 0\] is inf where mask is True"):
        decisions.replace(reward=torch.tensor([[torch.inf, 2.0, -torch.inf]]))
