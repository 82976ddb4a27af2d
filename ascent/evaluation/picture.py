"""One picture of one run: held-out score, reward, entropy and divergence by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PANELS = (
    ("reward", "reward of a collected row"),
    ("entropy", "entropy (nats per decision)"),
    ("approximate_kl", "KL of an update (nats per decision)"),
    ("length", "decisions per row"),
    ("covariance", "covariance of log-prob and advantage"),
)


def draw(metrics: Sequence[Mapping[str, Any]], path: Path, title: str, score: str) -> None:
    """Write a PNG from the lines of metrics.jsonl; panels without a number are left out."""
    from matplotlib.figure import Figure

    held_out = f"held_out/{score}"
    reward = "episode_return" if any("episode_return" in line for line in metrics) else "reward"
    rewarded = PANELS[0][1] if reward == "reward" else "return of an episode"
    wanted = ((held_out, f"held-out {score}"), (reward, rewarded), *PANELS[1:])
    panels = [(name, label) for name, label in wanted if _says_something(metrics, name)]
    figure = Figure(figsize=(4.2 * max(len(panels), 1), 3.4), layout="constrained")
    figure.suptitle(title)
    for place, (name, label) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        points = [(line["step"], line[name]) for line in metrics if name in line]
        axes.plot(*zip(*points, strict=True), marker="o" if name == held_out else None, color=f"C{place}")
        axes.set_xlabel("step")
        axes.set_title(label, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _says_something(metrics: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a metric is there and is more than one number up to rounding (one update on policy has no KL)."""
    found = [float(line[name]) for line in metrics if name in line]
    return bool(found) and (name.startswith("held_out/") or max(found) - min(found) > 1e-6)
