"""The pictures of the experiment, from its result: the arms, the mechanism, the control curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ascent.evaluation.curves import band

INK, SOFT, LINE = "#24292f", "#6e7781", "#d0d7de"
COLOUR = {
    "GRPO": "#24292f",
    "clip-higher": "#56b4e9",
    "entropy bonus": "#009e73",
    "Clip-Cov": "#0072b2",
    "random drop": "#7fb2d9",
    "KL-Cov": "#d55e00",
    "random penalty": "#eeb083",
}
DASHED = {"random drop", "random penalty"}
BANDED = {"GRPO", "Clip-Cov", "KL-Cov"}
SHARES = {"0.0002": "0.02%", "0.002": "0.2%", "0.02": "2%", "0.2": "20%", "0.5": "50%"}


def draw(result: dict[str, Any], folder: Path) -> None:
    """arms.png, mechanism.png and control.png."""
    arms(result, folder / "arms.png")
    mechanism(result, folder / "mechanism.png")
    control(result, folder / "control.png")


def arms(result: dict[str, Any], path: Path) -> None:
    """Entropy and held-out pass@1 of every arm by step, and where they end."""
    figure = Figure(figsize=(13.5, 7.6), dpi=130, facecolor="white", layout="constrained")
    (entropy, score), (entropies, scores) = figure.subplots(2, 2, width_ratios=(1.35, 1.0)).T
    for name in COLOUR:
        runs = list(result["runs"][name].values())
        curve(entropy, [smooth(run["curves"]["entropy"], 3) for run in runs], name)
        curve(score, [smooth(run["curves"]["reward"], 5) for run in runs], name)
    entropy.set(yscale="log", ylabel="entropy, nats a token")
    entropy.yaxis.set_major_formatter("{x:g}")
    entropy.yaxis.set_minor_formatter("{x:g}")
    entropy.set_title("Policy entropy (means of 3 steps, 95% bands of three arms)", **LEFT)
    score.set(ylabel="mean reward", xlabel="step")
    score.set_title("Reward of the collected responses (means of 5 steps)", **LEFT)
    score.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right", ncols=2)
    last = result["settings"]["last"]
    ends(entropies, result, "final_entropy", f"Final entropy (mean of the last {last} steps)")
    ends(scores, result, "pass@1", "Final held-out pass@1")
    figure.savefig(path)


LEFT: dict[str, Any] = {"loc": "left", "fontsize": 11, "fontweight": "bold", "color": INK}


def smooth(values: Sequence[float], width: int) -> list[tuple[float, float]]:
    """(step, mean of `width` steps around it); steps count from 1."""
    half = width // 2
    return [
        (place + 1.0, float(np.mean(values[max(place - half, 0) : place + half + 1]))) for place in range(len(values))
    ]


def curve(axes: Axes, curves: list[list[tuple[float, float]]], name: str) -> None:
    """Mean over seeds, and for the arms that matter most a 95% band."""
    found = band(curves, "curve", name)
    axes.plot(
        found.budget, found.mean, color=COLOUR[name], label=name, linewidth=1.8, ls="--" if name in DASHED else "-"
    )
    if name in BANDED and np.isfinite(found.low).all():
        # A widened band of few seeds may pass 0, which no logarithm shows, and 1, which no reward does.
        low, high = np.maximum(found.low, 0.5 * found.mean), np.minimum(found.high, 1.0)
        axes.fill_between(found.budget, low, high, color=COLOUR[name], alpha=0.12, linewidth=0)
    axes.margins(x=0.01)
    plain(axes)


def ends(axes: Axes, result: dict[str, Any], score: str, title: str) -> None:
    """Mean, 95% interval and every seed of each arm; the line is GRPO's mean."""
    found = result["claims"]["final"]["arms"]
    for place, name in enumerate(COLOUR):
        point(axes, place, found[name][score], COLOUR[name])
    axes.axvline(found["GRPO"][score]["mean"], color=SOFT, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(COLOUR)), list(COLOUR), fontsize=9)
    axes.invert_yaxis()
    axes.set_title(title, **LEFT)
    plain(axes)
    axes.tick_params(axis="y", labelcolor=INK)


