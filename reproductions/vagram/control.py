"""Part B: the pendulum in model-based SAC with each loss, over widths of the model and numbers of distractors.

Cells are (width of the model, distractors). Everything but the loss is the same in the arms of a cell.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ascent.systems import off_policy, vagram
from ascent.systems.config import ControlConfig
from ascent.systems.trial import Record
from ascent.systems.workers import spread
from ascent.training.loop import Loop
from ascent.training.processes import Processes

SEEDS, SWEEP_SEEDS = 5, 3  # of the two cells that are compared first and of SAC alone; of the other cells
SMALL, FULL = (16, 4), (128, 0)
CELLS = (SMALL, FULL, (8, 4), (64, 4), (16, 0), (16, 16))
ENDS = {"width": ((8, 4), (64, 4)), "distractors": ((16, 16), (16, 0))}  # the hard and the easy end of each sweep
LOSSES = ("mse", "vagram")
START, STEPS, BLOCK = 300, 15, 100  # uniform environment steps, rounds of learning, environment steps of each
EVERY = 4  # rounds between evaluations
SHARED = {
    "start": START,
    "updates": 2,
    "batch": 64,
    "discount": 0.95,
    "target_rate": 0.02,
    "temperature": 0.1,
    "learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "temperature_learning_rate": 3e-3,
}
MODEL = {
    "members": 3,
    "elites": 2,
    "model_every": 200,
    "rollouts": 20,
    "share": [0, 0, 0.9, 0.9],
    "warm_up": 300,
    "patience": 5,
    "model_epochs": 20,
    "model_batch": 64,
    "model_learning_rate": 5e-3,
}
ENVIRONMENT = {"kind": "rotation", "scale": 1.0}
Call = tuple[str, int, int, int]
"""(arm, width, distractors, seed); width 0 where there is no model."""


def calls() -> list[Call]:
    """Every run, seed by seed, the sweep's further seeds last."""
    first = [(loss, *cell) for cell in CELLS[:2] for loss in LOSSES]
    first += [("sac", 0, distractors) for distractors in sorted({cell[1] for cell in CELLS})]
    others = [(loss, *cell) for cell in CELLS[2:] for loss in LOSSES]
    least = min(SEEDS, SWEEP_SEEDS, 3)
    return [
        *((*arm, seed) for seed in range(least) for arm in (*first, *others)),
        *((*arm, seed) for seed in range(least, SEEDS) for arm in first),
        *((*arm, seed) for seed in range(least, SWEEP_SEEDS) for arm in others),
    ]


def control(arm: str, width: int, distractors: int, seed: int) -> dict[str, Any]:
    """Returns of 10 held-out episodes as training goes on, and one-step and value errors of the last two fits."""
    world = {**ENVIRONMENT, "distractors": distractors}
    own = {} if arm == "sac" else {**MODEL, "model_hidden": [width], "loss": arm}
    values = {**SHARED, **own}
    config = ControlConfig(
        method="sac" if arm == "sac" else "vagram",
        env="ascent/Distracted-v0",
        env_set=tuple(f"{name}={json.dumps(value)}" for name, value in world.items()),
        set=tuple(f"{name}={json.dumps(value)}" for name, value in values.items()),
        seed=seed,
        steps=STEPS,
        environments=1,
        horizon=BLOCK,
        hidden=(64, 64),
        episodes=10,
        quiet=True,
    )
    build = off_policy.build if arm == "sac" else vagram.build
    assembly = build(config, config.composed(), Processes())
    record = Record()
    Loop(assembly.system, [record], evaluate_every=EVERY).run()
    curve = [[step, scores["return"]] for step, scores in record.held_out]
    found: dict[str, Any] = {"return": curve[-1][1], "curve": curve}
    if arm != "sac":
        errors = {name: record.curve(f"fit/{name}") for name in ("one_step_error", "value_error", "value_variance")}
        found |= {name: float(np.mean(several[-2:])) for name, several in errors.items()}
        found["relative_value_error"] = found["value_error"] / found["value_variance"]
    return found


def kept_run(path: str, *call: Any) -> None:
    """One run, added as a line to the file; one write, so that runs side by side do not mix."""
    line = json.dumps({"call": call, "found": control(*call)}) + "\n"
    with Path(path).open("a") as file:
        file.write(line)


def runs(path: Path) -> dict[Call, dict[str, Any]]:
    """The results of all runs; those that `path` holds already are not made again."""
    wanted = calls()
    missing = [call for call in wanted if call not in read(path)]
    spread("vagram", "kept_run", [(str(path.absolute()), *call) for call in missing])
    found = read(path)
    return {call: found[call] for call in wanted}


def read(path: Path) -> dict[Call, dict[str, Any]]:
    """The runs of the file, the last of each."""
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [json.loads(line) for line in lines]
    return {tuple(entry["call"]): entry["found"] for entry in entries}
