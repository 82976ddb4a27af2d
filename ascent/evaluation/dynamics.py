"""What happened on the way: training reward, entropy and clip fraction of every arm, at its evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ascent.evaluation.arms import Arm, Curve, Seed
from ascent.evaluation.intervals import Interval, interval


@dataclass(frozen=True)
class Measure:
    """A number that runs report beside their score.

    Attributes:
        name: in `Seed.measures`.
        label: for people.
        sources: metrics that hold it, by preference; a `held_out/` one is read at evaluations, another one is the mean
            over the steps since the evaluation before.
        summary: one number of a curve: its last, or the mean of its points.
        limits: least and greatest number that can be; intervals end there.
        ticks: of an axis that is linear up to the second and logarithmic above it, for numbers of several sizes;
            none for a linear axis.
    """

    name: str
    label: str
    sources: tuple[str, ...]
    summary: Literal["last", "mean"] = "last"
    limits: tuple[float, float] = (-math.inf, math.inf)
    ticks: tuple[float, ...] = ()


MEASURES = (
    Measure("reward", "reward in training", ("episode_return", "reward")),
    Measure("entropy", "entropy, nats", ("held_out/entropy", "entropy"), limits=(0.0, math.inf)),
    Measure("clip_fraction", "clip fraction", ("clip_fraction",), "mean", (0.0, 1.0), (0.0, 0.001, 0.01, 0.1, 1.0)),
)
"""What is drawn beside the score."""

SPENT = ("step", "processor_seconds")
"""Counters that every line of a run's metrics holds; kept as curves too, so that the common budget has its cost."""


def measured(metrics: Sequence[Mapping[str, Any]], score: str, per: float = 1.0) -> dict[str, Curve]:
    """Every measure of a run as (budget used, number) at its evaluations; one that the run has not is left out.

    Args:
        metrics: the lines of metrics.jsonl; a line with `held_out/<score>` is an evaluation.
        score: the held-out score.
        per: budget of one unit of `consumed`.
    """
    marks = [place for place, line in enumerate(metrics) if f"held_out/{score}" in line]
    found: dict[str, Curve] = {}
    for measure in MEASURES:
        source = next((name for name in measure.sources if any(name in line for line in metrics)), None)
        if source is None:
            continue
        curve = []
        for before, mark in zip([-1, *marks], marks, strict=False):
            lines = [metrics[mark]] if source.startswith("held_out/") else metrics[before + 1 : mark]
            numbers = [float(line[source]) for line in lines if source in line]
            if numbers:
                curve.append((metrics[mark]["consumed"] * per, math.fsum(numbers) / len(numbers)))
        if curve:
            found[measure.name] = curve
    for name in SPENT:
        if marks and all(name in metrics[mark] for mark in marks):
            found[name] = [(metrics[mark]["consumed"] * per, float(metrics[mark][name])) for mark in marks]
    return found


def cut(curve: Curve, limit: float) -> Curve:
    """A curve up to `limit`, where its number lies on the line between the points before and after it.

    A curve that begins behind the limit keeps its first number, one that ends before it its last.
    """
    budgets, numbers = zip(*curve, strict=True)
    return [*(point for point in curve if point[0] < limit), (limit, float(np.interp(limit, budgets, numbers)))]


def at_common_budget(arms: Sequence[Arm]) -> list[Arm]:
    """Every curve up to the largest budget that all runs reached, and the score there.

    Refilled prompts count for the arm that drew them, so evaluations of different arms fall on different budgets.
    """
    limit = min(run.curve[-1][0] for arm in arms for run in arm.seeds)

    def ended(run: Seed) -> Seed:
        curve = cut(run.curve, limit)
        measures = {name: cut(measure, limit) for name, measure in run.measures.items()}
        return Seed(run.seed, curve, curve[-1][1], measures)

    return [Arm(arm.name, [ended(run) for run in arm.seeds]) for arm in arms]


def summary(arm: Arm, name: str) -> Interval | None:
    """One number of a measure with its 95% interval over the seeds; None where a run of the arm has it not."""
    how, limits = next(
        ((measure.summary, measure.limits) for measure in MEASURES if measure.name == name),
        ("last", (-math.inf, math.inf)),
    )
    numbers = []
    for run in arm.seeds:
        curve = run.measures.get(name)
        if not curve:
            return None
        numbers.append(curve[-1][1] if how == "last" else math.fsum(number for _, number in curve) / len(curve))
    found = interval(numbers, name, arm.name)
    low, high = np.clip((found.low, found.high), *limits).tolist()
    return Interval(found.estimate, low, high)
