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
    "kl": "KL(base, policy) on old skills",
}


def draw(result: dict[str, Any], folder: Path) -> None:
    """arms.png: every arm's scores with intervals, positions that were hit, variance by K."""
    figure = Figure(figsize=(15, 7.4), dpi=130, layout="constrained")
    panels = figure.subplots(2, 3).flatten()
    arms = list(result["arms"])
    for axes, (score, title) in zip(panels, TITLES.items(), strict=False):
        for place, arm in enumerate(arms):
            found = result["arms"][arm][score]
            colour = "#d55e00" if arm.startswith("OTR") else "#0072b2"
            ends = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
            axes.errorbar([found["mean"]], [place], xerr=ends, fmt="o", color=colour, capsize=3)
        axes.set_yticks(range(len(arms)), arms)
        axes.invert_yaxis()
        axes.set_title(title)
        if score == "old":
            skills = ("copy", "sort", "modular")
            axes.axvline(sum(result["base"][name] for name in skills) / len(skills), color="#444444", linestyle="--")
            axes.set_xlabel("dashed: the base model")
        plain(axes)
    for arm in [arm for arm in arms if arm.startswith("OTR") and arm not in ("OTR exact", "OTR beta=0")]:
        curves = torch.tensor(
            [run["curves"]["hit_positions"] for key, run in result["runs"].items() if key.startswith(f"{arm}, ")]
        )
        panels[4].plot(torch.arange(1, curves.shape[1] + 1), curves.mean(0), label=arm)
    panels[4].set(title="positions whose draws hold the true token", xlabel="step", ylim=(0, 1.02))
    panels[4].legend(frameon=False, fontsize=8)
    counts = [int(k) for k in result["variance"]]
    panels[5].plot(counts, list(result["variance"].values()), "o-", color="#d55e00", label="measured")
    first = result["variance"][str(counts[0])]
    panels[5].plot(counts, [first * counts[0] / k for k in counts], "--", color="#444444", label="1 / K")
    panels[5].set(title="gradient variance / |exact gradient|²", xlabel="K", xscale="log", yscale="log")
    panels[5].legend(frameon=False, fontsize=8)
    for axes in panels[4:]:
        plain(axes)
    figure.savefig(folder / "arms.png")


def plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
