"""Blend, weight, clip, optimal baseline and normalisation in closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascent.core.centre import Centre
from ascent.core.combinators import Blend, Clipped, Normalised, OptimalBaseline, Weighted
from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.random import generator
from ascent.core.returns import Score


def batch(seed: int = 0, rows: int = 6, columns: int = 4) -> Decisions:
    draw = generator(seed, "combinators")
    mask = torch.arange(columns) < torch.randint(1, columns + 1, (rows, 1), generator=draw)
    reward, advantage = torch.randn(2, rows, columns, generator=draw, dtype=torch.float64)
    return Decisions(mask=mask, reward=reward, advantage=advantage, group=torch.arange(rows) // 3)


def test_blend_moves_from_the_first_to_the_second() -> None:
    decisions = batch()
    first, second = Centre()(decisions), decisions.advantage
    assert torch.equal(Blend(Centre(), "advantage", 0.0)(decisions), first)
    assert torch.equal(Blend(Centre(), "advantage", 1.0)(decisions), second)
    torch.testing.assert_close(Blend(Centre(), "advantage", 0.25)(decisions), 0.75 * first + 0.25 * second)
    assert Blend("reward", "advantage").needs == {"reward", "advantage"}


def test_weighted_multiplies_by_a_row_or_a_decision_column() -> None:
    decisions = batch().with_extras({"share": torch.arange(6.0, dtype=torch.float64)})
    credit = Weighted("advantage", "share")(decisions)
    for row in range(6):
        for column in range(4):
            wanted = row * decisions.advantage[row, column] if decisions.mask[row, column] else 0.0
            assert credit[row, column] == wanted
    with pytest.raises(MissingColumn, match=r"Weighted needs column 'shares'.*did you mean 'share'"):
        Weighted("advantage", "shares")(decisions)


def test_clipped_limits_either_side() -> None:
    decisions = batch()
    assert torch.equal(Clipped("advantage", -0.5, 0.5)(decisions), decisions.advantage.clamp(-0.5, 0.5))
    assert torch.equal(Clipped("advantage", low=0.0)(decisions), decisions.advantage.clamp(min=0.0))
    with pytest.raises(ValueError, match="low must be <= high; got low=1, high=0"):
        Clipped("advantage", 1, 0)
    with pytest.raises(ValueError, match="needs low, high or both"):
        Clipped("advantage")


def test_optimal_baseline_equals_the_plain_loop() -> None:
    decisions = batch(3)
    score, length = Score()(decisions)[:, 0], decisions.mask.sum(1)
    credit = OptimalBaseline()(decisions)
    for row in range(6):
        cell = [other for other in range(6) if decisions.group[other] == decisions.group[row]]
        baseline = sum(length[i] * score[i] for i in cell) / sum(length[i] for i in cell)
        wanted = torch.where(decisions.mask[row], score[row] - baseline, 0.0)
        torch.testing.assert_close(credit[row], wanted)


def test_optimal_baseline_has_the_least_variance_of_all_constants() -> None:
    """A softmax bandit with every arm listed: E[(score * (R - b))^2] is least at b = E[w R] / E[w]."""
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64)
    reward = torch.tensor([1.0, 4.0, -2.0], dtype=torch.float64)
    share = logits.softmax(0)
    squared = (torch.eye(3, dtype=torch.float64) - share).square().sum(1)
    decisions = Decisions(
        mask=torch.ones(3, 1, dtype=torch.bool), reward=reward[:, None], group=torch.zeros(3, dtype=torch.int64)
    ).with_extras({"importance": share * squared})
    best = (reward - OptimalBaseline(weight="importance")(decisions)[:, 0])[0]

    def second_moment(baseline: float) -> float:
        return float((share * squared * (reward - baseline).square()).sum())

    least = second_moment(float(best))
    assert all(second_moment(float(best) + shift) > least for shift in (-1.0, -1e-3, 1e-3, 1.0))


def test_optimal_baseline_with_equal_lengths_is_the_mean() -> None:
    decisions = batch()
    decisions = decisions.replace(mask=torch.ones_like(decisions.mask))
    torch.testing.assert_close(OptimalBaseline()(decisions), Centre()(decisions))
    empty = decisions.replace(mask=torch.zeros_like(decisions.mask))
    assert not OptimalBaseline()(empty).any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), ddof=st.integers(0, 1))
def test_normalised_equals_the_moments_of_the_decided_entries(seed: int, ddof: int) -> None:
    decisions = batch(seed)
    poisoned = decisions.replace(advantage=torch.where(decisions.mask, decisions.advantage, torch.nan))
    kept = decisions.advantage[decisions.mask]
    credit = Normalised(eps=0.0, ddof=ddof)(poisoned)
    torch.testing.assert_close(credit[decisions.mask], (kept - kept.mean()) / kept.std(correction=ddof))
    assert not credit[~decisions.mask].any()
    divided = Normalised(eps=0.0, ddof=ddof, centre=False)(poisoned)
    torch.testing.assert_close(divided[decisions.mask], kept / kept.std(correction=ddof))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalised_edge_cases(dtype: torch.dtype) -> None:
    mask = torch.tensor([[True, True, True, False]])
    constant = Decisions(mask=mask, advantage=torch.full((1, 4), 0.7, dtype=dtype))
    assert not Normalised()(constant).any()
    alone = constant.replace(mask=torch.tensor([[False, True, False, False]]))
    assert Normalised()(alone).tolist() == torch.where(alone.mask, alone.advantage, 0.0).tolist()
    nobody = constant.replace(mask=torch.zeros_like(mask))
    assert not Normalised()(nobody).any()
    assert Normalised()(constant).dtype == dtype
    assert Normalised()(constant.rows(slice(0, 0))).shape == (0, 4)
