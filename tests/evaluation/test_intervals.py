"""Intervals: against scipy, by coverage on a known distribution, and where there are few runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ascent.evaluation.intervals import bounds, interquartile_mean, interval, paired_difference, stratified


def draws(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(2.0, 3.0, shape)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_interquartile_mean_is_the_trimmed_mean_of_scipy(numbers: list[float]) -> None:
    found = float(interquartile_mean(np.array(numbers)))
    assert found == pytest.approx(float(stats.trim_mean(numbers, 0.25)))
    kept = sorted(numbers)[len(numbers) // 4 : len(numbers) - len(numbers) // 4]
    assert found == pytest.approx(sum(kept) / len(kept), abs=1e-6)


@pytest.mark.parametrize("statistic", [np.mean, interquartile_mean])
def test_plain_percentiles_agree_with_scipys_bootstrap(statistic: object) -> None:
    numbers = draws(40)
    low, high = bounds(numbers, "test", statistic=statistic, resamples=20_000, widen=False)  # type: ignore[arg-type]
    reference = stats.bootstrap(
        (numbers,),
        lambda x, axis: statistic(x, axis),
        n_resamples=20_000,
        method="percentile",
        rng=1,
        vectorized=True,  # type: ignore[operator]
    ).confidence_interval
    width = reference.high - reference.low
    assert abs(float(low) - reference.low) < 0.03 * width
    assert abs(float(high) - reference.high) < 0.03 * width


@pytest.mark.parametrize(("runs", "least", "most"), [(3, 0.92, 0.98), (5, 0.92, 0.98), (12, 0.92, 0.98)])
def test_coverage_of_the_mean_of_normal_numbers(runs: int, least: float, most: float) -> None:
    """600 experiments of known mean; the standard error of the measured coverage is under 0.01."""
    table = draws(600, runs)
    hits = 0
    for place, numbers in enumerate(table):
        low, high = bounds(numbers, place, resamples=600)
        hits += bool(low <= 2.0 <= high)
    assert least < hits / 600 < most


def test_plain_percentiles_cover_too_little_at_three_runs() -> None:
    table = draws(600, 3)
    plain = [bounds(numbers, place, resamples=600, widen=False) for place, numbers in enumerate(table)]
    assert sum(bool(low <= 2.0 <= high) for low, high in plain) / 600 < 0.80


@pytest.mark.parametrize("runs", [5, 30])
def test_widened_bounds_are_near_students_interval(runs: int) -> None:
    numbers = draws(30)[:runs]
    low, high = bounds(numbers, "t", resamples=20_000)
    reference = stats.t.interval(0.95, runs - 1, numbers.mean(), numbers.std(ddof=1) / math.sqrt(runs))
    width = reference[1] - reference[0]
    assert abs(float(low) - reference[0]) < 0.1 * width
    assert abs(float(high) - reference[1]) < 0.1 * width


def test_level_and_spread_widen_it_and_the_words_alone_decide_the_draws() -> None:
    numbers = draws(10)
    narrow, wide = bounds(numbers, "a", level=0.5), bounds(numbers, "a", level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bounds(numbers, "a") == bounds(numbers, "a") != bounds(numbers, "b")
    shifted = bounds(10.0 + 2.0 * numbers, "a")
    np.testing.assert_allclose(shifted, 10.0 + 2.0 * np.array(bounds(numbers, "a")))


def test_trailing_axes_are_kept_and_share_their_resamples() -> None:
    table = draws(6, 4)
    low, high = bounds(table, "curve")
    assert low.shape == high.shape == (4,)
    np.testing.assert_allclose(low[2], bounds(table[:, 2], "curve")[0])


def test_one_run_has_no_interval_and_equal_runs_a_point() -> None:
    one = interval([3.0], "x")
    assert one.estimate == 3.0 and math.isnan(one.low) and math.isnan(one.high)
    same = interval([3.0, 3.0, 3.0], "x")
    assert (same.estimate, same.low, same.high) == (3.0, 3.0, 3.0)


def test_pairing_takes_out_what_the_seed_does_to_both() -> None:
    luck = draws(6) * 100
    first = {seed: float(luck[seed]) for seed in range(6)}
    second = {seed: float(luck[seed]) + 1.0 + 0.1 * seed for seed in range(1, 6)} | {99: 0.0}
    found = paired_difference(first, second, "d")
    assert found.estimate == pytest.approx(1.3)  # over seeds 1 to 5 only
    assert 1.0 < found.low < 1.3 < found.high < 1.6
    backwards = paired_difference(second, first, "d")
    assert backwards.estimate == pytest.approx(-1.3)
    nothing = paired_difference({1: 0.0}, {2: 1.0}, "d")
    assert all(math.isnan(number) for number in (nothing.estimate, nothing.low, nothing.high))
    single = paired_difference({1: 0.0}, {1: 1.0}, "d")
    assert single.estimate == 1.0 and math.isnan(single.low)


def test_stratified_resampling_keeps_the_tasks_apart() -> None:
    """Two tasks far apart without noise in either: resampling runs within tasks cannot move the estimate."""
    scores = np.array([[0.0, 10.0]] * 5)
    found = stratified(scores, "s", statistic=np.mean)  # type: ignore[arg-type]
    assert (found.estimate, found.low, found.high) == (5.0, 5.0, 5.0)
    noisy = draws(8, 5)
    apart = stratified(noisy, "s", statistic=np.mean, resamples=20_000)  # type: ignore[arg-type]
    error = math.sqrt((noisy.var(axis=0) / 8).sum()) / 5  # of a mean of 5 independent bootstrap means
    assert (apart.high - apart.low) / (2 * 1.96) == pytest.approx(error, rel=0.05)
    assert math.isnan(stratified(noisy[:1], "s").low)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="numbers must be finite; got nan"):
        interval([1.0, math.nan], "x")
    with pytest.raises(ValueError, match="at least one run"):
        interval([], "x")
    with pytest.raises(ValueError, match="level must be"):
        bounds([1.0, 2.0], level=1.0)
    with pytest.raises(ValueError, match=r"scores must be \[runs, tasks\]"):
        stratified([1.0, 2.0], "x")
