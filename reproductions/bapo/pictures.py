"""The pictures of the experiment, from its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from ascent.evaluation import staleness

COLOUR = {
    "[0.8, 1.2]": "#0072b2",
    "[0.8, 1.28]": "#56b4e9",
    "[0.8, 2.0]": "#009e73",
    "BAPO": "#d55e00",
    "BAPO (code)": "#cc79a7",
}
TRANSFORMER = {arm: COLOUR[arm] for arm in ("[0.8, 1.2]", "[0.8, 1.28]", "BAPO")} | {"fixed mean": "#333333"}


def draw(result: dict[str, Any], folder: Path) -> None:
    """arms.png, staleness.png and diagnosis.png."""
    runs, passes = result["runs"], result["settings"]["passes"]
    figure = Figure(figsize=(15, 7.2), dpi=130, layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    names = ("exact_reward", "exact_entropy", "positive_share", "clip_fraction", "clip_bound_high", "clip_bound_low")
    titles = ("expected reward, exact", "entropy, exact (nats a token)", "share of positive tokens in the loss")
    titles += ("share of tokens clipped", "upper bound on the ratio", "lower bound on the ratio")
    for axes, name, title in zip(panels, names, titles, strict=True):
        for arm, colour in COLOUR.items():
            own = [run["curves"][name] for key, run in runs.items() if key.startswith(f"{arm}, {passes} passes, seed")]
            curves = torch.tensor(own)
            steps = torch.arange(1, curves.shape[1] + 1)
            axes.plot(steps, curves.mean(0), color=colour, label=arm, linewidth=1.8)
            axes.fill_between(steps, curves.amin(0), curves.amax(0), color=colour, alpha=0.12, linewidth=0)
        axes.set(title=title, xlabel="step", yscale="log" if name == "exact_entropy" else "linear")
        plain(axes)
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{passes} passes over each batch: mean and range of the seeds")
    figure.savefig(folder / "arms.png")

    figure = Figure(figsize=(13, 4), dpi=130, layout="constrained")
    for axes, score, title in zip(
        figure.subplots(1, 3),
        ("area", "final", "entropy"),
        ("mean reward over the run", "reward at the end", "entropy at the end (nats)"),
        strict=True,
    ):
        for arm, by in result["staleness"].items():
            places = [int(e) for e in by]
            found = [by[str(e)][score] for e in places]
            axes.plot(places, [x["mean"] for x in found], "o-", color=COLOUR[arm], label=arm)
            axes.fill_between(
                places, [x["low"] for x in found], [x["high"] for x in found], color=COLOUR[arm], alpha=0.15
            )
        axes.set(title=title, xlabel="passes over each batch", xscale="log")
        axes.set_xticks(places, [str(place) for place in places])
        axes.minorticks_off()
        plain(axes)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(folder / "staleness.png")

    found = result["diagnosis"]
    staleness.draw(
        found["buckets"],
        {int(step): row for step, row in found["lengths"].items()},
        {name: torch.tensor(column) for name, column in found["tokens"].items()},
        folder / "diagnosis.png",
        f"[0.8, 1.2] after {passes} passes over the fifth batch",
    )


def draw_transformer(found: dict[str, Any], folder: Path) -> None:
    """transformer.png and transformer_diagnosis.png."""
    names = ("reward", "entropy", "positive_share", "clip_fraction", "clip_bound_high", "clip_bound_low")
    titles = (
        "reward",
        "entropy (nats a token)",
        "positive share of the loss",
        "share clipped",
        "upper bound",
        "lower bound",
    )
    levels = list(found["differences"])
    figure = Figure(figsize=(19, 9), dpi=110, layout="constrained")
    grid = figure.subplots(len(levels), len(names), sharex=True)
    for row, level in zip(grid, levels, strict=True):
        for axes, name, title in zip(row, names, titles, strict=True):
            for arm in found["levels"][level]:
                curves = torch.tensor(
                    [r["curves"][name] for k, r in found["runs"].items() if k.startswith(f"{arm}, {level},")]
                )
                smooth = curves.unfold(1, 5, 1).mean(-1)
                steps = torch.arange(5, curves.shape[1] + 1)
                axes.plot(steps, smooth.mean(0), color=TRANSFORMER[arm], label=arm, linewidth=1.6)
                axes.fill_between(steps, smooth.amin(0), smooth.amax(0), color=TRANSFORMER[arm], alpha=0.1, linewidth=0)
            axes.set_title(f"{level}: {title}", fontsize=10)
            plain(axes)
    grid[0][0].legend(frameon=False, fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("step")
    figure.suptitle("A transformer on stale data: means over 5 steps, mean and range of the seeds")
    figure.savefig(folder / "transformer.png")
    diagnosis = found["diagnosis"]
    staleness.draw(
        diagnosis["buckets"],
        {int(step): row for step, row in diagnosis["lengths"].items()},
        {name: torch.tensor(column) for name, column in diagnosis["tokens"].items()},
        folder / "transformer_diagnosis.png",
        "a transformer, [0.8, 1.2] after 4 passes over the tenth batch",
    )


def plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
