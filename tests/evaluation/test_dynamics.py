"""What runs report beside their score, at the points of their evaluations and up to the common budget."""

from __future__ import annotations

import math

import pytest

from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.dynamics import at_common_budget, cut, measured, summary
from ascent.evaluation.intervals import interval

HELD = "held_out/pass@1"
LINES = [
    {"step": 0, "consumed": 0, "processor_seconds": 1.0, HELD: 0.1, "held_out/entropy": 2.0},
    {"step": 1, "consumed": 4, "processor_seconds": 2.0, "reward": 0.2, "entropy": 9.0, "clip_fraction": 0.3},
    {"step": 2, "consumed": 8, "processor_seconds": 3.0, "reward": 0.4, "entropy": 9.0, "clip_fraction": 0.1},
    {"step": 2, "consumed": 8, "processor_seconds": 4.0, HELD: 0.3, "held_out/entropy": 1.0},
    {"step": 3, "consumed": 14, "processor_seconds": 5.0, "reward": 0.9, "entropy": 9.0, "clip_fraction": 0.5},
    {"step": 3, "consumed": 14, "processor_seconds": 6.0, HELD: 0.5, "held_out/entropy": 0.5},
]


def test_training_numbers_are_means_since_the_evaluation_before_and_held_out_ones_are_read_there() -> None:
    found = measured(LINES, "pass@1", per=8.0)
    assert found["reward"] == [(64.0, pytest.approx(0.3)), (112.0, 0.9)]
    assert found["clip_fraction"] == [(64.0, pytest.approx(0.2)), (112.0, 0.5)]
    assert found["entropy"] == [(0.0, 2.0), (64.0, 1.0), (112.0, 0.5)], "the held-out entropy goes before the update's"
    assert found["processor_seconds"] == [(0.0, 1.0), (64.0, 4.0), (112.0, 6.0)]
    assert found["step"] == [(0.0, 0.0), (64.0, 2.0), (112.0, 3.0)]


def test_a_measure_that_a_run_has_not_is_absent_and_no_zero() -> None:
    bare = [
        {name: number for name, number in line.items() if name not in ("clip_fraction", "reward")} for line in LINES
    ]
    found = measured(bare, "pass@1")
    assert "clip_fraction" not in found and "reward" not in found
    trained = [{name: number for name, number in line.items() if name != "held_out/entropy"} for line in LINES]
    assert measured(trained, "pass@1")["entropy"] == [(8.0, 9.0), (14.0, 9.0)], "without a held-out one, the update's"
    control = [{**line, "episode_return": 7.0} for line in LINES]
    assert measured(control, "pass@1")["reward"] == [(8.0, 7.0), (14.0, 7.0)], "of a return, no reward"


def test_a_curve_is_cut_on_the_line_between_its_points() -> None:
    assert cut([(0.0, 1.0), (10.0, 3.0), (20.0, 7.0)], 15.0) == [(0.0, 1.0), (10.0, 3.0), (15.0, 5.0)]
    assert cut([(0.0, 1.0), (10.0, 3.0)], 10.0) == [(0.0, 1.0), (10.0, 3.0)]
    assert cut([(12.0, 4.0), (20.0, 7.0)], 10.0) == [(10.0, 4.0)]


def test_measures_end_at_the_common_budget_like_the_score() -> None:
    slow = Arm("slow", [Seed(0, [(0.0, 0.0), (10.0, 0.5)], 0.5, {"entropy": [(0.0, 1.0), (10.0, 0.8)]})])
    fast = Arm("fast", [Seed(0, [(0.0, 0.0), (20.0, 1.0)], 1.0, {"entropy": [(0.0, 1.0), (20.0, 0.2)]})])
    found = at_common_budget([slow, fast])
    assert found[0] == slow
    assert found[1].seeds[0] == Seed(
        0, [(0.0, 0.0), (10.0, 0.5)], 0.5, {"entropy": [(0.0, 1.0), (10.0, pytest.approx(0.6))]}
    )


def arm(**measures: list[list[float]]) -> Arm:
    """An arm with a run for each of the lists, whose numbers are measured at budgets 0, 1, ..."""
    runs = []
    for seed in range(len(next(iter(measures.values())))):
        curves = {name: list(enumerate(lists[seed])) for name, lists in measures.items() if lists[seed]}
        runs.append(Seed(seed, [(0.0, 0.0), (2.0, 1.0)], 1.0, curves))
    return Arm("a", runs)


def test_entropy_is_summed_up_by_its_end_and_the_clip_fraction_by_its_mean() -> None:
    runs = arm(entropy=[[2.0, 0.5], [2.0, 0.7], [2.0, 0.6]], clip_fraction=[[0.1, 0.3], [0.2, 0.2], [0.0, 0.1]])
    assert summary(runs, "entropy") == interval([0.5, 0.7, 0.6], "entropy", "a")
    found = summary(runs, "clip_fraction")
    assert found is not None and found.estimate == pytest.approx((0.2 + 0.2 + 0.05) / 3)


def test_intervals_end_where_the_measure_does() -> None:
    found = summary(arm(clip_fraction=[[0.0], [0.0], [0.09]]), "clip_fraction")
    assert found is not None
    assert interval([0.0, 0.0, 0.09], "clip_fraction", "a").low < 0.0 == found.low


def test_an_arm_of_which_a_run_lacks_the_measure_has_none() -> None:
    assert summary(arm(entropy=[[1.0], [2.0]]), "clip_fraction") is None
    assert summary(arm(entropy=[[1.0], []]), "entropy") is None
    once = summary(arm(entropy=[[1.0]]), "entropy")
    assert once is not None and once.estimate == 1.0 and math.isnan(once.low)
