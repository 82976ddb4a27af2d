"""BN-MAPPO (arXiv 2306.01920), small: do agents that see each other's actions leave the lesser hill?

Exact gradients in the tabular coordination game with 2, 3 and 5 agents and in a one-shot game, from random tables
over the empty graph, the line and the complete one; "coins" has the complete graph's parameters and no correlation.
Then BN-MAPPO from samples with 3 agents, from weights as random as the tables and the same for all graphs of a seed:
equal steps for all arms, and the learning rate at which MAPPO, the empty graph, earns most on seeds of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ascent.evaluation.intervals import interval, paired_difference
from ascent.systems.workers import provenance, spread

from .pictures import draw
from .sampled import ARMS, MAPPO, team
from .tables import ascend
from .verdict import verdict

__all__ = ["ascend", "run", "team"]

# Game: arms, seeds, steps.
TABLES: dict[str, tuple[tuple[str, ...], int, int]] = {
    "matrix": (("empty", "coins", "complete"), 64, 2000),
    "2": (("empty", "coins", "complete"), 64, 2000),
    "3": (("empty", "coins", "line", "complete"), 64, 2000),
    "5": (("empty", "line", "complete"), 24, 4000),
}
SEEDS, STEPS = 10, 50
RATES, PILOT = (1e-3, 3e-3, 1e-2), (100, 101)
CURVES = ("curve", "open_curve", "budget")


def summary(numbers: list[float], *words: str, widen: bool = True) -> dict[str, Any]:
    found = interval(numbers, *words, widen=widen)
    return {"seeds": numbers, "mean": found.estimate, "low": found.low, "high": found.high}


def minus(first: list[float], second: list[float], *words: str) -> list[float]:
    """Mean and interval of second minus first, paired by seed."""
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)), *words)
    return [found.estimate, found.low, found.high]


def tables(jobs: int | None = None) -> dict[str, Any]:
    """Every game and graph, at 2000 steps and at the end."""
    cells = [(name, arm) for name, (arms, _, _) in TABLES.items() for arm in arms]
    found = spread(
        "bayesian_network_marl", "ascend", [(name, arm, *TABLES[name][1:], 200) for name, arm in cells], jobs
    )
    result: dict[str, Any] = {}
    for (name, arm), run_ in zip(cells, found, strict=True):
        room = result.setdefault(name, {"at": run_["steps"], "arms": {}})
        worth, early = run_["worth"][-1], run_["worth"][run_["steps"].index(2000)]
        room["arms"][arm] = {
            "end": summary(worth, name, arm),
            "at_2000": summary(early, name, arm, "early"),
            "over_95": float(np.mean(np.array(worth) > 0.95)),
            "gap": summary(run_["gap"], name, arm, "gap"),
            "curve": np.mean(run_["worth"], 1).round(5).tolist(),
        }
    for name, room in result.items():
        for arm, row in room["arms"].items():
            for when in ("end", "at_2000"):
                one, other = (room["arms"][each][when]["seeds"] for each in ("empty", arm))
                row[f"minus_empty_{when}"] = minus(one, other, name, arm, when)
    return result


def pilot(jobs: int | None = None) -> dict[str, list[float]]:
    """What MAPPO earns at each rate, on seeds of its own."""
    calls = [(MAPPO, rate, STEPS, seed) for rate in RATES for seed in PILOT]
    found = [row["drawn"] for row in spread("bayesian_network_marl", "team", calls, jobs)]
    return {f"{rate:g}": found[place * len(PILOT) :][: len(PILOT)] for place, rate in enumerate(RATES)}


def learned(rate: float, jobs: int | None = None) -> dict[str, Any]:
    """Every arm from samples, all at one rate."""
    calls = [(arm, rate, STEPS, seed) for arm in ARMS for seed in range(SEEDS)]
    found = spread("bayesian_network_marl", "team", calls, jobs)
    result: dict[str, Any] = {}
    for place, arm in enumerate(ARMS):
        rows = found[place * SEEDS :][:SEEDS]
        result[arm] = {
            **{name: summary([row[name] for row in rows], arm, name) for name in ("first", "drawn", "likely")},
            # A share at the edge of its range: stretched intervals would leave it, plain percentiles cannot.
            "open_drawn": summary([row["open_drawn"] for row in rows], arm, "open", widen=False),
            "open_likely": float(np.mean([row["open_likely"] for row in rows])),
            "first_ratio": float(np.mean([row["ratio"] for row in rows])),
            **{name: np.mean([row[name] for row in rows], 0).round(4).tolist() for name in CURVES},
        }
    for arm, row in result.items():
        for other in (MAPPO, "complete", "random"):
            for name in ("drawn", "likely"):
                one, two = result[other][name]["seeds"], row[name]["seeds"]
                row[f"{name}_minus_{other.split()[0]}"] = minus(one, two, arm, other, name)
    return result


def run(folder: Path) -> None:
    """Measure, and write result.json, the pictures and verdict.md into `folder`."""
    rates = pilot()
    rate = float(max(rates, key=lambda name: float(np.mean(rates[name]))))
    result = {
        "provenance": provenance(),
        "steps": STEPS,
        "seeds": SEEDS,
        "pilot": rates,
        "rate": rate,
        "tables": tables(),
        "sampled": learned(rate),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
