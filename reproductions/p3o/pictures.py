"""The picture of the experiment, from its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

COLOUR = {"PPO": "#0072b2", "P3O-V1": "#d55e00", "P3O-V2": "#cc79a7", "DPO": "#009e73", "RLOO": "#777777"}


def draw(result: dict[str, Any], folder: Path) -> None:
    """frontier.png: the frontier with intervals, the runs behind it, and the effect of a shift."""
    figure = Figure(figsize=(15, 4.6), dpi=130, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    levels = result["settings"]["levels"]
    for place, (name, colour) in enumerate(COLOUR.items()):
        found = [result["frontier"][name][f"{level:g}"] for level in levels]
        shifted = [level + 0.06 * (place - 2) for level in levels]
        ends = [[x["mean"] - x["low"] for x in found], [x["high"] - x["mean"] for x in found]]
        left.errorbar(shifted, [x["mean"] for x in found], yerr=ends, fmt="o-", color=colour, capsize=3, label=name)
        for beta, scores in result["final"][name].items():
            ends = [
                [[scores[k]["mean"] - scores[k]["low"]], [scores[k]["high"] - scores[k]["mean"]]]
                for k in ("kl", "true")
            ]
            middle.errorbar(
                scores["kl"]["mean"],
                scores["true"]["mean"],
                xerr=ends[0],
                yerr=ends[1],
                fmt="o",
                color=colour,
                capsize=2,
            )
            middle.annotate(
                beta,
                (scores["kl"]["mean"], scores["true"]["mean"]),
                fontsize=7,
                xytext=(4, 4),
                textcoords="offset points",
            )
        beta = result["settings"]["betas"][1]
        for suffix, style in (("", "-"), (", shifted", ":")):
            curves = torch.tensor(
                [
                    c
                    for key, c in result["curves"].items()
                    if key.startswith(f"{name}, beta {beta:g}, ") and key.endswith(", shifted") == bool(suffix)
                ]
            )
            right.plot(
                curves[0, :, 0],
                (curves[..., 3] - beta * curves[..., 1]).mean(0),
                style,
                color=colour,
                label=name if not suffix else None,
            )
    left.set(
        xlabel="KL to the reference, at most (nats a string, exact)",
        ylabel="best hidden score (exact)",
        title="frontier",
    )
    middle.set(xlabel="KL to the reference", ylabel="hidden score", title="after the last step (numbers: beta)")
    right.set(
        xlabel="step", ylabel="reward model's score - beta KL", title=f"reward + delta(x), dotted; beta = {beta:g}"
    )
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(folder / "frontier.png")
