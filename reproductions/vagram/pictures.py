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
    """regression.png, control.png and sweep.png."""
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

    control(result, folder)
    sweep(result, folder)


def control(result: dict[str, Any], folder: Path) -> None:
    """control.png: returns while training goes on, in the small and in the full condition, and model errors there."""
    settings, runs = result["settings"]["B"], result["B"]["runs"]
    cells = {name: "/".join(map(str, settings[name])) for name in ("small", "full")}
    titles = {name: f"{name}: width {settings[name][0]}, {settings[name][1]} distractors" for name in cells}
    figure = Figure(figsize=(14, 3.8), dpi=150, layout="constrained")
    panels = figure.subplots(1, 4)
    for axes, (name, cell) in zip(panels[:2], cells.items(), strict=True):
        for arm in (f"sac/0/{settings[name][1]}", f"mse/{cell}", f"vagram/{cell}"):
            curves, loss = np.array(runs[arm]["curves"]), arm.split("/")[0]
            # An evaluation after k rounds, the first of which is the uniform start.
            rounds = curves[0, :, 0]
            steps = np.where(rounds > 0, settings["shared"]["start"] + (rounds - 1) * settings["block"], 0)
            axes.plot(steps, curves[:, :, 1].T, color=COLOUR[loss], alpha=0.25, linewidth=0.8)
            axes.plot(steps, curves[:, :, 1].mean(0), color=COLOUR[loss], linewidth=2, label=NAME[loss])
        axes.set(title=titles[name], xlabel="environment steps", ylabel="return")
    panels[0].legend(frameon=False, fontsize=8)
    kinds = {"relative_value_error": "value error / variance of V", "one_step_error": "squared one-step error"}
    for axes, (kind, label) in zip(panels[2:], kinds.items(), strict=True):
        places = [(name, loss) for name in cells for loss in ("mse", "vagram")]
        for place, (name, loss) in enumerate(places):
            found = runs[f"{loss}/{cells[name]}"][kind]["seeds"]
            axes.plot([place] * len(found), found, "o", color=COLOUR[loss], alpha=0.7)
        axes.set_xticks(range(len(places)), [f"{NAME[loss]}\n{name}" for name, loss in places], fontsize=8)
        axes.set(ylabel=label, yscale="log")
    for axes in panels:
        plain(axes)
    figure.savefig(folder / "control.png")


def sweep(result: dict[str, Any], folder: Path) -> None:
    """sweep.png: return and relative value error over widths and over distractors, means and every seed."""
    settings, runs = result["settings"]["B"], result["B"]["runs"]
    width, distractors = settings["small"]
    across = {
        "width of the model": sorted((w, f"{w}/{d}") for w, d in settings["cells"] if d == distractors),
        "distractors": sorted((d, f"{w}/{d}") for w, d in settings["cells"] if w == width),
    }
    figure = Figure(figsize=(14, 3.8), dpi=150, layout="constrained")
    panels = figure.subplots(1, 4)
    kinds = {"return": "return", "relative_value_error": "value error / variance of V"}
    for place, (axes, (name, kind)) in enumerate(
        zip(panels, [(name, kind) for name in across for kind in kinds], strict=True)
    ):
        for shift, loss in enumerate(("mse", "vagram")):
            several = [runs[f"{loss}/{cell}"][kind] for _, cell in across[name]]
            places = np.arange(len(several)) + 0.12 * shift - 0.06
            axes.plot(
                places, [found["mean"] for found in several], "-", color=COLOUR[loss], linewidth=2, label=NAME[loss]
            )
            for x, found in zip(places, several, strict=True):
                axes.plot([x] * len(found["seeds"]), found["seeds"], "o", color=COLOUR[loss], alpha=0.6, markersize=4)
        if kind == "return" and name == "distractors":
            means = [runs[f"sac/0/{d}"]["return"]["mean"] for d, _ in across[name]]
            axes.plot(np.arange(len(means)), means, "--", color=COLOUR["sac"], linewidth=1.5, label=NAME["sac"])
        axes.set_xticks(range(len(across[name])), [str(x) for x, _ in across[name]])
        fixed = f"{distractors} distractors" if name.startswith("width") else f"width {width}"
        axes.set(title=fixed, xlabel=name, ylabel=kinds[kind], yscale="linear" if kind == "return" else "log")
        if place in (0, 2):
            axes.legend(frameon=False, fontsize=8)
        plain(axes)
    figure.savefig(folder / "sweep.png")


def plain(axes: Axes) -> None:
    """Without the upper and the right line."""
    axes.spines[["top", "right"]].set_visible(False)
