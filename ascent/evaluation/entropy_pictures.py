"""Pictures of entropy patterns: which tokens fork, what training leaves of the pattern, where temperature matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ascent.evaluation.entropy_patterns import TokenEntropy

INK, SOFT, LINE = "#24292f", "#6e7781", "#d0d7de"
FORK, SURE, OTHER = "#d55e00", "#0072b2", "#009e73"


def figure(title: str, panels: int) -> tuple[Figure, Sequence[Axes]]:
    """An empty picture with `panels` in a row."""
    made = Figure(figsize=(4.6 * panels, 3.9), dpi=150, facecolor="white", layout="constrained")
    made.suptitle(title, fontsize=12, fontweight="bold", color=INK, x=0.01, ha="left")
    axes = made.subplots(1, panels, squeeze=False)[0]
    for one in axes:
        one.tick_params(length=0, labelsize=9, colors=SOFT)
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(LINE)
        one.grid(color=LINE, linewidth=0.6)
        one.set_axisbelow(True)
    return made, list(axes)


def save(made: Figure, path: Path) -> None:
    """Write the PNG; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path)


def tokens(
    entropy: Tensor, levels: Mapping[str, float], ranked: Sequence[TokenEntropy], names: Mapping[int, str], path: Path
) -> None:
    """Histogram of all entropies (logarithmic counts) with percentiles, and the tokens at both ends."""
    made, (left, right) = figure("Which tokens fork", 2)
    left.hist(entropy.cpu().numpy(), bins=60, color=SURE)
    left.set_yscale("log")
    for name, level in levels.items():
        left.axvline(level, color=FORK, linewidth=1)
        left.text(level, left.get_ylim()[1], f" {name}", color=FORK, fontsize=8, va="top", rotation=90)
    left.set_xlabel("entropy of a position (nats)", color=SOFT)
    left.set_ylabel("positions", color=SOFT)
    shown = [*ranked] if len(ranked) <= 20 else [*ranked[:10], *ranked[-10:]]
    places = np.arange(len(shown))
    right.barh(places, [item.entropy for item in shown], color=FORK, height=0.7)
    right.set_yticks(places, [f"{names[item.token]!r} ({item.count})" for item in shown], fontsize=8, color=INK)
    right.invert_yaxis()
    right.set_xlabel("mean entropy where the token was written (nats)", color=SOFT)
    save(made, path)


def survival(
    names: Sequence[str],
    overlaps: Sequence[float],
    changes: Sequence[float],
    percentiles: Mapping[float, Sequence[float]],
    rho: float,
    path: Path,
) -> None:
    """Overlap of the top positions with the base, change of entropy by the base's percentile, percentiles by model."""
    made, (left, middle, right) = figure("What training leaves of the base model's pattern", 3)
    places = np.arange(len(names))
    left.bar(places, overlaps, color=SURE)
    left.axhline(rho, color=FORK, linestyle="--", linewidth=1.2, label="chance")
    left.set_xticks(places, names, fontsize=8)
    left.set_ylim(0, 1.02)
    left.set_ylabel(f"overlap of the top {rho:.0%} positions with the base", color=SOFT)
    left.legend(frameon=False, fontsize=8)
    bins = (np.arange(len(changes)) + 0.5) * 100 / len(changes)
    middle.bar(bins, changes, width=90 / len(changes), color=OTHER)
    middle.set_xlabel("percentile of the base model's entropy", color=SOFT)
    middle.set_ylabel(f"change of entropy to {names[-1]} (nats)", color=SOFT)
    for level, curve in percentiles.items():
        right.plot(places, curve, marker="o", label=f"{level:g}%")
    right.set_xticks(places, names, fontsize=8)
    right.set_ylabel("entropy percentile (nats)", color=SOFT)
    right.legend(frameon=False, fontsize=8)
    save(made, path)


def temperatures(curves: Mapping[str, Sequence[tuple[float, float]]], score: str, path: Path) -> None:
    """Score against the temperature of one kind of position, the other kind at the base temperature."""
    made, (axes,) = figure("Temperature at forks and elsewhere", 1)
    for (name, points), colour in zip(curves.items(), (FORK, SURE, OTHER), strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=name)
    axes.set_xlabel("temperature of these positions (the others at their own)", color=SOFT)
    axes.set_ylabel(score, color=SOFT)
    axes.legend(frameon=False, fontsize=9)
    save(made, path)
