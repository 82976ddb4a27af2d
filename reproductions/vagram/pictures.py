"""The pictures of the experiment, from its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOUR = {"mse": "#d55e00", "vagram": "#0072b2", "taylor": "#cc79a7", "itervaml": "#009e73", "sac": "#555555"}
NAME = {"mse": "MSE", "vagram": "VaGraM", "taylor": "Taylor VAML", "itervaml": "IterVAML", "sac": "SAC, no model"}
FLOOR = 1e-6


def draw(result: dict[str, Any], folder: Path) -> None:
    """regression.png and control.png."""
    figure = Figure(figsize=(12, 3.8), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows = result["A"]["rows"]
    ranks = sorted({int(name.split("/")[1]) for name in rows})
    for loss in ("mse", "vagram", "taylor", "itervaml"):
        for axes, name in ((left, "value_error"), (middle, "squared")):
            table = np.array([rows[f"{loss}/{rank}"][name] for rank in ranks]).clip(min=FLOOR)
            axes.plot(ranks, np.median(table, 1), "o-", color=COLOUR[loss], label=NAME[loss])
            axes.fill_between(ranks, table.min(1), table.max(1), color=COLOUR[loss], alpha=0.15, linewidth=0)
    left.set(yscale="log", xlabel="rank of the model (8: full)", ylabel="value error / variance of V")
    middle.set(yscale="log", xlabel="rank of the model (8: full)", ylabel="squared one-step error")
    left.legend(frameon=False, fontsize=8)
    free = result["A"]["free"]
    scales = sorted({float(name.split("/")[1]) for name in free})
    for loss in ("taylor", "vagram"):
        right.plot(
            scales, [free[f"{loss}/{scale:g}"]["error"] for scale in scales], "o-", color=COLOUR[loss], label=NAME[loss]
        )
    limits = [free[f"taylor/{scale:g}"]["limit"] for scale in scales]
    right.plot(scales, limits, "k--", linewidth=1, label="start without its part along g")
    right.set(xscale="log", yscale="log", xlabel="distance of the start", ylabel="error of free predictions at the end")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, middle, right):
        plain(axes)
    figure.savefig(folder / "regression.png")

    figure = Figure(figsize=(12, 3.8), dpi=150, layout="constrained")
    runs = result["B"]["runs"]
    for axes, (name, label) in zip(
        figure.subplots(1, 3),
        {"return": "return", "value_error": "value error of the model", "one_step_error": "one-step error"}.items(),
        strict=True,
    ):
        places = [arm for arm in runs if name in runs[arm]]
        for place, arm in enumerate(places):
            loss = arm.split("/")[1]
            found = runs[arm][name]
            axes.plot([place] * len(found["seeds"]), found["seeds"], "o", color=COLOUR[loss], alpha=0.7)
            axes.plot([place - 0.25, place + 0.25], [found["mean"]] * 2, color=COLOUR[loss], linewidth=2)
        axes.set_xticks(range(len(places)), [f"{NAME[a.split('/')[1]]}\n{a.split('/')[0]}" for a in places], fontsize=8)
        axes.set(ylabel=label, yscale="linear" if name == "return" else "log")
        plain(axes)
    figure.savefig(folder / "control.png")


def plain(axes: Axes) -> None:
    """Without the upper and the right line."""
    axes.spines[["top", "right"]].set_visible(False)
