"""What the tables and the sampled teams reached on the way, and where they ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {"empty": "tab:grey", "coins": "tab:red", "line": "tab:orange", "complete": "tab:blue"}


def draw(result: dict[str, Any], folder: Path) -> None:
    """tables.png and sampled.png."""
    exact(result["tables"], folder / "tables.png")
    sampled(result["sampled"], folder / "sampled.png")


def exact(tables: dict[str, Any], path: Path) -> None:
    """Mean J / J* by gradient steps, game by game."""
    figure, panels = plt.subplots(1, len(tables), figsize=(3.4 * len(tables), 3.2), layout="constrained")
    for axes, (name, room) in zip(panels, tables.items(), strict=True):
        for arm, row in room["arms"].items():
            axes.plot(room["at"], row["curve"], color=COLOURS[arm], label=arm)
            end = row["end"]
            axes.errorbar(
                room["at"][-1] * 1.03,
                end["mean"],
                yerr=[[end["mean"] - end["low"]], [end["high"] - end["mean"]]],
                color=COLOURS[arm],
                capsize=3,
            )
        axes.set_title("one-shot, 3 x 3" if name == "matrix" else f"coordination, {name} agents", fontsize=10)
        axes.set_xlabel("gradient steps")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("J / J*")
    panels[2].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def sampled(arms: dict[str, Any], path: Path) -> None:
    """Training returns, drawn play and open edges at the end, and how annealing closes the edges."""
    figure, (left, middle, right, closing) = plt.subplots(
        1, 4, figsize=(13.5, 3.4), layout="constrained", gridspec_kw={"width_ratios": [1.3, 1.2, 0.8, 1]}
    )
    for place, (arm, row) in enumerate(arms.items()):
        colour = f"C{place}"
        left.plot(range(1, len(row["curve"]) + 1), row["curve"], color=colour, label=arm)
        for axes, name in ((middle, "drawn"), (right, "open_drawn")):
            found = row[name]
            error = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
            axes.errorbar(found["mean"], -place, xerr=error, fmt="o", color=colour, capsize=3)
            axes.plot(found["seeds"], [-place - 0.25] * len(found["seeds"]), ".", color=colour, alpha=0.4)
        if row["budget"]:
            at = range(1, len(row["budget"]) + 1)
            closing.plot(at, row["open_curve"], color=colour, label="open ratio")
            closing.plot(at, row["budget"], color="black", linestyle=":", label="budget")
    left.set_ylabel("return / optimum")
    left.legend(fontsize=7)
    middle.set_yticks([-place for place in range(len(arms))], list(arms), fontsize=8)
    middle.set_xlabel("drawn play / optimum (dots: seeds)")
    right.set_yticks([])
    right.set_xlabel("open ratio at the end")
    closing.set_title("learned, annealed", fontsize=9)
    closing.legend(fontsize=7)
    for axes in (left, closing):
        axes.set_xlabel("collections of 800 steps")
    for axes in (left, middle, right, closing):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
