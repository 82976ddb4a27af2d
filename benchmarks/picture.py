"""The comparisons of a result at a glance: one bar a comparison, its length the ratio, peers at 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BETTER, WORSE, NEUTRAL = "#228833", "#ee6677", "#4477aa"


def draw(ratios: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Horizontal bars on a logarithmic axis; a black mark is the target. Green where it is met, red where not."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(figsize=(9.5, 0.36 * len(ratios) + 1.3))
    for place, ratio in enumerate(ratios):
        target = ratio["target"]
        colour = NEUTRAL if target is None else BETTER if ratio["ratio"] >= target else WORSE
        axes.barh(place, ratio["ratio"] - 1, 0.6, 1.0, color=colour)
        beyond = max(ratio["ratio"], 1.0, target or 0.0)
        axes.text(beyond * 1.04, place, f"{ratio['ratio']:.2f}", va="center", fontsize=8)
        if target is not None:
            axes.plot([target, target], [place - 0.38, place + 0.38], color="black", linewidth=1.6)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(ratios)), [f"{ratio['work']}  |  {ratio['peer']}" for ratio in ratios], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    found = [number for ratio in ratios for number in (ratio["ratio"], ratio["target"]) if number]
    low, high = min([0.5, *found]), max([2.0, *found])
    axes.set_xlim(low * 0.9, high * 1.3)
    ticks = [tick for tick in (0.25, 0.5, 1, 2, 3, 5, 10, 20, 50) if low * 0.9 <= tick <= high * 1.3]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("how many times better Ascent is (peer = 1); black mark: target")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
