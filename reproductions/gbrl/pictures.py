"""Success in the room and return on CartPole by steps, every arm's mean and its seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

STUDIES = (
    ("room", 2048, "DoorKey room: share of successes", "success, last 100 episodes"),
    ("pole", 1024, "CartPole-v1", "return, last 100 episodes"),
)


def draw(result: dict[str, Any], folder: Path) -> None:
    """curves.png."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for axes, (study, size, title, label) in zip(panels, STUDIES, strict=True):
        for place, (arm, row) in enumerate(result["studies"][study].items()):
            curves = np.array(row["curves"])
            steps = size * np.arange(1, curves.shape[1] + 1) / 1000
            style = "-" if arm.startswith("trees") else "--"
            axes.plot(steps, curves.mean(0), style, color=f"C{place}", label=arm, linewidth=1.6)
            for curve in curves:
                axes.plot(steps, curve, style, color=f"C{place}", linewidth=0.4, alpha=0.5)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("thousand steps")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(folder / "curves.png", dpi=140)
    plt.close(figure)
