"""The laboratory's picture: how far each baseline points away from the gradient, and how noisy it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ascent.evaluation.exact.statistics import GradientStatistics

INK, SOFT, LINE = "#24292f", "#6e7781", "#d0d7de"
STRAIGHT, TURNED, NOISE = "#1a7f5a", "#c2571a", "#4a6fa5"
UNBIASED = 1e-4
"""Degrees below which a direction is drawn as exact."""


def draw(measured: Sequence[tuple[str, Sequence[tuple[str, GradientStatistics]]]], path: Path) -> None:
    """Write a PNG: a column a problem; above, the angle between E[g] and the gradient, below, noise over signal.

    Args:
        measured: (problem, [(method, statistics)]); every problem has the same methods in the same order.
        path: PNG file; its folder is made.
    """
    rows = max(len(entries) for _, entries in measured)
    figure = Figure(
        figsize=(3.6 * len(measured) + 1.6, 0.27 * 2 * rows + 2.2), dpi=160, facecolor="white", layout="constrained"
    )
    figure.suptitle(
        "Direction and noise of the first step, over every batch that could be drawn",
        fontsize=13,
        color=INK,
        x=0.01,
        ha="left",
    )
    grid = figure.subplots(2, len(measured), squeeze=False)
    for place, (title, entries) in enumerate(measured):
        names = [name for name, _ in entries]
        angles = [found.angle for _, found in entries]
        colours = [STRAIGHT if angle < UNBIASED else TURNED for angle in angles]
        _bars(grid[0, place], names, angles, colours, [_degrees(angle) for angle in angles])
        noise = [found.noise for _, found in entries]
        _bars(grid[1, place], names, noise, [NOISE] * len(noise), [f"{level:.2f}" for level in noise])
        grid[0, place].set_title(title, fontsize=12, fontweight="bold", color=INK, loc="left", pad=10)
        grid[0, place].set_xlabel("angle between mean estimate and gradient", fontsize=9, color=SOFT)
        grid[1, place].set_xlabel("noise of one batch / its signal", fontsize=9, color=SOFT)
        for axes in grid[:, place]:
            axes.tick_params(labelleft=place == 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _degrees(angle: float) -> str:
    return "0" if angle < UNBIASED else f"{angle:.2f}°" if angle < 0.1 else f"{angle:.1f}°"


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[str], texts: Sequence[str]
) -> None:
    places = range(len(names))
    axes.barh(places, values, color=colours, height=0.68)
    top = max(max(values), 1e-9)
    for place, value, text in zip(places, values, texts, strict=True):
        axes.text(value + 0.015 * top, place, text, va="center", ha="left", fontsize=8, color=INK)
    axes.set_yticks(list(places), names, fontsize=9, family="monospace", color=INK)
    axes.set_xlim(0, 1.18 * top)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.invert_yaxis()
    axes.tick_params(length=0, labelsize=8, colors=SOFT)
    axes.tick_params(axis="y", labelsize=9, labelcolor=INK)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(LINE)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
