"""VaGraM (arXiv 2204.01464), measured small: does weighing model errors by value gradients spare a weak model?

A  linear system, models of too low a rank, 10 seeds: held-out value error of every loss; predictions that are free
B  pendulum, model-based SAC: a small model and distractors, or a full one and none; MSE, VaGraM, and SAC alone
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
from .control import control
from .landscape import landscapes
from .pictures import draw
from .report import verdict

__all__ = ["control", "run"]

LEAST = 1e-12  # below this a value error is rounding


def summary(values: Sequence[float], *words: str) -> dict[str, Any]:
    """Every seed's number, the mean and its 95% interval, None of a single seed."""
    if len(values) < 2:
        return {"seeds": list(values), "mean": values[0], "low": None, "high": None}
    found = interval(list(values), *words)
    return {"seeds": list(values), "mean": found.estimate, "low": found.low, "high": found.high}


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


def measure_control(path: Path) -> dict[str, Any]:
    """Part B; finished runs are read from `path`."""
    found = controls.kept(path, controls.calls())
    result: dict[str, Any] = {"runs": {}, "differences": {}}
    for condition, arms in controls.ARMS.items():
        seeds = {arm: range(controls.SEEDS[f"{condition}/{arm}"]) for arm in arms}
        rows = {arm: [found[condition, arm, seed] for seed in seeds[arm]] for arm in arms}
        for arm, runs in rows.items():
            numbers = ("return", "one_step_error", "value_error")
            result["runs"][f"{condition}/{arm}"] = {
                name: summary([run[name] for run in runs], "B", condition, arm, name)
                for name in numbers
                if runs[0][name] is not None
            } | {"training": [run["training"] for run in runs]}
        mse, own = rows["mse"], rows["vagram"]
        result["differences"][condition] = {
            "return": summary(
                [b["return"] - a["return"] for a, b in zip(mse, own, strict=True)], "B", condition, "return"
            ),
            **{
                name: log_ratio([run[name] for run in mse], [run[name] for run in own], "B", condition, name)
                for name in ("one_step_error", "value_error")
            },
        }
    return result


def run(folder: Path) -> None:
    """Write result.json, regression.png, control.png, landscape.png and verdict.md; runs.jsonl lets it go on."""
    settings = {
        "A": {
            **{"seeds": regressions.SEEDS, "useful": regressions.USEFUL, "distractors": regressions.DISTRACTORS},
            **{"spread": regressions.SPREAD, "rows": regressions.ROWS, "updates": regressions.UPDATES},
            "rate": regressions.RATE,
        },
        "B": {
            **{"seeds": controls.SEEDS, "conditions": controls.CONDITIONS, "arms": controls.ARMS},
            **{"shared": controls.SHARED, "model": controls.MODEL, "environment": controls.ENVIRONMENT},
            "steps": controls.START + controls.STEPS * controls.BLOCK,
        },
    }
    result = {
        **provenance(),
        "settings": settings,
        "A": measure_regression(),
        "C": landscapes(folder),
        "B": measure_control(folder / "runs.jsonl"),
    }
    text = json.dumps(result, indent=1)
    (folder / "result.json").write_text(text + "\n")
    result = json.loads(text)
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
