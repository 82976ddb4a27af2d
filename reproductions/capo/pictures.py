"""What the curvature model sees: rejected tokens, and predicted against realised shift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLOURS = {
    "GRPO": "#24292f",
    "CAPO, Adam model": "#d55e00",
    "CAPO, SGD model": "#e69f00",
    "CAPO, updates": "#cc79a7",
    "random rejection": "#0072b2",
    "conservative GRPO": "#009e73",
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Rejected share by step; m_F by step; realised KL against m_F of the step."""
    figure = Figure(figsize=(13.0, 3.9), dpi=150, facecolor="white", layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name, colour in COLOURS.items():
        runs = [run for words, run in result["runs"].items() if words.startswith(f"{name}, seed")]
        if result["arms"][name]["rejected_so_far"]["mean"] > 0 and name != "CAPO, updates":
            left.plot(np.mean([run["rejected"] for run in runs], 0), color=colour, label=name)
        middle.plot(np.median([run["m_F"] for run in runs], 0), color=colour, label=name)
        predicted = np.concatenate([run["m_F"][:-1] for run in runs])
        moved = np.concatenate([run["realised_kl"][1:] for run in runs])
        right.scatter(predicted, moved, s=6, color=colour, alpha=0.5, label=name)
    left.set(xlabel="step", ylabel="share of tokens rejected", title="Rejected tokens")
    middle.set(xlabel="step", ylabel="mean m_F (median of the seeds)", title="Predicted shift", yscale="log")
    right.set(
        xlabel="mean m_F of a step", ylabel="realised KL", title="Predicted and realised", xscale="log", yscale="log"
    )
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)
