"""VaGraM (arXiv 2204.01464), measured small: does weighing model errors by value gradients spare a weak model?

A  linear system, models of too low a rank, 10 seeds: held-out value error of every loss; predictions that are free
B  pendulum, model-based SAC, 5 seeds: widths of the model, numbers of distractors; MSE, VaGraM, and SAC alone
C  the losses around one state of the pendulum, for learnt critics
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ascent.evaluation.intervals import interval
from ascent.systems.workers import provenance

from . import control as controls
from . import regression as regressions
from .control import control, kept_run
from .landscape import landscapes
from .pictures import draw
from .report import verdict

__all__ = ["control", "kept_run", "run"]

LEAST = 1e-12  # below this a value error is rounding
ERRORS = ("one_step_error", "value_error", "relative_value_error")


def summary(values: Sequence[float], *words: str) -> dict[str, Any]:
    """Every seed's number, the mean and its 95% interval."""
    found = interval(list(values), *words)
    return {"seeds": list(values), "mean": found.estimate, "low": found.low, "high": found.high}


def geometric(values: Sequence[float], *words: str) -> dict[str, Any]:
    """As `summary`, of the geometric mean of positive numbers."""
    found = interval([math.log10(max(value, LEAST)) for value in values], *words)
    return {"seeds": list(values), "mean": 10**found.estimate, "low": 10**found.low, "high": 10**found.high}


def log_ratio(first: Sequence[float], second: Sequence[float], *words: str) -> dict[str, Any]:
    """log10 of second / first, paired by seed."""
    pairs = zip(first, second, strict=True)
    return summary([math.log10(max(b, LEAST) / max(a, LEAST)) for a, b in pairs], *words)


def measure_regression() -> dict[str, Any]:
    """Part A."""
    rows = regressions.regression()
    result: dict[str, Any] = {"rows": rows, "log_ratio": {}, "squared_log_ratio": {}, "free": regressions.free()}
    for rank in regressions.RANKS:
        for loss in regressions.LOSSES[1:]:
            own, mse = rows[f"{loss}/{rank}"], rows[f"mse/{rank}"]
            words = ("A", loss, str(rank))
            result["log_ratio"][f"{loss}/{rank}"] = log_ratio(mse["value_error"], own["value_error"], *words)
            result["squared_log_ratio"][f"{loss}/{rank}"] = log_ratio(mse["squared"], own["squared"], *words)
        closed = rows[f"closed form/{rank}"]["squared"]
        gaps = [abs(a - b) for a, b in zip(rows[f"mse/{rank}"]["squared"], closed, strict=True)]
        result.setdefault("gap_to_closed_form", {})[str(rank)] = max(gaps)
    return result


def named(width: int, distractors: int) -> str:
    """A cell by name."""
    return f"{width}/{distractors}"


def measure_control(path: Path) -> dict[str, Any]:
    """Part B; finished runs are read from `path`."""
    found = controls.runs(path)
    result: dict[str, Any] = {"runs": {}, "differences": {}, "trends": {}}
    arms: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for (arm, width, distractors, _), run in found.items():
        arms.setdefault((arm, width, distractors), []).append(run)
    for (arm, width, distractors), several in arms.items():
        words = ("B", arm, named(width, distractors))
        result["runs"][f"{arm}/{named(width, distractors)}"] = {
            "return": summary([run["return"] for run in several], *words, "return"),
            **{name: geometric([run[name] for run in several], *words, name) for name in ERRORS if name in several[0]},
            "curves": [run["curve"] for run in several],
        }
    for cell in controls.CELLS:
        mse, own = arms["mse", *cell], arms["vagram", *cell]
        words = ("B", "difference", named(*cell))
        gaps = [b["return"] - a["return"] for a, b in zip(mse, own, strict=True)]
        result["differences"][named(*cell)] = {
            "return": summary(gaps, *words),
            **{name: log_ratio([a[name] for a in mse], [b[name] for b in own], *words, name) for name in ERRORS},
        }
    for name, (hard, easy) in controls.ENDS.items():
        result["trends"][name] = {
            kind: trend(result["differences"], named(*hard), named(*easy), kind)
            for kind in ("return", "relative_value_error")
        }
    return result


def trend(differences: dict[str, Any], hard: str, easy: str, kind: str) -> dict[str, Any]:
    """How much more VaGraM differs from MSE in the hard cell than in the easy one, paired by seed."""
    pairs = zip(differences[hard][kind]["seeds"], differences[easy][kind]["seeds"], strict=True)
    return summary([a - b for a, b in pairs], "B", "trend", hard, easy, kind)


def run(folder: Path) -> None:
    """Write result.json, four pictures and verdict.md; runs.jsonl lets an interrupted part B go on."""
    settings = {
        "A": {
            **{"seeds": regressions.SEEDS, "useful": regressions.USEFUL, "distractors": regressions.DISTRACTORS},
            **{"spread": regressions.SPREAD, "rows": regressions.ROWS, "updates": regressions.UPDATES},
            "rate": regressions.RATE,
        },
        "B": {
            **{"seeds": controls.SEEDS, "cells": controls.CELLS, "small": controls.SMALL, "full": controls.FULL},
            **{"ends": controls.ENDS, "shared": controls.SHARED, "model": controls.MODEL},
            **{"environment": controls.ENVIRONMENT, "steps": controls.START + controls.STEPS * controls.BLOCK},
            "block": controls.BLOCK,
        },
    }
    result = {
        **provenance(),
        "settings": settings,
        "A": measure_regression(),
        "B": measure_control(folder / "runs.jsonl"),
        "C": landscapes(folder),
    }
    text = json.dumps(result, indent=1)
    (folder / "result.json").write_text(text + "\n")
    result = json.loads(text)
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
