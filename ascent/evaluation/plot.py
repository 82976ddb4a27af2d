"""A comparison as one picture: learning curves with bands, final scores with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ascent.evaluation.arms import Arm
from ascent.evaluation.curves import band
from ascent.evaluation.table import Row, compare_table

INK, SOFT, LINE = "#24292f", "#6e7781", "#d0d7de"
# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#4d4d4d")


def plot(
    arms: Sequence[Arm],
    path: Path,
    *,
    budget: str = "step",
    score: str = "score",
    title: str = "",
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Write a PNG: left the mean curve of each arm with its 95% band, right its final mean, interval and seeds.

    Args:
        arms: one or more with different names; arms whose runs have no curve appear on the right only.
        path: PNG file; its folder is made.
        budget: what the curves' first numbers are.
        score: what the curves' second numbers and the final scores are.
        title: above the picture, or nothing.
        limits: least and greatest score that can be (0 and 1 of a share); bands and intervals end there.
    """
    rows = compare_table(arms, limits=limits)
    drawn = [arm for arm in arms if all(run.curve for run in arm.seeds)]
    figure = Figure(figsize=(10.5, max(3.6, 1.6 + 0.45 * len(arms))), dpi=160, facecolor="white", layout="constrained")
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold", color=INK, x=0.01, ha="left")
    ratios = [1.7, 1.0] if drawn else [0.01, 1.0]
    left, right = figure.subplots(1, 2, width_ratios=ratios)
    colours = {arm.name: COLOURS[place % len(COLOURS)] for place, arm in enumerate(arms)}
    if drawn:
        _curves(left, drawn, colours, limits)
        left.set_xlabel(budget, color=SOFT)
        left.set_ylabel(score, color=SOFT)
    else:
        left.set_visible(False)
    _finals(right, arms, rows, colours)
    right.set_xlabel(f"final {score}", color=SOFT)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _curves(axes: Axes, arms: Sequence[Arm], colours: dict[str, str], limits: tuple[float, float]) -> None:
    for arm in arms:
        found = band([run.curve for run in arm.seeds], "curve", arm.name)
        axes.plot(found.budget, found.mean, color=colours[arm.name], linewidth=1.9, label=arm.name)
        if np.isfinite(found.low).all():
            axes.fill_between(
                found.budget,
                *np.clip((found.low, found.high), *limits),
                color=colours[arm.name],
                alpha=0.16,
                linewidth=0,
            )
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.margins(x=0.01)
    _plain(axes)
    axes.grid(color=LINE, linewidth=0.6)


def _finals(axes: Axes, arms: Sequence[Arm], rows: Sequence[Row], colours: dict[str, str]) -> None:
    places = range(len(arms))
    axes.barh(places, [row.mean for row in rows], color=[colours[row.name] for row in rows], height=0.6)
    shown = [[row.mean, *(run.final for run in arm.seeds), *_known(row)] for arm, row in zip(arms, rows, strict=True)]
    pad = 0.03 * max(max(abs(number) for numbers in shown for number in numbers), 1e-12)
    for place, arm, row, numbers in zip(places, arms, rows, shown, strict=True):
        if _known(row):
            error = [[max(row.mean - row.low, 0.0)], [max(row.high - row.mean, 0.0)]]
            axes.errorbar(row.mean, place, xerr=error, color=INK, capsize=4, linewidth=1.5, fmt="none")
        below = np.full(len(arm.seeds), place + 0.2)
        axes.scatter(
            [run.final for run in arm.seeds], below, s=14, color="white", edgecolor=INK, linewidth=0.8, zorder=3
        )
        outside, align = (max(numbers) + pad, "left") if row.mean >= 0 else (min(numbers) - pad, "right")
        axes.text(outside, place, f"{row.mean:.3g}", va="center", ha=align, fontsize=9, color=INK)
    axes.set_yticks(list(places), [row.name for row in rows], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    _plain(axes)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="x", color=LINE, linewidth=0.6)


def _known(row: Row) -> tuple[float, ...]:
    """The bounds of the mean, if there are any."""
    return (row.low, row.high) if np.isfinite(row.low) else ()


def _plain(axes: Axes) -> None:
    axes.tick_params(length=0, labelsize=9, colors=SOFT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.set_axisbelow(True)
