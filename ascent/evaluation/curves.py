"""Curves of several seeds on one grid of the budget, with a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ascent.evaluation.intervals import Array, bounds


@dataclass(frozen=True, eq=False)
class Band:
    """Mean curve with bounds. P points.

    Attributes:
        budget: [P], increasing.
        mean, low, high: [P]; the bounds are NaN with one seed.
        values: [S, P], each seed on the grid.
    """

    budget: Array
    mean: Array
    low: Array
    high: Array
    values: Array


def align(curves: Sequence[Sequence[tuple[float, float]]], points: int = 200) -> tuple[Array, Array]:
    """Curves on one grid: budgets [P] and values [S, P], linear between recorded points, never beyond them.

    Args:
        curves: one or more, each (budget, value) in any order; of equal budgets the later value counts.
        points: largest P. Where the curves have fewer different budgets together, the grid is exactly those.

    Raises:
        ValueError: a curve is empty or not finite, or the curves share no budget.
    """
    if not curves:
        raise ValueError("curves must hold at least one curve; got none.")
    if points < 2:
        raise ValueError(f"points must be >= 2; got {points}.")
    sorted_curves = []
    for place, curve in enumerate(curves):
        table = np.asarray(sorted(dict(curve).items()), dtype=np.float64)
        if not len(table) or not np.isfinite(table).all():
            raise ValueError(f"curves[{place}] must hold finite (budget, value) pairs; got {list(curve)[:3]}...")
        sorted_curves.append(table)
    start = max(table[0, 0] for table in sorted_curves)
    end = min(table[-1, 0] for table in sorted_curves)
    if start > end:
        raise ValueError(f"curves share no budget: one starts at {start}, another ends at {end}.")
    budget = np.unique(np.concatenate([table[:, 0] for table in sorted_curves]))
    budget = budget[(budget >= start) & (budget <= end)]
    if len(budget) > points:
        budget = np.linspace(start, end, points)
    values = np.stack([np.interp(budget, table[:, 0], table[:, 1]) for table in sorted_curves])
    return budget, values


def band(
    curves: Sequence[Sequence[tuple[float, float]]], *words: int | str, level: float = 0.95, points: int = 200
) -> Band:
    """Mean of aligned curves with a pointwise bootstrap interval over seeds.

    Args:
        curves: one a seed.
        words: hashed into the seed of the resampling.
        level: pointwise coverage aimed at, in (0, 1).
        points: largest number of points.
    """
    budget, values = align(curves, points)
    low, high = bounds(values, *words, level=level, resamples=1000)
    return Band(budget, values.mean(axis=0), low, high, values)
