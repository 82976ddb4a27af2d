"""GGTD (arXiv 2408.02295), small: do critics that say the shape of their errors learn better than those that do not?

A  estimation   regression with generalised Gaussian noise of scale 1, shape from 0.7 to 2, 1 (Laplace) or 2 (Gauss):
                heads for a variance, a shape (both printed forms), a shape and a scale
B  cartpole     PPO with a random push: squared errors, variance and shape heads, without and with both regularisers
   pendulum     SAC with Student-t reward noise: the same, without iv_gd (time)
C  ablations    the whole method with one thing changed each, three seeds, CartPole only

Within a study all arms have the same networks, steps and settings; nothing was tuned for any arm. How many steps was
decided by two other seeds of the plain ensemble (`base`). The rules of the verdict were fixed before the runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ascent.evaluation.intervals import interval, paired_difference
from ascent.systems.workers import provenance, spread

from .control import ABLATIONS, RELEASED, VARIANTS, cartpole, pendulum
from .estimation import HEADS, LAWS, estimate
from .pictures import draw
from .verdict import verdict

__all__ = ["cartpole", "estimate", "pendulum", "run"]

SEEDS, FEWER = 5, 3
ARMS: dict[str, tuple[str, ...]] = {
    "cartpole": ("plain", *VARIANTS),
    "pendulum": tuple(arm for arm in VARIANTS if arm != "iv_gd"),
}
PAIRS = (
    ("ggd", "gd"),
    ("ggd", "base"),
    ("iev_ggd", "iv_ggd"),
    ("iev_ggd", "ggd"),
    ("iev_ggd", "gd"),
    ("iev_ggd", "base"),
    ("base", "plain"),
)
Row = Mapping[str, Any]
Measure = Callable[[Row], float]
ESTIMATION: Mapping[str, Measure] = {
    "nll": lambda row: row["nll"],
    "mean_error": lambda row: row["mean_error"],
    "said": lambda row: row["said"],
    "variation": lambda row: float(np.mean(row["variation"][5:])),
    "correlation": lambda row: row["correlation"],
}
CONTROL: Mapping[str, Measure] = {
    "area": lambda row: float(np.mean(row["returns"])),
    "final": lambda row: row["returns"][-1],
    "kurtosis": lambda row: row["stages"][-1]["kurtosis"],
    "gain": lambda row: row["stages"][-1]["gain"],
    "shape": lambda row: row["stages"][-1]["shape"],
    "variation": lambda row: float(np.mean(row["variation"])),
    "roughness": lambda row: row["roughness"],
    "up_to_2": lambda row: row["stages"][-1]["said"]["up_to_2"],
}


def summary(rows: Sequence[Row], measures: Mapping[str, Measure], *words: str) -> dict[str, Any]:
    """Mean, interval and every seed of each measure that all rows have."""
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        try:
            numbers = [measure(row) for row in rows]
        except KeyError:  # a squared error says no spread
            continue
        within = interval(numbers, *words, name)
        found[name] = {"mean": within.estimate, "low": within.low, "high": within.high, "seeds": numbers}
    return found


def apart(left: Mapping[str, Any], right: Mapping[str, Any], *words: str) -> dict[str, list[float]]:
    """Each measure of `left` minus that of `right`, paired by seed."""
    found = {}
    for name in [name for name in left if name in right]:
        first, second = (dict(enumerate(side[name]["seeds"])) for side in (right, left))
        away = paired_difference(first, second, *words, name)
        found[name] = [away.estimate, away.low, away.high]
    return found


def estimation(jobs: int | None = None) -> dict[str, Any]:
    """Every head under every law, and how it differs from the variance head."""
    cells = [(law, head) for law in LAWS for head in HEADS]
    runs = spread("ggtd", "estimate", [(*cell, seed) for cell in cells for seed in range(SEEDS)], jobs)
    found: dict[str, Any] = {law: {} for law in LAWS}
    for place, (law, head) in enumerate(cells):
        rows = runs[place * SEEDS :][:SEEDS]
        told = summary(rows, ESTIMATION, law, head)
        curve = np.mean([row["variation"] for row in rows], 0).round(4).tolist()
        found[law][head] = {"measures": told, "variation": curve}
    for law, heads in found.items():
        for head, told in heads.items():
            told["minus_variance"] = apart(told["measures"], heads["variance"]["measures"], law, head)
    return found


def world(name: str, jobs: int | None = None) -> dict[str, Any]:
    """Every arm of a world, and differences between them."""
    arms = ARMS[name]
    runs = spread("ggtd", name, [(arm, seed) for arm in arms for seed in range(SEEDS)], jobs)
    rows = {arm: runs[place * SEEDS :][:SEEDS] for place, arm in enumerate(arms)}
    told = {arm: {"measures": summary(rows[arm], CONTROL, name, arm), "runs": rows[arm]} for arm in arms}
    pairs = {
        f"{left} - {right}": apart(told[left]["measures"], told[right]["measures"], name, left, right)
        for left, right in PAIRS
        if left in told and right in told
    }
    return {"arms": told, "pairs": pairs}


def ablations(whole: Mapping[str, Any], jobs: int | None = None) -> dict[str, Any]:
    """The whole method with one thing changed, on the first seeds, minus the whole method on these."""
    arms = [*ABLATIONS, *RELEASED]
    runs = spread("ggtd", "cartpole", [(arm, seed) for arm in arms for seed in range(FEWER)], jobs)
    told = {arm: summary(runs[place * FEWER :][:FEWER], CONTROL, "ablation", arm) for place, arm in enumerate(arms)}
    changed = {arm: {"measures": told[arm], "minus_whole": apart(told[arm], whole, arm)} for arm in ABLATIONS}
    pushed = {arm: {"measures": told[arm]} for arm in RELEASED}
    base, method = RELEASED
    pushed[method]["minus_base"] = apart(told[method], told[base], "released")
    return {"changed": changed, "released_push": pushed}


def run(folder: Path) -> None:
    """Measure, and write result.json, the pictures and verdict.md into `folder`."""
    result: dict[str, Any] = {"provenance": provenance(), "seeds": SEEDS, "fewer": FEWER}
    result["estimation"] = estimation()
    result["worlds"] = {name: world(name) for name in ARMS}
    result["ablations"] = ablations(result["worlds"]["cartpole"]["arms"]["iev_ggd"]["measures"])
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
