"""YANN-RL (arXiv 2508.16474), small: does learning from linear predictive control on start there, stay, and gain?

Clipped pendulum and safety reactor, five seeds an arm, equal environment steps and updates. Each arm's policy rate is
the best of two by one pilot seed on each plant. Held out are the same 20 starts for everybody; linear predictive
control is every YANN arm before its first update.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ascent.evaluation.intervals import interval, paired_difference
from ascent.systems.workers import provenance, spread

from .pictures import draw
from .training import ARMS, HELD_OUT, training
from .verdict import verdict

__all__ = ["run", "training"]

SEEDS, PILOT = 5, 1000
EPISODES = {"pendulum": 20, "reactor": 20}
EVERY = 5
RATES = {"yann_rl": (1e-6, 1e-5), "ddpg": (1e-4, 1e-3)}
STUDIES: dict[str, tuple[str, ...]] = {"pendulum": tuple(ARMS), "reactor": ("YANN-DDPG", "DDPG, noise 0.1")}
Call = tuple[str, str, float, int, int, int]


def pilots() -> list[Call]:
    """The calls that choose the rates."""
    return [
        (plant, arm, rate, PILOT, EPISODES[plant], EVERY)
        for plant, arms in STUDIES.items()
        for arm in arms
        for rate in RATES[ARMS[arm][0]]
    ]


def chosen(rows: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[float, dict[str, float]]]:
    """The rate with the least final held-out cost, and the costs of all."""
    found: dict[tuple[str, str], dict[float, float]] = {}
    for (plant, arm, rate, *_), row in zip(pilots(), rows, strict=True):
        found.setdefault((plant, arm), {})[rate] = final(row)
    return {
        cell: (min(costs, key=lambda rate: costs[rate]), {f"{rate:g}": cost for rate, cost in costs.items()})
        for cell, costs in found.items()
    }


def calls(rates: dict[tuple[str, str], tuple[float, dict[str, float]]]) -> list[Call]:
    """The runs of the result."""
    return [
        (plant, arm, rate, seed, EPISODES[plant], EVERY)
        for (plant, arm), (rate, _) in rates.items()
        for seed in range(SEEDS)
    ]


def final(row: dict[str, Any]) -> float:
    """Mean held-out cost after training."""
    return float(np.mean(row["held_out"][-1]["costs"]))


def summary(plant: str, arm: str, rows: list[dict[str, Any]], control: float) -> dict[str, Any]:
    """Costs and violations of an arm's runs."""
    ends = [final(row) for row in rows]
    found = interval(ends, plant, arm)
    curves = np.array([[np.mean(point["costs"]) for point in row["held_out"]] for row in rows])
    violated = [episodes_beyond(row["violations"]) for row in rows]
    below = [
        next((p["episodes"] for p in row["held_out"] if np.mean(p["costs"]) < control - 1e-3), None) for row in rows
    ]
    result = {
        "seeds": ends,
        "mean": found.estimate,
        "low": found.low,
        "high": found.high,
        "start": curves[:, 0].tolist(),
        "episodes": [point["episodes"] for point in rows[0]["held_out"]],
        "curves": curves.round(4).tolist(),
        "episodes_beyond": violated,
        "steps_beyond": [row["violations"][-1] for row in rows],
        "below_control_from": below,
        "episode_changes": (
            np.array(rows[0]["held_out"][-1]["costs"]) - np.array(rows[0]["held_out"][0]["costs"])
        ).round(4).tolist(),
    }  # fmt: skip
    for name in ("start_difference", "change", "added"):
        if name in rows[0]:
            result[name] = [row[name] for row in rows] if name != "added" else rows[0][name]
    return result


def episodes_beyond(counts: list[int]) -> int:
    """Training episodes in which the count of violations grew."""
    return int((np.diff([0, *counts]) > 0).sum())


def summarised(
    rates: dict[tuple[str, str], tuple[float, dict[str, float]]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """result.json out of the runs in the order of `calls`."""
    done = dict(zip([call[:4] for call in calls(rates)], rows, strict=True))
    studies: dict[str, Any] = {}
    for plant, arms in STUDIES.items():
        groups = {arm: [done[plant, arm, rates[plant, arm][0], seed] for seed in range(SEEDS)] for arm in arms}
        start = groups["YANN-DDPG"][0]["held_out"][0]
        control = float(np.mean(start["costs"]))
        study: dict[str, Any] = {
            "predictive_control": control,
            "predictive_control_costs": start["costs"],
            "held_out": HELD_OUT,
            "arms": {},
        }
        reference = {seed: final(row) for seed, row in enumerate(groups["YANN-DDPG"])}
        for arm, group in groups.items():
            row = summary(plant, arm, group, control)
            row["rate"], row["pilots"] = rates[plant, arm]
            less = interval([cost - control for cost in row["seeds"]], plant, arm, "control")
            row["minus_control"] = [less.estimate, less.low, less.high]
            other = paired_difference(reference, {s: final(r) for s, r in enumerate(group)}, plant, arm)
            row["minus_yann"] = [other.estimate, other.low, other.high]
            study["arms"][arm] = row
        studies[plant] = study
    return {"provenance": provenance(), "settings": {"seeds": SEEDS, "episodes": EPISODES}, "studies": studies}


def write(result: dict[str, Any], folder: Path) -> None:
    """result.json, the pictures and verdict.md."""
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))


def run(folder: Path) -> None:
    """Measure, and write into `folder`."""
    rates = chosen(spread("yann_rl", "training", pilots()))
    write(summarised(rates, spread("yann_rl", "training", calls(rates))), folder)
