"""Returns by steps, TD errors with the laws that fit them, how steady the said spreads are, and estimation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ascent.evaluation.td_errors import Fit, draw_errors

TITLES = {"cartpole": "PPO, noisy CartPole", "pendulum": "SAC, noisy Pendulum"}
STEPS = {"cartpole": 42 * 1024, "pendulum": 48 * 64}
COLOURS = {
    "plain": "tab:grey",
    "base": "black",
    "gd": "tab:orange",
    "iv_gd": "tab:red",
    "ggd": "tab:blue",
    "iv_ggd": "tab:cyan",
    "iev_ggd": "tab:green",
}
HEADS = {"variance": "tab:orange", "shape": "tab:blue", "shape, product": "tab:cyan", "shape and scale": "tab:purple"}


def draw(result: Mapping[str, Any], folder: Path) -> None:
    """returns.png, td_errors.png, steadiness.png and estimation.png."""
    returns(result["worlds"], folder / "returns.png")
    td_errors(result["worlds"], folder / "td_errors.png")
    steadiness(result, folder / "steadiness.png")
    estimation(result["estimation"], folder / "estimation.png")


def returns(worlds: Mapping[str, Any], path: Path) -> None:
    """Mean curves left, mean over the run with its interval and seeds right."""
    figure, rows = plt.subplots(2, 2, figsize=(10, 7), width_ratios=(1.5, 1), layout="constrained")
    for (left, right), (name, world) in zip(rows, worlds.items(), strict=True):
        arms = world["arms"]
        for place, (arm, told) in enumerate(reversed(arms.items())):
            curves = np.array([row["returns"] for row in told["runs"]])
            steps = STEPS[name] * np.arange(1, curves.shape[1] + 1) / curves.shape[1] / 1000
            left.plot(steps, curves.mean(0), "o-", color=COLOURS[arm], label=arm, markersize=3, linewidth=1.6)
            area = told["measures"]["area"]
            right.plot(area["seeds"], [place] * len(area["seeds"]), "o", color=COLOURS[arm], alpha=0.3, markersize=4)
            error = [[area["mean"] - area["low"]], [area["high"] - area["mean"]]]
            right.errorbar(area["mean"], place, xerr=error, fmt="D", color=COLOURS[arm], capsize=3, markersize=5)
        left.set_title(TITLES[name], fontsize=10, loc="left")
        left.set_xlabel("thousand steps")
        left.set_ylabel("held-out return, mean of 5 seeds")
        left.legend(*reversed_legend(left), fontsize=7)
        right.set_yticks(range(len(arms)), list(arms)[::-1], fontsize=8)
        right.set_xlabel("mean return over the run, seeds and 95% interval")
        for axes in (left, right):
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def reversed_legend(axes: Any) -> tuple[list[Any], list[str]]:
    """Lines are drawn from the last arm to the first, and named the other way round."""
    lines, names = axes.get_legend_handles_labels()
    return lines[::-1], names[::-1]


def td_errors(worlds: Mapping[str, Any], path: Path) -> None:
    """Seed 0 of squared errors, of a variance head and of the method, early, halfway and at the end."""
    arms, stages = ("base", "gd", "iev_ggd"), (0, 2, 5)
    rows = [(name, arm) for name in worlds for arm in arms]
    figure, panels = plt.subplots(len(rows), 3, figsize=(11, 2.4 * len(rows)), layout="constrained")
    for line, (name, arm) in zip(panels, rows, strict=True):
        told = worlds[name]["arms"][arm]["runs"][0]["stages"]
        for axes, stage in zip(line, stages, strict=True):
            seen = told[stage]
            law = Fit(**{key: seen[key] for key in ("deviation", "scale", "shape", "gain", "kurtosis")})
            share = (stage + 1) / len(told)
            title = f"after {share:.0%} of the run, excess kurtosis {law.kurtosis:.1f}"
            draw_errors(axes, seen["histogram"], law, title)
        line[0].set_ylabel(f"{TITLES[name]}\n{arm}\n\ndensity", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("TD error minus its mean")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def steadiness(result: Mapping[str, Any], path: Path) -> None:
    """Coefficient of variation of the said spreads, and kurtosis of the TD errors, over training."""
    figure, rows = plt.subplots(2, 2, figsize=(10, 6), layout="constrained")
    for (left, right), (name, world) in zip(rows, result["worlds"].items(), strict=True):
        for arm, told in world["arms"].items():
            runs = told["runs"]
            kurtosis = np.array([[seen["kurtosis"] for seen in row["stages"]] for row in runs])
            stage = np.arange(1, kurtosis.shape[1] + 1) / kurtosis.shape[1]
            right.plot(stage, np.median(kurtosis, 0), "o-", color=COLOURS[arm], label=arm, markersize=3)
            if "variation" not in runs[0]:
                continue
            variation = np.array([row["variation"] for row in runs])
            left.plot(stage, variation.mean(0), "o-", color=COLOURS[arm], label=arm, markersize=3)
            for row in variation:
                left.plot(stage, row, color=COLOURS[arm], linewidth=0.4, alpha=0.5)
        left.set_title(TITLES[name], fontsize=10, loc="left")
        left.set_ylabel("variation of the said spread")
        right.set_ylabel("excess kurtosis of TD errors,\nmedian of seeds")
        right.set_yscale("symlog", linthresh=1)
        for axes in (left, right):
            axes.set_xlabel("share of the run")
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def estimation(laws: Mapping[str, Any], path: Path) -> None:
    """Nats an error on fresh data, and the variation of what is said by training."""
    figure, rows = plt.subplots(2, len(laws), figsize=(11, 6), layout="constrained")
    for column, (law, heads) in enumerate(laws.items()):
        upper, lower = rows[0][column], rows[1][column]
        for place, (head, told) in enumerate(reversed(heads.items())):
            nll = told["measures"]["nll"]
            error = [[nll["mean"] - nll["low"]], [nll["high"] - nll["mean"]]]
            upper.plot(nll["seeds"], [place] * len(nll["seeds"]), "o", color=HEADS[head], alpha=0.3, markersize=4)
            upper.errorbar(nll["mean"], place, xerr=error, fmt="D", color=HEADS[head], capsize=3, markersize=5)
        for head, told in heads.items():
            share = np.arange(1, len(told["variation"]) + 1) / len(told["variation"])
            lower.plot(share, told["variation"], "o-", color=HEADS[head], label=head, markersize=3)
        upper.set_yticks(range(len(heads)), list(heads)[::-1] if column == 0 else [""] * len(heads), fontsize=8)
        upper.set_title(law, fontsize=10, loc="left")
        upper.set_xlabel("nats a fresh error")
        lower.set_xlabel("share of the training")
        for axes in (upper, lower):
            axes.grid(alpha=0.3)
    rows[1][0].set_ylabel("variation of what is said")
    rows[1][0].legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)
