"""Running statistics against numpy over everything seen."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ascent.worlds.normalisation import RewardScale, RunningStatistics


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 100), st.floats(-1e4, 1e4))
def test_batches_add_up_to_the_whole(sizes, seed, offset):
    rng = np.random.default_rng(seed)
    batches = [rng.normal(offset, 3, (size, 2)) for size in sizes]
    statistics = RunningStatistics(2)
    for batch in batches:
        statistics.update(batch)
    everything = np.concatenate(batches)
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(statistics.variance, everything.var(0), rtol=1e-6, atol=1e-7)


def test_merging_equals_seeing_both():
    rng = np.random.default_rng(0)
    first, second, both = RunningStatistics(3), RunningStatistics(3), RunningStatistics(3)
    a, b = rng.normal(size=(5, 3)), rng.normal(2, 4, (9, 3))
    first.update(a)
    second.update(b)
    first.merge(second)
    both.update(np.concatenate([a, b]))
    np.testing.assert_allclose(first.mean, both.mean, rtol=1e-13)
    np.testing.assert_allclose(first.variance, both.variance, rtol=1e-13)


def test_normalised_numbers_are_standard_and_clipped():
    statistics = RunningStatistics(1, clip=2.0)
    batch = np.random.default_rng(0).normal(5, 3, (1000, 1))
    np.testing.assert_array_equal(statistics.normalise(np.array([[0.5]])), [[0.5]])
    statistics.update(batch)
    assert abs(float(statistics.normalise(batch).mean())) < 0.02
    np.testing.assert_array_equal(statistics.normalise(np.array([[1e6], [-1e6]])), [[2.0], [-2.0]])


def test_state_survives_json_exactly():
    statistics = RunningStatistics(2)
    statistics.update(np.random.default_rng(1).normal(size=(7, 2)) / 3)
    other = RunningStatistics(2)
    other.load_state_dict(json.loads(json.dumps(statistics.state_dict())))
    batch = np.random.default_rng(2).normal(size=(4, 2))
    np.testing.assert_array_equal(statistics.normalise(batch), other.normalise(batch))


def test_rewards_are_divided_by_the_deviation_of_the_running_return():
    scale = RewardScale(2, discount=0.5)
    no = np.zeros(2, bool)
    scale(np.array([1.0, 2.0]), no, no)
    scaled = scale(np.array([-4.0, 0.0]), np.array([True, False]), no)
    returns = np.array([1.0, 2.0, -3.5, 1.0])
    np.testing.assert_allclose(scaled, np.array([-4.0, 0.0]) / np.sqrt(returns.var() + 1e-8), rtol=1e-6)
    np.testing.assert_array_equal(scale.returns, [0.0, 1.0])
