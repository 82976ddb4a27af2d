"""GBRL (arXiv 2407.08250), small: do trees learn faster than networks where observations are words?

Room   a DoorKey room of 4 x 4 cells, seen as 27 words. PPO with trees that ask for words, against PPO with a 64-64
       network that gets the words' codes or their one-hot form. Controls: trees that get codes as plain numbers (is it
       the trees or the words?), separate trees for policy and value, and one learning rate instead of two.
Pole   CartPole-v1, trees in the paper's setting against a network: a tie is claimed.

The network arms and the trees have each their own rate, the best of three by two pilot seeds; the controls take the
trees' rate, and say nothing of what they could do with their own. The five seeds of the result are others. Every arm of
a study has as many steps. In the room all walk four times over a collection: the paper's twenty walks of trees, five
times as many updates, were not run. On CartPole trees walk once, as in the paper, and the network four times.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ascent.evaluation.intervals import interval, paired_difference
from ascent.systems.workers import provenance, spread

from .learners import POLE_STEPS, RATES, ROOM, ROOM_STEPS, pole, room
from .pictures import draw
from .verdict import verdict

__all__ = ["pole", "room", "run"]

SEEDS, PILOTS, GOAL = 5, (1000, 1001), 0.9
TUNED = ("trees", "network, codes as numbers", "network, one-hot")
POLES = ("trees", "network")
COLLECTION = {"room": 2048, "pole": 1024}


def pilots() -> list[tuple[str, tuple[str, float, int]]]:
    """(study, call) of every pilot run."""
    rooms = [("room", (arm, rate, seed)) for arm in TUNED for rate in RATES[arm.split(",")[0]] for seed in PILOTS]
    poles = [("pole", (arm, rate, PILOTS[0])) for arm in POLES for rate in (0.029, 0.1) if arm == "trees"]
    return rooms + poles + [("pole", ("network", rate, PILOTS[0])) for rate in (3e-4, 1e-3)]


def chosen(found: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """The rate of each arm: the largest mean success (or return) over the whole run of the pilots."""
    worth: dict[tuple[str, str], dict[float, list[float]]] = {}
    for (study, (arm, rate, _)), row in zip(pilots(), found, strict=True):
        mean = float(np.mean(row["success" if study == "room" else "score"]))
        worth.setdefault((study, arm), {}).setdefault(rate, []).append(mean)
    best = {cell: max(rates, key=lambda rate: float(np.mean(rates[rate]))) for cell, rates in worth.items()}
    return {("room", arm): best["room", "trees"] for arm in ROOM} | best


def finals(rates: dict[tuple[str, str], float]) -> list[tuple[str, tuple[str, float, int]]]:
    """(study, call) of every run that counts."""
    cells = [("room", arm) for arm in ROOM] + [("pole", arm) for arm in POLES]
    return [(study, (arm, rates[study, arm], seed)) for study, arm in cells for seed in range(SEEDS)]


def reached(success: list[float], study: str) -> float:
    """Steps until 90% of the last 100 episodes succeeded; the budget and one collection more where they never did."""
    for place, share in enumerate(success):
        if share >= GOAL:
            return float((place + 1) * COLLECTION[study])
    return float((len(success) + 1) * COLLECTION[study])


def summary(rates: dict[tuple[str, str], float], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers of every arm, and differences from `trees` paired by seed."""
    calls = finals(rates)
    result: dict[str, Any] = {"room": {}, "pole": {}}
    for study, arms in (("room", tuple(ROOM)), ("pole", POLES)):
        rows = {
            arm: [row for (name, call), row in zip(calls, found, strict=True) if (name, call[0]) == (study, arm)]
            for arm in arms
        }
        curve = "success" if study == "room" else "score"
        measures = {
            "area": lambda row, curve=curve: float(np.mean(row[curve])),
            "final": lambda row: row["final"],
            "seconds": lambda row: row["seconds"],
            "bytes": lambda row: float(row["bytes"]),
        }
        if study == "room":
            measures["steps"] = lambda row: reached(row["success"], "room")
        for arm in arms:
            told: dict[str, Any] = {"rate": rates[study, arm], "curves": [row[curve] for row in rows[arm]]}
            for name, measure in measures.items():
                numbers = [measure(row) for row in rows[arm]]
                within = interval(numbers, study, arm, name)
                told[name] = {"mean": within.estimate, "low": within.low, "high": within.high, "seeds": numbers}
                own = dict(enumerate(numbers))
                base = {seed: measure(row) for seed, row in enumerate(rows["trees"])}
                away = paired_difference(base, own, study, arm, name)
                told[name]["minus_trees"] = [away.estimate, away.low, away.high]
            result[study][arm] = told
    return result


def measured(jobs: int | None = None) -> dict[str, Any]:
    """Pilots, then the runs that count."""

    def ran(calls: list[tuple[str, tuple[str, float, int]]]) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for study in ("room", "pole"):
            mine = [place for place, call in enumerate(calls) if call[0] == study]
            found |= zip(mine, spread("gbrl", study, [calls[place][1] for place in mine], jobs), strict=True)
        return [found[place] for place in range(len(calls))]

    rates = chosen(ran(pilots()))
    return summary(rates, ran(finals(rates)))


def told(studies: dict[str, Any]) -> dict[str, Any]:
    """result.json."""
    steps = {"room": ROOM_STEPS * COLLECTION["room"], "pole": POLE_STEPS * COLLECTION["pole"]}
    return {"provenance": provenance(), "seeds": SEEDS, "steps": steps, "studies": studies}


def run(folder: Path) -> None:
    """Measure, and write result.json, the picture and verdict.md into `folder`."""
    result = told(measured())
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
