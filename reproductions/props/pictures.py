"""The pictures of the experiment, from its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ascent.evaluation.intervals import bounds

GREY, PALE, BLUE, DARK, RED = "#4d4d4d", "#a0a0a0", "#0072b2", "#003f66", "#d55e00"
COLOUR = {
    "on-policy": GREY,
    "ROS, m = 1": "#e69f00",
    "ROS, m = 16": "#cc79a7",
    "PROPS": BLUE,
    "PROPS, no clip": "#56b4e9",
    "PROPS, no KL": "#7a5195",
    "greedy": "#009e73",
    "on-policy, twice the steps": PALE,
    "buffer b = 2": RED,
    "PROPS b = 2": DARK,
    "PPO-Buffer, b = 2": RED,
    "PROPS, b = 2": BLUE,
}


def draw(result: dict[str, Any], folder: Path) -> None:
    """sampling_error.png (A, fixed targets of C) and learning.png (B, learning of C)."""
    figure = Figure(figsize=(13, 4.2), dpi=150, layout="constrained")
    first, *others = figure.subplots(1, 3)
    sizes = result["settings"]["A"]["sizes"]
    for name, found in result["A"].items():
        curve(first, sizes, found["errors"], name)
    choices = 10
    first.plot(sizes[2:], [(choices - 1) / (2 * size) for size in sizes[2:]], "k:", linewidth=1, label="(|A| - 1) / 2N")
    first.set(
        xscale="log", yscale="log", xlabel="actions in the buffer", ylabel="sampling error (nats)", ylim=(1e-5, 1)
    )
    first.set_xticks(sizes, sizes)
    first.set_title("A. fixed 10-armed target, m = 16")
    first.legend(frameon=False, fontsize=7.5, loc="lower left")
    batches = result["settings"]["C"]["fixed_batches"]
    for axes, kind in zip(others, ("trained", "random"), strict=True):
        for name, found in result["C"]["fixed"].items():
            if name.startswith(kind):
                curve(axes, [1024 * number for number in batches], found["errors"], name.partition(", ")[2])
        axes.set(xscale="log", yscale="log", xlabel="actions in the buffer", title=f"C. fixed {kind} target, Pendulum")
        axes.set_xticks([1024 * number for number in batches], [1024 * number for number in batches])
        axes.legend(frameon=False, fontsize=8)
    for axes in (first, *others):
        axes.minorticks_off()
        plain(axes)
    figure.savefig(folder / "sampling_error.png")

    figure = Figure(figsize=(13, 4.2), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    arms = result["B"]
    bars(left, {name: found["won"] for name, found in arms.items()})
    left.set(xlabel="fraction of runs that end in the +1 corner", xlim=(0, 1.12), title="B. 5x5 grid, REINFORCE")
    for name, found in arms.items():
        if "twice" not in name:
            middle.plot(
                np.arange(1, len(found["errors"]) + 1), found["errors"], color=COLOUR[name], label=name, linewidth=1.8
            )
    middle.set(
        xlabel="target update",
        ylabel="sampling error (nats)",
        ylim=(0, None),
        title="B. error of the buffer learnt from",
    )
    middle.legend(frameon=False, fontsize=8)
    bars(right, {name: found["return"] for name, found in result["C"]["learning"].items()}, dots=True)
    right.set(xlabel="return of the final policy", title="C. Pendulum, PPO")
    for axes in (left, middle, right):
        plain(axes)
    figure.savefig(folder / "learning.png")


def curve(axes: Axes, sizes: list[int], rows: list[list[float]], name: str) -> None:
    """Geometric mean over seeds with its 95% interval."""
    logs = np.log(np.maximum(np.asarray(rows), 1e-9))
    low, high = bounds(logs, "curve", name)
    axes.plot(sizes, np.exp(logs.mean(0)), "o-", markersize=3, color=COLOUR[name], label=name, linewidth=1.8)
    axes.fill_between(sizes, np.exp(low), np.exp(high), color=COLOUR[name], alpha=0.15, linewidth=0)


def bars(axes: Axes, found: dict[str, dict[str, Any]], dots: bool = False) -> None:
    """Means as bars with their 95% intervals."""
    for place, (name, one) in enumerate(found.items()):
        error = [[one["mean"] - one["low"]], [one["high"] - one["mean"]]]
        axes.barh(place, one["mean"], color=COLOUR[name], height=0.62, alpha=0.9)
        axes.errorbar(
            one["mean"], place, xerr=np.maximum(error, 0), color="black", capsize=3, linewidth=1.2, fmt="none"
        )
        if dots:
            axes.scatter(
                one["seeds"], [place + 0.18] * len(one["seeds"]), s=14, color="white", edgecolor="black", zorder=3
            )
        else:
            axes.text(max(one["high"], one["mean"]) + 0.02, place, f"{one['mean']:.2f}", va="center", fontsize=9)
    axes.set_yticks(range(len(found)), list(found), fontsize=9)
    axes.invert_yaxis()


def plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
