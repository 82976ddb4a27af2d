"""What stale data do to a clipped objective: who supplies the loss, and which tokens the clip would cut.

The three diagnostics of BAPO (arXiv 2510.18927, sections 2 and 3): probability by bucket of the importance ratio, for
positive and negative tokens apart; mean length of positive and negative responses; and every token by probability,
ratio and entropy.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation

EDGES = (0.0, 0.5, 0.8, 0.95, 1.05, 1.2, 2.0, float("inf"))
"""Buckets of the ratio; the clip of [0.8, 1.2] cuts outside the middle."""


def by_ratio(evaluation: Evaluation, decisions: Decisions, edges: Sequence[float] = EDGES) -> list[dict[str, float]]:
    """Tokens and their mean probability under the sampler by bucket of pi / pi_behaviour.

    Args:
        evaluation: `log_prob` now.
        decisions: credited, with `behaviour_log_prob`.
        edges: increasing; bucket i is [edges[i], edges[i + 1]).

    Returns:
        For each bucket low, high, and for positive and negative tokens their `count`, mean `probability` (NaN where
        there is none) and share of that sign's tokens.
    """
    kept = decisions.mask
    ratio = (evaluation.log_prob.detach() - decisions.behaviour_log_prob)[kept].exp()
    chance, advantage = decisions.behaviour_log_prob[kept].exp(), decisions.advantage[kept]
    table = []
    for low, high in itertools.pairwise(edges):
        row = {"low": float(low), "high": float(high)}
        for name, sign in (("positive", advantage > 0), ("negative", advantage < 0)):
            inside = sign & (ratio >= low) & (ratio < high)
            count = int(inside.sum())
            row[f"{name}_count"] = count
            row[f"{name}_share"] = count / max(int(sign.sum()), 1)
            row[f"{name}_probability"] = float(chance[inside].mean()) if count else float("nan")
        table.append(row)
    return table


def lengths(decisions: Decisions) -> dict[str, float]:
    """Mean number of decisions of rows with positive and with negative advantage, and the share of positive rows.

    A row's sign is that of its summed advantage. Without rows of a sign its length is NaN.
    """
    total = torch.where(decisions.mask, decisions.advantage, 0.0).sum(1)
    length = decisions.mask.sum(1).double()
    found: dict[str, float] = {}
    for name, rows in (("positive", total > 0), ("negative", total < 0)):
        found[name] = float(length[rows].mean()) if bool(rows.any()) else float("nan")
    signed = int((total != 0).sum())
    return found | {"positive_rows": float((total > 0).sum()) / max(signed, 1)}


def tokens(evaluation: Evaluation, decisions: Decisions, most: int = 4000) -> dict[str, Tensor]:
    """`probability`, `ratio`, `entropy` and `advantage` [M] of at most `most` decided tokens, evenly taken."""
    kept = decisions.mask
    columns = {
        "probability": decisions.behaviour_log_prob[kept].exp(),
        "ratio": (evaluation.log_prob.detach() - decisions.behaviour_log_prob)[kept].exp(),
        "entropy": evaluation.entropy.detach()[kept],
        "advantage": decisions.advantage[kept],
    }
    every = max(-(-int(kept.sum()) // most), 1)
    return {name: column[::every] for name, column in columns.items()}


def draw(
    buckets: Sequence[Mapping[str, float]],
    by_step: Mapping[int, Mapping[str, float]],
    scatter: Mapping[str, Tensor],
    path: Path,
    title: str = "",
    clip: tuple[float, float] = (0.8, 1.2),
) -> None:
    """The three diagnostics side by side in one PNG.

    Args:
        buckets: of `by_ratio`.
        by_step: of `lengths`, by step of the run.
        scatter: of `tokens`.
        path: of the PNG.
        title: over all panels.
        clip: bounds on the ratio that are drawn for orientation.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), dpi=150, layout="constrained")
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)
    _bars(left, buckets)
    for name, colour in (("positive", "#0072b2"), ("negative", "#d55e00")):
        steps = sorted(by_step)
        middle.plot(steps, [by_step[step][name] for step in steps], color=colour, label=f"{name} responses")
    middle.set(xlabel="step", ylabel="tokens per response", title="who is longer")
    shown = right.scatter(
        scatter["probability"], scatter["ratio"].clamp(1e-3, 1e3), c=scatter["entropy"], s=5, cmap="viridis"
    )
    figure.colorbar(shown, ax=right, label="entropy (nats)")
    for bound in clip:
        right.axhline(bound, color="#444444", linestyle="--", linewidth=1)
    right.set(xlabel="probability when sampled", ylabel="importance ratio", yscale="log", title="tokens")
    for axes in (left, middle):
        axes.legend(frameon=False, fontsize=8)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(path)


def _bars(axes: Any, buckets: Sequence[Mapping[str, float]]) -> None:
    places = torch.arange(len(buckets))
    for shift, name, colour in ((-0.2, "positive", "#0072b2"), (0.2, "negative", "#d55e00")):
        heights = [bucket[f"{name}_probability"] for bucket in buckets]
        axes.bar(places + shift, heights, 0.4, color=colour, label=f"{name} tokens")
        for place, height, bucket in zip(places + shift, heights, buckets, strict=True):
            if bucket[f"{name}_count"]:
                count = f"{bucket[f'{name}_count']:g}"
                axes.annotate(count, (float(place), height), ha="center", va="bottom", fontsize=6, rotation=90)
    labels = [f"{bucket['low']:g} to {bucket['high']:g}" for bucket in buckets]
    axes.set_xticks(places, labels, rotation=30, fontsize=8)
    axes.set(ylim=(0, 1.25), ylabel="mean probability when sampled", xlabel="importance ratio (numbers: tokens)")
    axes.set_title("extreme ratios are unlikely tokens")
