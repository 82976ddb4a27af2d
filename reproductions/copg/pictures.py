"""The pictures of the experiment, from its result."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .strings import LEVELS, TASK_BETA

COLOUR = {"copg": "#0072b2", "dpo": "#d55e00", "ipo": "#009e73", "naive_pg": "#cc79a7"}
NAME = {"copg": "CoPG", "dpo": "DPO", "ipo": "IPO", "naive_pg": "naive PG (b = 0)"}


def draw(result: dict[str, Any], folder: Path) -> None:
    """regret.png and strings.png."""
    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, (arm, found) in enumerate(result["A"].items()):
        curves = torch.tensor(found["every_10_epochs"]).clamp(min=1e-12)
        epochs = torch.arange(10, 10 * curves.shape[1] + 1, 10)
        axes.plot(epochs, curves.mean(0), color=f"C{number}", label=arm, linewidth=1.9)
        axes.fill_between(epochs, curves.amin(0), curves.amax(0), color=f"C{number}", alpha=0.2, linewidth=0)
    axes.axvline(100, color="#999999", linestyle=":", linewidth=1)
    place = {"xycoords": ("data", "axes fraction"), "ha": "center"}
    axes.annotate("the paper's budget", (100, 1.02), fontsize=8, color="#666666", **place)
    axes.set(yscale="log", ylim=(1e-7, 1), xlabel="epoch", ylabel="regret J(pi*) - J(pi)")
    axes.legend(frameon=False, fontsize=9, loc="lower left")
    plain(axes)
    figure.savefig(folder / "regret.png")

    figure = Figure(figsize=(13, 4.2), dpi=150, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    part = result["B"]
    for slug, found in part["methods"].items():
        by_beta = {float(beta): scores for beta, scores in found.items()}
        betas = sorted(by_beta)
        band(left, betas, [by_beta[beta]["gain"] for beta in betas], slug)
        rewards, costs = ([by_beta[beta][score]["mean"] for beta in betas] for score in ("reward", "kl"))
        middle.plot(costs, rewards, "o-", color=COLOUR[slug], label=NAME[slug])
        for beta, cost, reward in zip(betas, costs, rewards, strict=True):
            middle.annotate(
                f"{beta:g}", (cost, reward), textcoords="offset points", xytext=(4, -9), fontsize=7, color=COLOUR[slug]
            )
    for axes in (left, right):
        axes.axhline(1, color="#444444", linestyle="--", linewidth=1, label="optimum")
        axes.axhline(0, color="#444444", linestyle=":", linewidth=1, label="reference")
    left.set(xscale="log", xlabel="beta of the method", title="data of a worse sampler")
    left.set(ylabel=f"gain in J = E R - {TASK_BETA:g} KL, exact", ylim=(-1, 1.1))
    left.set_xticks([0.03, 0.06, 0.125, 0.25, 0.5, 1, 2])
    left.xaxis.set_major_formatter("{x:g}")
    left.minorticks_off()
    middle.set(xlabel="KL to the reference (nats a string), exact", ylabel="expected reward, exact")
    middle.set_title("what the reward costs (numbers: beta)")
    for slug, levels in result["C"].items():
        band(right, range(len(levels)), list(levels.values()), slug)
    right.set_xticks(range(len(LEVELS)), LEVELS)
    right.set_ylim(-0.05, 1.1)
    right.set(xlabel="who wrote the data", ylabel="gain in J, exact", title=f"off-policyness, beta = {TASK_BETA:g}")
    for axes, place in ((left, "lower right"), (middle, "upper left"), (right, (0.02, 0.12))):
        axes.legend(frameon=False, fontsize=8, loc=place)
        plain(axes)
    figure.savefig(folder / "strings.png")


def band(axes: Axes, places: Iterable[float], summaries: list[dict[str, Any]], slug: str) -> None:
    """Means with their 95% intervals."""
    places = list(places)
    axes.plot(places, [found["mean"] for found in summaries], "o-", color=COLOUR[slug], label=NAME[slug], linewidth=1.9)
    low, high = ([found[end] for found in summaries] for end in ("low", "high"))
    axes.fill_between(places, low, high, color=COLOUR[slug], alpha=0.18, linewidth=0)


def plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
