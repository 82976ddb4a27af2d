"""Walks drawn on the map that they collect from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ascent.worlds.submodular.maps import Map


def draw_walk(axes: Any, ground: Map, path: Sequence[int], title: str) -> None:
    """The ground in grey, walls in black, the walk from green to red; every visited cell a dot, larger if revisited.

    Args:
        axes: of matplotlib.
        ground: the map.
        path: cell numbers in order of their visit.
        title: above the map.
    """
    picture = ground.picture if ground.picture.size else np.zeros(ground.cells)
    axes.imshow(picture.reshape(ground.rows, ground.columns), cmap="Greys", alpha=0.6)
    if ground.walls is not None:
        shown = np.ma.masked_where(~ground.walls, np.ones(ground.cells)).reshape(ground.rows, ground.columns)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=10)
    rows, columns = np.divmod(np.asarray(path), ground.columns)
    # Steps that pass the same cells again are shifted a little, so that a way back shows beside the way there.
    shift = np.linspace(-0.16, 0.16, len(path))
    colours = _colours(len(path))
    for step in range(len(path) - 1):
        axes.plot(
            columns[step : step + 2] + shift[step : step + 2],
            rows[step : step + 2] + shift[step : step + 2],
            color=colours[step],
            linewidth=2,
        )
    cells, visits = np.unique(np.asarray(path), return_counts=True)
    axes.scatter(cells % ground.columns, cells // ground.columns, s=8 + 14 * (visits - 1), color="black", zorder=3)
    axes.scatter(columns[0], rows[0], marker="s", s=45, facecolors="none", edgecolors="green", linewidths=2, zorder=4)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _colours(count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["RdYlGn_r"](np.linspace(0.0, 1.0, max(count, 2)))
