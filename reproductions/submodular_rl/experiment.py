"""SubPO (arXiv 2307.13372), small: does paying marginal gains help, and which of its estimators is it?

Every arm draws as many walks (32 a step, 120 steps) with the same 64-64 network. Each arm's learning rate is the best
of three by two pilot seeds on each map; the ten seeds of the result are others. All are scored by F of fresh walks,
whatever they were paid, divided by the best walk known to a planner or to any arm.

    Coverage           every estimator, paid gains or additive worth (ModPO), Markov or seeing the history
    ItemCollection     gains against additive, Markov and history
    InformativePath, Biodiversity    gains against additive
    TwoRooms           Markov against history: the way back must differ from the way there
    GreedyTrap         to go against the released weight, which is one-step greedy in the mean
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ascent.evaluation.intervals import interval, paired_difference
from ascent.systems.workers import provenance, spread
from ascent.worlds.submodular import planners
from ascent.worlds.submodular.maps import MAPS

from .pictures import draw
from .verdict import verdict
from .walks import ARMS, walk

__all__ = ["run", "walk"]

SEEDS, RATES, PILOTS = 10, (3e-3, 1e-2, 3e-2), (1000, 1001)
STUDIES: dict[str, tuple[str, ...]] = {
    "Coverage": tuple(ARMS),
    "ItemCollection": ("ModPO", "to go", "ModPO, history", "to go, history"),
    "InformativePath": ("ModPO", "to go"),
    "Biodiversity": ("ModPO", "to go"),
    "TwoRooms": ("ModPO", "to go", "to go, history"),
    "GreedyTrap": ("to go", "greedy", "released", "released, baseline"),
}


def tuned(cells: list[tuple[str, str]], jobs: int | None) -> dict[tuple[str, str], dict[str, Any]]:
    """The rate of each arm on each map, and what the pilots found with all of them."""
    calls = [(*cell, rate, seed) for cell in cells for rate in RATES for seed in PILOTS]
    found = spread("submodular_rl", "walk", calls, jobs)
    chosen = {}
    each = len(PILOTS)
    for place, cell in enumerate(cells):
        rows = [row["mean"] for row in found[place * len(RATES) * each :][: len(RATES) * each]]
        means = {rate: float(np.mean(rows[k * each :][:each])) for k, rate in enumerate(RATES)}
        best = max(means, key=lambda rate: means[rate])
        chosen[cell] = {"rate": best, "pilots": {f"{rate:g}": mean for rate, mean in means.items()}}
    return chosen


def measured(jobs: int | None = None) -> dict[str, Any]:
    """Every arm of every study."""
    cells = [(name, arm) for name, arms in STUDIES.items() for arm in arms]
    chosen = tuned(cells, jobs)
    calls = [(*cell, chosen[cell]["rate"], seed) for cell in cells for seed in range(SEEDS)]
    runs = spread("submodular_rl", "walk", calls, jobs)
    result: dict[str, Any] = {}
    for name, arms in STUDIES.items():
        ground = MAPS[name]()
        plan = planners.reference(ground)
        rows = {arm: runs[cells.index((name, arm)) * SEEDS :][:SEEDS] for arm in arms}
        best = max([plan.worth, *(row["max"] for group in rows.values() for row in group)])
        result[name] = {
            "best_known": best,
            "greedy_planner": planners.greedy(ground).worth / best,
            "random_walks": planners.best_of_random(ground).worth / best,
            "best_path": list(plan.path),
            "arms": {arm: summary(name, arm, group, best, chosen[name, arm]) for arm, group in rows.items()},
        }
        reference = {seed: row["mean"] / best for seed, row in enumerate(rows["to go"])}
        for arm, group in rows.items():
            found = paired_difference(reference, {s: row["mean"] / best for s, row in enumerate(group)}, name, arm)
            result[name]["arms"][arm]["minus_to_go"] = [found.estimate, found.low, found.high]
    return result


def summary(name: str, arm: str, rows: list[dict[str, Any]], best: float, chosen: dict[str, Any]) -> dict[str, Any]:
    """Share of the best known F, its interval, mean curves, and the first seed's most likely walk."""
    shares = [row["mean"] / best for row in rows]
    found = interval(shares, name, arm)
    return {
        **chosen,
        "seeds": shares,
        "mean": found.estimate,
        "low": found.low,
        "high": found.high,
        "median_walk": float(np.mean([row["median"] for row in rows])) / best,
        "best_walk": float(np.mean([row["max"] for row in rows])) / best,
        "curve": (np.mean([row["curve"] for row in rows], 0) / best).round(4).tolist(),
        "entropy": np.mean([row["entropy"] for row in rows], 0).round(4).tolist(),
        "path": rows[0]["path"],
    }


def run(folder: Path) -> None:
    """Measure, and write result.json, the pictures and verdict.md into `folder`."""
    result = {"provenance": provenance(), "seeds": SEEDS, "studies": measured()}
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
