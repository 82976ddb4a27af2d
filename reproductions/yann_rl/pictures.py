"""Held-out costs by episode, and the pendulum's regions, law and what learning added to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import ascent
from ascent.evaluation.regions import draw_law, draw_regions
from ascent.systems.yann_rl import controller
from ascent.worlds.regulated import ClippedPendulum, SafetyReactor

PLANTS = {
    "pendulum": (ClippedPendulum, ("angle (rad)", "speed (rad/s)")),
    "reactor": (SafetyReactor, ("concentration (mol/L)", "temperature (K)")),
}

COLOURS = {"YANN-DDPG": "C0", "YANN actor, random critic": "C1", "DDPG, noise 0.1": "C2"}


def draw(result: dict[str, Any], folder: Path) -> None:
    """costs.png and regions.png."""
    costs(result, folder / "costs.png")
    regions(result, folder / "regions.png")


def costs(result: dict[str, Any], path: Path) -> None:
    """Every seed a thin line, the mean a thick one; dashed is predictive control."""
    studies = result["studies"]
    figure, panels = plt.subplots(1, len(studies), figsize=(12, 4.2), layout="constrained")
    for axes, (plant, study) in zip(panels, studies.items(), strict=True):
        for arm, row in study["arms"].items():
            for curve in row["curves"]:
                axes.plot(row["episodes"], curve, color=COLOURS[arm], linewidth=0.6, alpha=0.5)
            axes.plot(row["episodes"], np.mean(row["curves"], 0), color=COLOURS[arm], linewidth=2, label=arm)
        axes.axhline(study["predictive_control"], color="black", linestyle="--", label="predictive control")
        axes.set(title=plant, xlabel="training episodes", yscale="log")
        axes.legend(fontsize=8)
    panels[0].set_ylabel("mean cost of 20 held-out episodes")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def regions(result: dict[str, Any], path: Path) -> None:
    """Regions, the law that they carry, and the first seed's addition to it."""
    figure, panels = plt.subplots(len(PLANTS), 3, figsize=(12.5, 7.5), layout="constrained")
    for line, (plant, (make, names)) in zip(panels, PLANTS.items(), strict=True):
        design = make().design()
        law = controller(design, ascent.method("yann_rl")).law
        low, high = design.state_limits
        draw_regions(line[0], law, f"{plant}: critical regions", names)
        draw_law(line[1], law.evaluate, low, high, "law of predictive control", names)
        row = result["studies"][plant]["arms"]["YANN-DDPG"]
        grid = np.array(row["added"])
        sides = [np.linspace(low[k], high[k], len(grid)) for k in (0, 1)]
        reach = float(np.abs(grid).max()) or 1.0
        shown = line[2].pcolormesh(*sides, grid, cmap="PuOr", vmin=-reach, vmax=reach, shading="auto")
        figure.colorbar(shown, ax=line[2])
        line[2].set(title="added by learning (seed 0)", xlabel=names[0], ylabel=names[1])
    figure.savefig(path, dpi=130)
    plt.close(figure)
