"""The picture of the experiment, from its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

TITLES = {
    "target": "new skill, exact match",
    "shifted": "new skill, two large numbers",
    "old": "old skills, exact match",
    "odd": "probability of odd letters (0.2 in the data)",
}
COLOUR = {"SFT": "#0072b2", "DFT": "#009e73", "OTR": "#d55e00"}


def draw(result: dict[str, Any], folder: Path) -> None:
    """arms.png: every arm's scores with intervals, what is kept at each in-domain accuracy, positions hit, variance."""
    figure = Figure(figsize=(20, 8), dpi=110, layout="constrained")
    panels = figure.subplots(2, 4).flatten()
    arms = list(result["arms"])
    for axes, (score, title) in zip(panels, TITLES.items(), strict=False):
        for place, arm in enumerate(arms):
            found = result["arms"][arm][score]
            colour = "#d55e00" if arm.startswith("OTR") else "#0072b2" if arm in COLOUR else "#777777"
            ends = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
            axes.errorbar([found["mean"]], [place], xerr=ends, fmt="o", color=colour, capsize=3)
        axes.set_yticks(range(len(arms)), arms)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.axvline(result["base"][score], color="#444444", linestyle="--")
        axes.set_xlabel("dashed: the base model")
        plain(axes)
    for axes, score in zip(panels[4:6], ("old", "shifted"), strict=True):
        for arm, by in result["frontier"].items():
            places = [found["target"]["mean"] for found in by.values()]
            heights = [found[score]["mean"] for found in by.values()]
            axes.plot(places, heights, "o-", color=COLOUR[arm], label=arm)
        own = result["arms"]["OTR"]
        axes.plot([own["target"]["mean"]], [own[score]["mean"]], "D", color=COLOUR["OTR"], label="OTR")
        axes.plot([result["base"]["target"]], [result["base"][score]], "k*", label="base model")
        axes.set(title=f"{TITLES[score]}, three rates", xlabel=TITLES["target"])
        axes.legend(frameon=False, fontsize=8)
    for arm in [arm for arm in arms if arm.startswith("OTR") and arm not in ("OTR exact", "OTR beta=0")]:
        curves = torch.tensor(
            [
                run["curves"]["hit_positions"]
                for key, run in result["runs"].items()
                if key.startswith(f"{arm}, rate {result['settings']['rates']['OTR']:g}")
            ]
        )
        panels[6].plot(torch.arange(1, curves.shape[1] + 1), curves.mean(0), label=arm)
    panels[6].set(title="positions whose draws hold the true token", xlabel="step", ylim=(0, 1.02))
    panels[6].legend(frameon=False, fontsize=8)
    counts = [int(k) for k in result["variance"]]
    panels[7].plot(counts, list(result["variance"].values()), "o-", color="#d55e00", label="measured")
    first = result["variance"][str(counts[0])]
    panels[7].plot(counts, [first * counts[0] / k for k in counts], "--", color="#444444", label="1 / K")
    panels[7].set(title="gradient variance / |exact gradient|²", xlabel="K", xscale="log", yscale="log")
    panels[7].legend(frameon=False, fontsize=8)
    for axes in panels[4:]:
        plain(axes)
    figure.savefig(folder / "arms.png")


def plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
