"""Recurrences against plain loops, hand-worked episodes, invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ascent
from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.random import generator
from ascent.core.returns import GAE, LambdaReturn, RewardToGo, Score, SoFar, backward_sum, discounted_sum, gae


def episodes(rows: int, columns: int, seed: int, holes: float = 0.3) -> Decisions:
    """Random float64 streams with masked columns anywhere and episodes that end inside a row."""
    draw = generator(seed, "returns")

    def normal() -> Tensor:
        return torch.randn(rows, columns, generator=draw, dtype=torch.float64)

    def chance(share: float) -> Tensor:
        return torch.rand(rows, columns, generator=draw) < share

    mask = ~chance(holes)
    terminated = chance(0.2) & mask
    truncated = chance(0.2) & mask & ~terminated
    return Decisions(
        mask=mask,
        reward=normal(),
        value=normal(),
        next_value=torch.where(terminated, 0.0, normal()),
        terminated=terminated,
        truncated=truncated,
    )


def plain_gae(decisions: Decisions, discount: float, trace: float) -> Tensor:
    result = torch.zeros_like(decisions.reward)
    for row in range(len(decisions)):
        following = 0.0
        for column in reversed(range(decisions.mask.shape[1])):
            if not decisions.mask[row, column]:
                continue
            here = (row, column)
            if decisions.terminated[here] or decisions.truncated[here]:
                following = 0.0
            next_value = 0.0 if decisions.terminated[here] else float(decisions.next_value[here])
            delta = float(decisions.reward[here]) + discount * next_value - float(decisions.value[here])
            following = delta + discount * trace * following
            result[here] = following
    return result


def plain_to_go(decisions: Decisions, discount: float) -> Tensor:
    result = torch.zeros_like(decisions.reward)
    for row in range(len(decisions)):
        following = 0.0
        for column in reversed(range(decisions.mask.shape[1])):
            if decisions.mask[row, column]:
                if decisions.terminated[row, column] or decisions.truncated[row, column]:
                    following = 0.0
                following = float(decisions.reward[row, column]) + discount * following
                result[row, column] = following
    return result


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 17),
    discount=st.floats(0, 1),
    trace=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_gae_equals_the_plain_loop(rows: int, columns: int, discount: float, trace: float, seed: int) -> None:
    decisions = episodes(rows, columns, seed)
    torch.testing.assert_close(GAE(discount, trace)(decisions), plain_gae(decisions, discount, trace))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 4), columns=st.integers(1, 17), discount=st.floats(0, 1), seed=st.integers(0, 1000))
def test_reward_to_go_equals_the_plain_loop(rows: int, columns: int, discount: float, seed: int) -> None:
    decisions = episodes(rows, columns, seed)
    torch.testing.assert_close(RewardToGo(discount)(decisions), plain_to_go(decisions, discount))


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 7, 8, 9, 16, 33])
def test_doubling_solves_the_recurrence_at_every_length(columns: int) -> None:
    draw = generator(columns)
    increment, factor = torch.randn(2, 3, columns, generator=draw, dtype=torch.float64)
    wanted = torch.zeros(3, columns, dtype=torch.float64)
    following = torch.zeros(3, dtype=torch.float64)
    for column in reversed(range(columns)):
        following = increment[:, column] + factor[:, column] * following
        wanted[:, column] = following
    torch.testing.assert_close(backward_sum(increment, factor), wanted)


def test_no_columns_and_no_rows() -> None:
    for rows, columns in ((0, 3), (2, 0)):
        decisions = episodes(rows, columns, 0)
        for credit in (GAE(), RewardToGo(), LambdaReturn(), Score()):
            assert credit(decisions).shape == (rows, columns)


def hand(**changes: Tensor) -> Decisions:
    """Three steps with rewards 1, 2, 3, values 10, 20, 30; the true successor values are 20, 30, 40."""
    columns = {
        "mask": torch.ones(1, 3, dtype=torch.bool),
        "reward": torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64),
        "value": torch.tensor([[10.0, 20.0, 30.0]], dtype=torch.float64),
        "next_value": torch.tensor([[20.0, 30.0, 40.0]], dtype=torch.float64),
        "terminated": torch.zeros(1, 3, dtype=torch.bool),
        "truncated": torch.zeros(1, 3, dtype=torch.bool),
    }
    return Decisions(**{**columns, **changes})


def test_gae_by_hand_at_termination_truncation_and_the_row_end() -> None:
    # deltas at discount 0.5: 1 + 10 - 10 = 1; 2 + 15 - 20 = -3; 3 + 20 - 30 = -7.
    credit = GAE(0.5, 0.5)
    assert credit(hand()).tolist() == [[1 + 0.25 * (-3 + 0.25 * -7), -3 + 0.25 * -7, -7.0]]
    middle = torch.tensor([[False, True, False]])
    # Truncation keeps the bootstrap and cuts the trace.
    assert credit(hand(truncated=middle)).tolist() == [[1 + 0.25 * -3, -3.0, -7.0]]
    # Termination cuts both, even where the recorded next value is not 0: 2 - 20 = -18.
    assert credit(hand(terminated=middle)).tolist() == [[1 + 0.25 * -18, -18.0, -7.0]]


def test_reward_to_go_bootstraps_only_when_asked_and_only_where_cut() -> None:
    middle = torch.tensor([[False, True, False]])
    assert RewardToGo(0.5)(hand(truncated=middle)).tolist() == [[2.0, 2.0, 3.0]]
    # 2 + 0.5 * 30 = 17 at the truncation, 3 + 0.5 * 40 = 23 at the end of the row.
    assert RewardToGo(0.5, bootstrap=True)(hand(truncated=middle)).tolist() == [[1 + 8.5, 17.0, 23.0]]
    assert RewardToGo(0.5, bootstrap=True)(hand(terminated=middle)).tolist() == [[2.0, 2.0, 23.0]]
    assert "next_value" in RewardToGo(bootstrap=True).needs and "next_value" not in RewardToGo().needs


def test_masked_columns_are_jumped_over_without_discount() -> None:
    decisions = episodes(3, 6, 5, holes=0.0)
    wide = Decisions(
        **{
            name: torch.stack([decisions.column(name), torch.zeros_like(decisions.column(name))], 2).flatten(1)
            for name in decisions
        }
    )
    for credit in (GAE(), RewardToGo(0.9), RewardToGo(0.9, bootstrap=True), LambdaReturn(), Score()):
        spread = credit(wide)
        torch.testing.assert_close(spread[:, ::2], credit(decisions), rtol=0, atol=1e-12)
        assert not spread[:, 1::2].any()


def test_nan_under_the_mask_reaches_nothing() -> None:
    decisions = episodes(4, 9, 2)
    poison = {
        name: torch.where(decisions.mask, decisions.column(name), torch.nan)
        for name in ("reward", "value", "next_value")
    }
    poisoned = decisions.replace(**poison)
    for credit in (GAE(), RewardToGo(0.9), RewardToGo(0.9, bootstrap=True), LambdaReturn(), Score()):
        torch.testing.assert_close(credit(poisoned), credit(decisions), rtol=0, atol=0)


def test_special_cases_of_gae() -> None:
    decisions = episodes(4, 12, 3)
    mask, ended = decisions.mask, decisions.terminated | decisions.truncated
    # The successor of a decision that ends nothing is the row's next decision.
    upcoming = discounted_sum(decisions.value, mask, mask, 1.0)
    upcoming = backward_sum(torch.where(mask, upcoming, 0.0), torch.where(mask, 0.0, 1.0).to(torch.float64))
    upcoming = torch.cat((upcoming[:, 1:], decisions.next_value[:, -1:]), 1)
    followed = mask.flip(1).cumsum(1).flip(1) > 1
    decisions = decisions.replace(next_value=torch.where(~ended & followed, upcoming, decisions.next_value))
    # trace 1 is the bootstrapped return minus the value; the lambda-return adds the value back.
    monte_carlo = RewardToGo(0.9, bootstrap=True)(decisions)
    torch.testing.assert_close(LambdaReturn(0.9, 1.0)(decisions), monte_carlo)
    torch.testing.assert_close(GAE(0.9, 1.0)(decisions), torch.where(mask, monte_carlo - decisions.value, 0.0))
    # trace 0 is the one-step target.
    one_step = torch.where(mask, decisions.reward + 0.9 * decisions.next_value, 0.0)
    torch.testing.assert_close(LambdaReturn(0.9, 0.0)(decisions), one_step)


def test_discount_per_decision() -> None:
    reward = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    ended, mask = torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    durations = torch.tensor([[2.0, 1.0, 3.0]], dtype=torch.float64)
    assert discounted_sum(reward, ended, mask, 0.5**durations).tolist() == [[1 + 0.25 * 1.5, 1.5, 1.0]]
    value = torch.zeros_like(reward)
    assert gae(reward, value, value, ended, ended, mask, 0.5**durations, 1.0).tolist() == [[1.375, 1.5, 1.0]]


def test_score_is_the_row_total_on_each_decision() -> None:
    mask = torch.tensor([[True, True, False], [True, False, True]])
    decisions = Decisions(mask=mask, reward=torch.tensor([[1.0, 2.0, 99.0], [4.0, 99.0, 8.0]]))
    assert Score()(decisions).tolist() == [[3.0, 3.0, 0.0], [12.0, 0.0, 12.0]]
    doubled = Score(lambda batch: 2 * batch.reward)
    assert doubled(decisions)[0, 0] == 6.0 and doubled.needs == frozenset()


def test_range_errors_and_missing_columns() -> None:
    for part in (GAE, LambdaReturn, RewardToGo):
        with pytest.raises(ValueError, match=r"discount must be in \[0, 1\]; got 1.5"):
            part(discount=1.5)
    with pytest.raises(ValueError, match=r"trace must be in \[0, 1\]; got -0.1"):
        GAE(trace=-0.1)
    with pytest.raises(MissingColumn, match="GAE needs column 'costs'"):
        GAE(reward="costs")(hand())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    decisions = episodes(2, 5, 0)
    floats = {name: decisions.column(name).to(dtype) for name in ("reward", "value", "next_value")}
    for credit in (GAE(), RewardToGo(0.9, bootstrap=True), LambdaReturn(), Score()):
        assert credit(decisions.replace(**floats)).dtype == dtype


def test_the_credit_estimates_once_and_gives_both_as_they_were():
    method = ascent.method("ppo")
    _, decisions = method.example(6, 5, 3, torch.float64)
    credited = method.credit(decisions)
    assert torch.equal(credited.advantage, method.advantage(decisions))
    assert torch.equal(credited.value_target, method.value_target(decisions))
    other = method.replace(value_target=LambdaReturn(0.5, 0.5)).credit(decisions)
    assert torch.equal(other.value_target, LambdaReturn(0.5, 0.5)(decisions))
    assert not torch.equal(other.value_target, credited.value_target)


def test_sums_so_far_and_to_go_add_up_to_the_episodes_total():
    draw = torch.Generator().manual_seed(0)
    reward = torch.rand(6, 9, dtype=torch.float64, generator=draw)
    ended = torch.rand(6, 9, generator=draw) < 0.2
    batch = Decisions(
        mask=torch.ones(6, 9, dtype=torch.bool), reward=reward, terminated=ended, truncated=torch.zeros_like(ended)
    )
    whole = SoFar()(batch) + RewardToGo()(batch) - reward
    for row in range(6):
        start = 0
        for column in range(9):
            if ended[row, column] or column == 8:
                total = reward[row, start : column + 1].sum()
                torch.testing.assert_close(whole[row, start : column + 1], total.expand(column + 1 - start))
                start = column + 1
    with pytest.raises(ValueError, match="scale must be > 0"):
        SoFar(scale=0.0)
