"""`example` makes inputs that a method accepts, the same for the same seed."""

from __future__ import annotations

import pytest
import torch

from ascent.core.example import example
from ascent.core.reductions import last

NEEDS = frozenset(
    {"log_prob", "value", "probe:kl", "reward", "group", "terminated", "truncated", "next_value", "teacher_log_prob"}
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_are_those_needed_in_the_type_asked_for(dtype: torch.dtype) -> None:
    evaluation, decisions = example(NEEDS, (), 8, 5, 0, dtype)
    assert set(evaluation) == {"log_prob", "value", "kl"}
    recorded = NEEDS - {"log_prob", "probe:kl"}  # a critic's value is both recorded and evaluated now
    assert set(decisions) == recorded | {"mask", "action"}
    assert decisions.mask.shape == (8, 5) and bool(decisions.mask.any(1).all())
    assert {evaluation.log_prob.dtype, decisions.reward.dtype, decisions.column("teacher_log_prob").dtype} == {dtype}
    assert all(evaluation.column(name).is_leaf and evaluation.column(name).requires_grad for name in evaluation)


def test_rows_end_once_with_their_score_on_the_last_decision() -> None:
    _, decisions = example(NEEDS, (), 12, 6, 3, torch.float64)
    final = last(decisions, "row")
    assert torch.equal(decisions.terminated | decisions.truncated, final)
    assert not (decisions.terminated & decisions.truncated).any()
    assert decisions.terminated.any() and decisions.truncated.any()
    assert torch.equal(decisions.reward != 0, final)
    assert not decisions.next_value[decisions.terminated].any()
    assert len(set(decisions.mask.sum(1).tolist())) > 1  # uneven lengths


@pytest.mark.parametrize(("rows", "size"), [(8, 4), (6, 2), (5, 1)])
def test_groups_divide_the_rows(rows: int, size: int) -> None:
    _, decisions = example(NEEDS, (), rows, 3, 0, torch.float32)
    assert torch.bincount(decisions.group).tolist() == [size] * (rows // size)


def test_the_seed_decides() -> None:
    one, two, three = (example(NEEDS, (), 8, 5, seed, torch.float64) for seed in (1, 1, 2))
    assert torch.equal(one[0].log_prob, two[0].log_prob) and torch.equal(one[1].reward, two[1].reward)
    assert not torch.equal(one[0].log_prob, three[0].log_prob)


def test_sizes_are_checked() -> None:
    for rows, columns in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match=f"got rows={rows}, columns={columns}"):
            example(NEEDS, (), rows, columns, 0, torch.float32)
