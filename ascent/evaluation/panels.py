"""Many arms in one picture: score, training reward, entropy and clip fraction side by side, by kind of method.

`draw_ends` shows where every arm ended, a dot and an interval each; `draw_dynamics` shows how it got there, one row of
panels for each kind, so that no panel holds more curves than an eye follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ascent.evaluation.arms import Arm, Curve, check
from ascent.evaluation.curves import band
from ascent.evaluation.dynamics import MEASURES, Measure, summary
from ascent.evaluation.intervals import Interval
from ascent.evaluation.plot import COLOURS, INK, LINE, SOFT
from ascent.evaluation.table import Row, compare_table

MOST = 6  # curves in one panel, besides the reference
WIDTH = 10.0  # inches: what a page shows without shrinking the letters below what is read with ease
EVERYWHERE = (-np.inf, np.inf)


def draw_ends(
    arms: Sequence[Arm],
    path: Path,
    *,
    kinds: Mapping[str, str] | None = None,
    score: str = "score",
    title: str = "",
    limits: tuple[float, float] = EVERYWHERE,
) -> None:
    """Write a PNG: a line for each arm, the best score above; a panel for each number, with 95% intervals.

    Args:
        arms: one or more with different names; the first is the reference, whose numbers are drawn as vertical lines.
        path: PNG file; its folder is made.
        kinds: colour by kind; all alike when not given.
        score: what the arms are compared by.
        title: above the picture, or nothing.
        limits: least and greatest score that can be.
    """
    check(arms)
    rows = {row.name: row for row in compare_table(arms, limits=limits)}
    order = sorted(arms, key=lambda arm: -rows[arm.name].mean)
    colours = _colours(arms, kinds)
    numbers: dict[str, dict[str, Interval | None]] = {
        f"final {score}": {arm.name: Interval(*_bounds(rows[arm.name])) for arm in arms}
    }
    ticks: dict[str, tuple[float, ...]] = {}
    for measure in _drawn(arms):
        numbers[measure.label] = {arm.name: summary(arm, measure.name) for arm in arms}
        ticks[measure.label] = measure.ticks
    figure = _figure(title, 1.5 + 0.27 * len(arms))
    ratios = [1.35, *[1.0] * (len(numbers) - 1)]
    panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False, width_ratios=ratios)[0]
    for axes, (label, found) in zip(panels, numbers.items(), strict=True):
        reference = found[arms[0].name]
        if reference is not None:
            axes.axvline(reference.estimate, color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        for place, arm in enumerate(order):
            number = found[arm.name]
            if number is None:
                axes.text(0.02, place, "–", transform=axes.get_yaxis_transform(), va="center", color=SOFT, fontsize=9)
                continue
            colour = colours[arm.name]
            if np.isfinite(number.low):
                axes.plot((number.low, number.high), (place, place), color=colour, linewidth=2.2, alpha=0.55)
            axes.plot(number.estimate, place, "o", color=colour, markersize=5.5, markeredgecolor="white", zorder=3)
        axes.set_title(label, fontsize=10, color=INK, loc="left")
        axes.margins(x=0.08)
        if ticks.get(label):
            axes.set_xscale("symlog", linthresh=ticks[label][1], linscale=0.5)
            _tick(axes.xaxis, ticks[label])
        else:
            axes.locator_params(axis="x", nbins=4)
        _plain(axes)
        axes.grid(color=LINE, linewidth=0.5)
    panels[0].set_yticks(range(len(order)), [arm.name for arm in order], fontsize=9.5)
    panels[0].tick_params(axis="y", labelcolor=INK)
    panels[0].set_ylim(len(order) - 0.4, -0.6)
    _legend(figure, kinds, colours, arms)
    _save(figure, path)


def draw_dynamics(
    arms: Sequence[Arm],
    path: Path,
    *,
    kinds: Mapping[str, str] | None = None,
    budget: str = "step",
    score: str = "score",
    title: str = "",
    limits: tuple[float, float] = EVERYWHERE,
) -> None:
    """Write a PNG: a row of panels for each kind, mean curves with 95% bands; the reference is dashed in every row.

    Args:
        arms: one or more with different names and curves; the first is the reference.
        path: PNG file; its folder is made.
        kinds: rows by kind where there are more arms than one row shows.
        budget: what the curves' first numbers are.
        score: what the curves' second numbers are.
        title: above the picture, or nothing.
        limits: least and greatest score that can be.
    """
    check(arms)
    drawn = _drawn(arms)
    columns = [Measure("", score, (), limits=limits), *drawn]
    rows = grouped(arms, kinds)
    figure = _figure(title, 0.8 + 1.95 * len(rows))
    grid = figure.subplots(
        len(rows), len(columns) + 1, squeeze=False, sharex=True, width_ratios=[1.0] * len(columns) + [0.72]
    )
    for place, (label, members) in enumerate(rows):
        shown = [(arm, COLOURS[number]) for number, arm in enumerate(members)]
        several = len(rows) > 1
        for axes, measure in zip(grid[place], columns, strict=False):
            name = measure.name
            for arm, colour in ([(arms[0], INK)] if several else []) + shown:
                curves = [run.measures.get(name, []) if name else run.curve for run in arm.seeds]
                if all(curves):
                    _line(axes, curves, colour, arm.name, measure.limits, dashed=several and colour == INK)
            if place == 0:
                axes.set_title(measure.label, fontsize=10, color=INK, loc="left")
            if place == len(rows) - 1:
                axes.set_xlabel(budget, color=SOFT, fontsize=9)
            _plain(axes)
            axes.grid(color=LINE, linewidth=0.5)
            axes.margins(x=0.02)
            axes.locator_params(axis="x", nbins=3)
            if measure.ticks:
                axes.set_yscale("symlog", linthresh=measure.ticks[1], linscale=0.5)
                _tick(axes.yaxis, measure.ticks)
            else:
                axes.locator_params(axis="y", nbins=5)
        _names(grid[place][-1], label, shown, arms[0].name if several else None)
    for number, measure in enumerate(columns):
        _same_range([row[number] for row in grid], -measure.ticks[1] / 4 if measure.ticks else None)
    _save(figure, path)


def grouped(arms: Sequence[Arm], kinds: Mapping[str, str] | None) -> list[tuple[str, list[Arm]]]:
    """Rows of arms that fit into one panel each: one where all do, else by kind, without the reference."""
    parts: dict[str, list[Arm]] = {}
    if len(arms) <= len(COLOURS):
        parts[""] = list(arms)
    else:
        for arm in arms[1:]:
            parts.setdefault(kinds[arm.name] if kinds else "", []).append(arm)
    most = len(COLOURS) if len(arms) <= len(COLOURS) else MOST
    found = []
    for label, members in parts.items():
        count = -(-len(members) // most)
        size = -(-len(members) // count)
        found += [(label, members[start : start + size]) for start in range(0, len(members), size)]
    return found


def _drawn(arms: Sequence[Arm]) -> list[Measure]:
    """The measures that some arm has."""
    return [measure for measure in MEASURES if any(summary(arm, measure.name) is not None for arm in arms)]


def _bounds(row: Row) -> tuple[float, float, float]:
    return row.mean, row.low, row.high


def _colours(arms: Sequence[Arm], kinds: Mapping[str, str] | None) -> dict[str, str]:
    """By kind where there are kinds; in the order in which the arms come."""
    if not kinds:
        return {arm.name: COLOURS[0] for arm in arms}
    order = list(dict.fromkeys(kinds[arm.name] for arm in arms))
    return {arm.name: COLOURS[order.index(kinds[arm.name]) % len(COLOURS)] for arm in arms}


def _legend(figure: Figure, kinds: Mapping[str, str] | None, colours: Mapping[str, str], arms: Sequence[Arm]) -> None:
    named = {kinds[arm.name]: colours[arm.name] for arm in arms} if kinds else {}
    handles = [Line2D([], [], color=colour, marker="o", linewidth=2.2, label=name) for name, colour in named.items()]
    handles.append(Line2D([], [], color=SOFT, linewidth=0.9, linestyle=(0, (4, 3)), label=arms[0].name))
    figure.legend(
        handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=9, labelcolor=INK, handlelength=1.8
    )


def _line(axes: Axes, curves: Sequence[Curve], colour: str, name: str, ends: tuple[float, float], dashed: bool) -> None:
    found = band(curves, "curve", name)
    style = (0, (4, 3)) if dashed else "-"
    axes.plot(found.budget, found.mean, color=colour, linewidth=1.1 if dashed else 1.7, linestyle=style)
    if np.isfinite(found.low).all() and not dashed:
        low, high = np.clip((found.low, found.high), *ends)
        axes.fill_between(found.budget, low, high, color=colour, alpha=0.13, linewidth=0)


def _names(axes: Axes, label: str, shown: Sequence[tuple[Arm, str]], reference: str | None) -> None:
    """The names of a row's curves in their colours, beside them."""
    axes.axis("off")
    lines = [(label, SOFT, "")] if label else []
    lines += [(arm.name, colour, "bold") for arm, colour in shown]
    lines += [(f"{reference} (dashed)", INK, "")] if reference else []
    for place, (text, colour, weight) in enumerate(lines):
        axes.text(
            0.0, 0.97 - 0.125 * place, text, transform=axes.transAxes, color=colour, fontsize=8.5,
            fontweight=weight or "normal", va="top",
        )  # fmt: skip


def _tick(axis: Axis, ticks: Sequence[float]) -> None:
    """These ticks and no others, as plain numbers."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def _same_range(column: Sequence[Axes], least: float | None) -> None:
    """One scale for a column of panels, of what is drawn in them, or from `least` on."""
    used = [axes.get_ylim() for axes in column if axes.lines]
    for axes in column:
        if used:
            axes.set_ylim(min(low for low, _ in used) if least is None else least, max(high for _, high in used))


def _figure(title: str, height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), dpi=160, facecolor="white", layout="constrained")
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold", color=INK, x=0.01, ha="left")
    return figure


def _plain(axes: Axes) -> None:
    axes.tick_params(length=0, labelsize=8.5, colors=SOFT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
