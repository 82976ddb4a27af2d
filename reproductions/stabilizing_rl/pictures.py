"""One picture: the theory, both factors of the ratio, and the reward of every arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

COLOURS = {
    "MiniRL": "#24292f",
    "no engine correction": "#d55e00",
    "length norm": "#0072b2",
    "no mask": "#56b4e9",
    "R2, no mask": "#e69f00",
    "R2": "#8c564b",
    "R3": "#009e73",
    "GRPO": "#cc79a7",
    "CISPO": "#7a5195",
}


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the PNG."""
    figure = Figure(figsize=(14.0, 7.6), dpi=140, facecolor="white", layout="constrained")
    axes = figure.subplots(2, 4)
    _theory(axes[0, 0], result["theory"])
    _sweep(axes[0, 1], result)
    _routes(axes[0, 2], result)
    coarse = result["settings"]["coarse"]
    for place, stale, title in (
        (axes[0, 3], 1, "A: on policy"),
        (axes[1, 0], 2, "B: N = 2"),
        (axes[1, 1], 4, "B: N = 4"),
        (axes[1, 2], 8, "B: N = 8"),
    ):
        _curves(place, result, coarse, stale, title)
    _finals(axes[1, 3], result, coarse)
    for place in axes.flat:
        place.grid(alpha=0.3)
        place.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _theory(axes: Any, theory: dict[str, Any]) -> None:
    styles = {
        "token objective": ("#24292f", "-"),
        "length norm": ("#0072b2", "-"),
        "no engine correction, engines 0.3 apart": ("#d55e00", "--"),
        "token objective, engines 0.3 apart": ("#24292f", "--"),
    }
    for name, (colour, style) in styles.items():
        axes.plot(theory["sizes"], theory[name]["error"], color=colour, linestyle=style, marker="o", ms=3, label=name)
    axes.set(xscale="log", yscale="log", xlabel="distance e", ylabel="relative error of the gradient", ylim=(2e-4, 2))
    axes.set_xticks(theory["sizes"], [f"{size:g}" for size in theory["sizes"]], fontsize=7)
    axes.set_xticks([], minor=True)
    axes.set_title("Enumerated gradients")
    axes.legend(frameon=False, fontsize=6.5)


def _sweep(axes: Any, result: dict[str, Any]) -> None:
    for name in ("MiniRL", "no engine correction"):
        arms = [result["arms"][f"{name}, {engine}, N=1"] for engine in result["settings"]["engines"]]
        kl = [max(arm["engine_kl"]["mean"], 1e-5) for arm in arms]
        final = [arm["final"] for arm in arms]
        spans = [[one["mean"] - one["low"] for one in final], [one["high"] - one["mean"] for one in final]]
        axes.errorbar(
            kl, [one["mean"] for one in final], np.abs(spans), color=COLOURS[name], marker="o", capsize=3, label=name
        )
    axes.set(
        xscale="log",
        xlabel="measured KL(mu, pi_old), at least 1e-5",
        ylabel="final reward",
        title="Engines apart, on policy",
    )
    axes.legend(frameon=False, fontsize=7)


def _routes(axes: Any, result: dict[str, Any]) -> None:
    coarse = result["settings"]["coarse"]
    for name, colour in COLOURS.items():
        arms = [result["arms"].get(f"{name}, {coarse}, N={stale}") for stale in (1, 2, 4, 8)]
        points = [
            (stale, arm["engine_kl"]["mean"])
            for stale, arm in zip((1, 2, 4, 8), arms, strict=True)
            if arm is not None and "engine_kl" in arm
        ]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", ms=4, label=name)
    axes.set(xlabel="N", ylabel="measured KL(mu, pi_old)", xticks=[1, 2, 4, 8], title="Engine gap by arm")
    axes.legend(frameon=False, fontsize=6.5)


def _curves(axes: Any, result: dict[str, Any], coarse: str, stale: int, title: str) -> None:
    for name, colour in COLOURS.items():
        runs = [
            run["reward"] for key, run in result["runs"].items() if key.startswith(f"{name}, {coarse}, N={stale}, seed")
        ]
        if not runs:
            continue
        curve = np.mean(runs, 0)
        width = max(4, stale)
        smooth = np.convolve(curve, np.ones(width) / width, "valid")
        axes.plot(np.arange(width, len(curve) + 1), smooth, color=colour, label=name, lw=1.4)
    axes.set(xlabel="updates", ylabel="reward", ylim=(0, 1), title=title)
    axes.legend(frameon=False, fontsize=6.5)


def _finals(axes: Any, result: dict[str, Any], coarse: str) -> None:
    names = [name for name in result["arms"] if f", {coarse}, " in name]
    for row, name in enumerate(reversed(names)):
        final = result["arms"][name]["final"]
        colour = COLOURS[name.split(f", {coarse}")[0]]
        axes.plot([final["low"], final["high"]], [row, row], color=colour)
        axes.plot(final["seeds"], [row] * len(final["seeds"]), ".", color=colour, ms=4)
        axes.plot(final["mean"], row, "o", color=colour, ms=5)
    labels = [name.replace(f", {coarse}", "") for name in reversed(names)]
    axes.set_yticks(range(len(names)), labels, fontsize=6.5)
    axes.set(xlabel="final reward", title="Means, 95% intervals, seeds")
