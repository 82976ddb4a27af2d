"""PROPS (arXiv 2311.08290), measured small: does a fitted behaviour policy lower the sampling error, and does it help?

A  10-armed softmax target, fixed, 12 seeds: on-policy, ROS, PROPS (and without clip, without KL), greedy
B  5x5 grid, tabular REINFORCE, 50 runs an arm: which corner is learnt
C  Pendulum, 5 seeds: sampling error of fixed targets, then PPO with and without PROPS, returns secondary
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ascent.evaluation.intervals import interval
from ascent.systems.workers import provenance, spread

from . import bandit as bandits
from . import grid as grids
from . import motor as motors
from .bandit import bandit
from .grid import grid
from .motor import fixed, learning
from .pictures import draw
from .report import verdict

__all__ = ["bandit", "fixed", "grid", "learning", "run"]


def summary(values: Sequence[float], *words: str) -> dict[str, Any]:
    """Every seed's number, the mean and its 95% interval."""
    found = interval(list(values), *words)
    return {"seeds": list(values), "mean": found.estimate, "low": found.low, "high": found.high}


def paired(first: Sequence[float], second: Sequence[float], *words: str) -> list[float]:
    """Mean of second minus first, paired by seed, and its 95% interval."""
    found = interval([b - a for a, b in zip(first, second, strict=True)], *words)
    return [found.estimate, found.low, found.high]


def slope(errors: Sequence[float]) -> float:
    """Of log error by log actions, from 64 actions on."""
    sizes, values = np.log(bandits.SIZES[2:]), np.log(np.maximum(errors[2:], 1e-9))
    return float(np.polyfit(sizes, values, 1)[0])


def runs(function: str, arms: Sequence[tuple[Any, ...]], seeds: int, *after: Any) -> dict[tuple[Any, ...], list[Any]]:
    """The results of every arm, seed by seed, from worker processes."""
    calls = [(*arm, seed, *after) for seed in range(seeds) for arm in arms]
    found = spread("props", function, calls)
    return {arm: found[place :: len(arms)] for place, arm in enumerate(arms)}


def measure_bandit() -> dict[str, Any]:
    """Part A."""
    found = runs("bandit", [(name,) for name in bandits.SAMPLERS], bandits.SEEDS)
    last = {name: [errors[-1] for errors in rows] for (name,), rows in found.items()}
    slopes = {name: [slope(errors) for errors in rows] for (name,), rows in found.items()}
    return {
        name: {
            "errors": rows,
            "final": summary(last[name], "A", name),
            "slope": summary(slopes[name], "slope", name),
            # log of the ratio to on-policy, whose mean is the geometric one
            "log_ratio": paired(
                np.log(last["on-policy"]).tolist(), np.log(np.maximum(last[name], 1e-9)).tolist(), "A", name
            ),
            "slope_minus": paired(slopes["on-policy"], slopes[name], "slope", name),
        }
        for (name,), rows in found.items()
    }


def measure_grid(arms: Sequence[str]) -> dict[str, Any]:
    """Part B."""
    found = runs("grid", [(name,) for name in arms], grids.RUNS)
    won = {name: [float(row["ends"][1] > 0.5) for row in rows] for (name,), rows in found.items()}
    errors = {name: [float(np.mean(row["errors"])) for row in rows] for (name,), rows in found.items()}
    return {
        name: {
            "ends": [row["ends"] for row in rows],
            "errors": np.mean([row["errors"] for row in rows], 0).tolist(),
            "won": summary(won[name], "B", name),
            "won_minus": paired(won["on-policy"], won[name], "B", name),
            "error": summary(errors[name], "B error", name),
            "error_minus": paired(errors["on-policy"], errors[name], "B error", name),
        }
        for (name,), rows in found.items()
    }


def measure_motor() -> dict[str, Any]:
    """Part C."""
    still = runs("fixed", motors.FIXED, motors.SEEDS)
    moving = runs("learning", [(name,) for name in motors.LEARNING], motors.SEEDS)
    result: dict[str, Any] = {"fixed": {}, "learning": {}}
    for (kind, name), rows in still.items():
        own, reference = (np.log(np.maximum(errors, 1e-6)) for errors in (rows, still[kind, "on-policy"]))
        ratios = own - reference
        result["fixed"][f"{kind}, {name}"] = {
            "errors": rows,
            "log_ratio": paired([0.0] * len(rows), ratios[:, -1].tolist(), "C", kind, name),
        }
    excess: dict[str, list[float]] = {}
    for (name,), rows in moving.items():
        errors = [float(np.mean(row["errors"])) for row in rows]
        references = [float(np.mean(row["references"])) for row in rows]
        excess[name] = [own - reference for own, reference in zip(errors, references, strict=True)]
        result["learning"][name] = {
            "errors": [row["errors"] for row in rows],
            "references": [row["references"] for row in rows],
            "error": summary(errors, "C", name),
            "error_minus_reference": paired(references, errors, "C", name),
            "return": summary([row["return"] for row in rows], "return", name),
        }
    result["control"] = paired(excess["PPO-Buffer, b = 2"], excess["PROPS, b = 2"], "C", "control")
    return result


def measure() -> dict[str, Any]:
    """All parts."""
    return {
        **provenance(),
        "settings": {
            "A": {
                **bandits.SETTINGS,
                "m": bandits.BATCH,
                "actions": bandits.TOTAL,
                "ros_rate": bandits.ROS_RATE,
                "seeds": bandits.SEEDS,
                "sizes": bandits.SIZES,
            },
            "B": {
                **grids.SETTINGS,
                "n": grids.BATCH,
                "m": grids.BEHAVIOUR_BATCH,
                "learning_rate": grids.LEARNING_RATE,
                "updates": grids.UPDATES,
                "runs": grids.RUNS,
                "arms": grids.ARMS,
            },
            "C": {
                **motors.SETTINGS,
                "environment": motors.ENVIRONMENT,
                "seeds": motors.SEEDS,
                "fit": motors.FIT,
                "fixed_batches": motors.FIXED_BATCHES,
                "learning_batches": motors.LEARNING_BATCHES,
            },
        },
        "A": measure_bandit(),
        "B": measure_grid(list(grids.ARMS)),
        "C": measure_motor(),
    }


def run(folder: Path) -> None:
    """Write result.json, sampling_error.png, learning.png and verdict.md."""
    text = json.dumps(measure(), indent=1).replace("Infinity", '"inf"')
    (folder / "result.json").write_text(text + "\n")
    result = json.loads(text)
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
