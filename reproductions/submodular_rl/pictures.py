"""The shares of the best known walk, how they were learnt, and the walks themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from ascent.evaluation.maps import draw_walk
from ascent.worlds.submodular.maps import MAPS


def draw(result: dict[str, Any], folder: Path) -> None:
    """shares.png, learning.png and walks.png."""
    shares(result, folder / "shares.png")
    learning(result, folder / "learning.png")
    walks(result, folder / "walks.png")


def shares(result: dict[str, Any], path: Path) -> None:
    """Every arm's mean and 95% interval, map by map."""
    studies = result["studies"]
    heights = [len(study["arms"]) for study in studies.values()]
    figure, panels = plt.subplots(
        len(studies),
        1,
        figsize=(7.5, 0.32 * sum(heights) + 0.55 * len(studies)),
        sharex=True,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for axes, (name, study) in zip(panels, studies.items(), strict=True):
        arms = list(study["arms"])[::-1]
        for place, arm in enumerate(arms):
            row = study["arms"][arm]
            error = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            colour = "tab:orange" if "ModPO" in arm else "tab:green" if arm.startswith("to go") else "tab:blue"
            axes.errorbar(row["mean"], place, xerr=error, fmt="o", color=colour, capsize=3)
        axes.axvline(study["greedy_planner"], color="grey", linestyle=":", linewidth=1)
        axes.set_yticks(range(len(arms)), arms, fontsize=8)
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.set_title(name, fontsize=9, loc="left")
        axes.grid(axis="x", alpha=0.3)
    panels[-1].set_xlabel("F of the policy's walks / best known (dotted: greedy planner)")
    panels[-1].set_xlim(0, 1.05)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def learning(result: dict[str, Any], path: Path) -> None:
    """Mean curves of F on the maps with several estimators."""
    names = ("Coverage", "TwoRooms", "GreedyTrap")
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    for axes, name in zip(panels, names, strict=True):
        for arm, row in result["studies"][name]["arms"].items():
            axes.plot(range(1, len(row["curve"]) + 1), row["curve"], label=arm, linewidth=1.4)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step of 32 walks")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    panels[0].set_ylabel("F / best known, mean of 10 seeds")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def walks(result: dict[str, Any], path: Path) -> None:
    """The most likely walk of seed 0: additive worth, marginal gains, and the best known."""
    names = ("Coverage", "InformativePath", "Biodiversity", "TwoRooms", "GreedyTrap")
    sizes = [MAPS[name]() for name in names]
    heights = [ground.rows / ground.columns for ground in sizes]
    figure, panels = plt.subplots(
        len(names),
        3,
        figsize=(9, 3.1 * sum(heights) + 0.3 * len(names)),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for row, name in zip(panels, names, strict=True):
        study, ground = result["studies"][name], MAPS[name]()
        left = "ModPO" if "ModPO" in study["arms"] else "greedy"
        right = "to go, history" if name == "TwoRooms" else "to go"
        for axes, arm in zip(row, (left, right), strict=False):
            own = study["arms"][arm]
            draw_walk(
                axes, ground, own["path"], f"{name}: {arm}, {ground.worth(own['path']) / study['best_known']:.2f}"
            )
        worth = ground.worth(study["best_path"]) / study["best_known"]
        draw_walk(row[2], ground, study["best_path"], f"{name}: planner, {worth:.2f}")
    figure.savefig(path, dpi=110)
    plt.close(figure)