def point(axes: Axes, place: float, found: dict[str, Any], colour: str) -> None:
    seeds = found["seeds"]
    axes.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2)
    axes.plot(found["mean"], place, "o", color=colour, markersize=8)
    axes.plot(seeds, np.full(len(seeds), place + 0.22), "o", color="white", markeredgecolor=SOFT, markersize=4)
    text = f"{found['mean']:.4f}" if found["mean"] < 0.1 else f"{found['mean']:.3f}"
    axes.annotate(
        text,
        (max(found["high"], *seeds), place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=INK,
    )
    axes.margins(x=0.2)


def mechanism(result: dict[str, Any], path: Path) -> None:
    """GRPO: covariance and fall of entropy, extreme tokens, difficulty, and the law."""
    figure = Figure(figsize=(13.5, 7.6), dpi=130, facecolor="white", layout="constrained")
    (cause, law), (extreme, difficulty) = figure.subplots(2, 2, width_ratios=(1.35, 1.0)).T
    runs = list(result["runs"]["GRPO"].values())
    window = result["settings"]["window"]
    entropy, drive = (np.array([run["curves"][name] for run in runs]) for name in ("entropy", "covariance"))
    kernel = np.ones(window) / window
    level = np.stack([np.convolve(row, kernel, "valid") for row in entropy])
    fall = level[:, :-window] - level[:, window:]
    push = np.stack([np.convolve(row, np.ones(2 * window) / (2 * window), "valid") for row in drive])
    steps = np.arange(fall.shape[1]) + window + 0.5
    for row, of in zip(fall / window, push, strict=True):
        cause.plot(steps, of, color="#d55e00", alpha=0.25, linewidth=1)
        cause.plot(steps, scale(push, fall / window) * row, color="#0072b2", alpha=0.25, linewidth=1)
    cause.plot(steps, push.mean(0), color="#d55e00", linewidth=2.2, label="mean covariance of a token")
    factor = scale(push, fall / window)
    cause.plot(
        steps,
        factor * fall.mean(0) / window,
        color="#0072b2",
        linewidth=2.2,
        label=f"fall of entropy a step, times {factor:.0f}",
    )
    cause.axhline(0, color=SOFT, linewidth=0.8)
    cause.legend(frameon=False, fontsize=9, labelcolor=INK)
    number = result["claims"]["covariance"]
    cause.set_title(f"GRPO: covariance and fall of entropy (correlation {number['of the mean curves']:.2f})", **LEFT)
    cause.set_xlabel("step")
    plain(cause)
    fitted(law, result, entropy)
    bars(extreme, number["means"], [(f"covariance_top/{key}", label) for key, label in SHARES.items()])
    extreme.set(xlabel="greatest covariances of an update: share of its tokens (0.2% is one token)", yscale="log")
    extreme.yaxis.set_major_formatter("{x:g}")
    extreme.set_title("GRPO: few tokens carry the covariance", **LEFT)
    levels = [(f"response_covariance/accuracy_{key}", key) for key in ("0.125", "0.5", "0.875")]
    bars(difficulty, number["means"], [level for level in levels if level[0] in number["means"]])
    difficulty.set(xlabel="accuracy of the group, nearest to")
    difficulty.set_title("GRPO: covariance between responses", **LEFT)
    figure.savefig(path)


def scale(push: Any, fall: Any) -> float:
    """What brings the fall to the height of the covariance."""
    return float(np.abs(push.mean(0)).max() / np.abs(fall.mean(0)).max())


def fitted(axes: Axes, result: dict[str, Any], entropy: Any) -> None:
    """R against H of every step and seed, the law of all steps and that of the first 15%."""
    found = result["claims"]["law"]
    reward = np.array([run["curves"]["reward"] for run in result["runs"]["GRPO"].values()])
    first = round(0.15 * reward.shape[1])
    axes.plot(entropy[:, first:].ravel(), reward[:, first:].ravel(), "o", color="#0072b2", alpha=0.35, markersize=4)
    axes.plot(entropy[:, :first].ravel(), reward[:, :first].ravel(), "o", color="#d55e00", alpha=0.6, markersize=4)
    grid = np.linspace(0, entropy.max(), 100)
    for prefix, colour, label in (("", "#0072b2", "law of all steps"), ("early ", "#d55e00", "law of the first 15%")):
        a, b = found[f"{prefix}a"]["mean"], found[f"{prefix}b"]["mean"]
        axes.plot(grid, b - a * np.exp(grid), color=colour, linewidth=2, label=f"{label}: {b:.2f} - {a:.2f} exp(H)")
    axes.set(xlabel="entropy H, nats a token", ylabel="reward of a step", ylim=(min(0.3, reward.min() - 0.02), 1.12))
    axes.set_title(f"GRPO: R = b - a exp(H), R² {found['R2']['mean']:.2f} by seed", **LEFT)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
    plain(axes)


def bars(axes: Axes, found: dict[str, Any], names: list[tuple[str, str]]) -> None:
    means = [found[name]["mean"] for name, _ in names]
    error = [
        [found[name]["mean"] - found[name]["low"] for name, _ in names],
        [found[name]["high"] - found[name]["mean"] for name, _ in names],
    ]
    axes.bar([label for _, label in names], means, width=0.6, color="#0072b2", yerr=error, ecolor=INK, capsize=3)
    for place, value in enumerate(means):
        axes.annotate(
            f"{value:.3g}",
            (place, value + error[1][place]),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=INK,
        )
    axes.margins(y=0.15)
    plain(axes)
    axes.grid(visible=False, axis="x")


def control(result: dict[str, Any], path: Path) -> None:
    """Final entropy and pass@1 by the strength of each remedy; 0 is GRPO."""
    figure = Figure(figsize=(10.5, 6.4), dpi=130, facecolor="white", layout="constrained")
    grid = figure.subplots(2, len(result["claims"]["sweeps"]), sharex="col")
    names = {"clip_fraction": "share r of the tokens", "kl_coefficient": "coefficient beta"}
    for column, (title, found) in enumerate(result["claims"]["sweeps"].items()):
        levels = found["levels"]
        ticks = ["0 (GRPO)" if item["level"] == 0 else f"{item['level']:g}" for item in levels]
        for row, score in enumerate(("final_entropy", "pass@1")):
            axes = grid[row, column]
            means, low, high = (np.array([item[score][name] for item in levels]) for name in ("mean", "low", "high"))
            axes.errorbar(
                range(len(levels)),
                means,
                yerr=[means - low, high - means],
                fmt="o-",
                color=COLOUR[title],
                capsize=3,
                linewidth=1.8,
            )
            for place, item in enumerate(levels):
                seeds = item[score]["seeds"]
                axes.plot(
                    np.full(len(seeds), place + 0.09), seeds, "o", color="white", markeredgecolor=SOFT, markersize=4
                )
            if "control" in found:
                other, place = found["control"][score], len(levels) - 0.85
                error = [[other["mean"] - other["low"]], [other["high"] - other["mean"]]]
                style = {"fmt": "s", "color": COLOUR["random drop"], "capsize": 3, "label": "as many at random"}
                axes.errorbar([place], [other["mean"]], yerr=error, **style)
                axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper left" if row == 0 else "lower left")
            axes.set_xticks(range(len(levels)), ticks)
            plain(axes)
        grid[0, column].set_title(title, **LEFT)
        grid[1, column].set_xlabel(names[found["parameter"]])
    grid[0, 0].set_ylabel("final entropy, nats a token")
    grid[1, 0].set_ylabel("final held-out pass@1")
    figure.savefig(path)


def plain(axes: Axes) -> None:
    axes.tick_params(which="both", length=0, labelsize=9, colors=SOFT)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
