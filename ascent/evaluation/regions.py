"""Pictures of a piecewise-affine law of two states: its polytopes, and what learning added to it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ascent.policies.affine.regions import PiecewiseAffine, Region

Grid = NDArray[np.float64]


def corners(region: Region) -> Grid:
    """Vertices [v, 2] of a polygon, counter-clockwise.

    Raises:
        ValueError: the region's states are not two numbers.
    """
    if region.rows.shape[1] != 2:
        raise ValueError(f"pictures are of two states; this region has {region.rows.shape[1]}.")
    found = []
    for pair in combinations(range(len(region.limits)), 2):
        chosen = region.rows[list(pair)]
        if abs(np.linalg.det(chosen)) < 1e-12:
            continue
        point = np.linalg.solve(chosen, region.limits[list(pair)])
        if (region.rows @ point <= region.limits + 1e-7).all():
            found.append(point)
    points = np.array(found)
    middle = points.mean(0)
    order = np.argsort(np.arctan2(*(points - middle).T[::-1]))
    return points[order]


def draw_regions(axes: Any, law: PiecewiseAffine, title: str, names: tuple[str, str] = ("state 1", "state 2")) -> None:
    """Every region in a colour of its own, numbered; facets in white.

    Args:
        axes: of matplotlib.
        law: of two states.
        title: above the picture.
        names: of the states.
    """
    from matplotlib import colormaps

    shades = colormaps["tab10"]
    for place, region in enumerate(law.regions):
        points = corners(region)
        axes.fill(*points.T, color=shades(place % 10), alpha=0.65, edgecolor="white")
        axes.annotate(str(place), points.mean(0), ha="center", va="center", fontsize=8)
    axes.set(title=title, xlabel=names[0], ylabel=names[1])


def draw_law(
    axes: Any,
    control: Callable[[Grid], Grid],
    low: Grid,
    high: Grid,
    title: str,
    names: tuple[str, str] = ("state 1", "state 2"),
    widest: float | None = None,
    points: int = 121,
) -> None:
    """The first number that `control` gives of states [B, 2], as colours over a box.

    Args:
        axes: of matplotlib.
        control: states [B, 2] to numbers [B, m].
        low, high: corners of the box, [2].
        title, names: above and beside the picture.
        widest: the colours run from -widest to widest; the largest value when not given.
        points: along each side.
    """
    sides = [np.linspace(low[k], high[k], points) for k in (0, 1)]
    grid = np.stack(np.meshgrid(*sides), axis=-1)
    values = control(grid.reshape(-1, 2))[:, 0].reshape(points, points)
    reach = float(np.abs(values).max()) if widest is None else widest
    shown = axes.pcolormesh(*sides, values, cmap="RdBu", vmin=-(reach or 1.0), vmax=reach or 1.0, shading="auto")
    axes.figure.colorbar(shown, ax=axes)
    axes.set(title=title, xlabel=names[0], ylabel=names[1])


def change(law: PiecewiseAffine, control: Callable[[Grid], Grid], low: Grid, high: Grid, points: int = 81) -> Grid:
    """Mean |control - law| in each region [p], over a lattice of a box; NaN where no point of it falls.

    Args:
        law: as it was.
        control: states [B, 2] to inputs [B, m], as learnt.
        low, high: corners of the box, [2].
        points: along each side.
    """
    sides = [np.linspace(low[k], high[k], points) for k in (0, 1)]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    index = law.index(grid)
    moved = np.abs(control(grid) - law.evaluate(grid)).mean(-1)
    return np.array([moved[index == k].mean() if (index == k).any() else np.nan for k in range(len(law.regions))])
