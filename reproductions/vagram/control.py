"""Part B: pendulum with distractors and a small model, or neither; model-based SAC with each loss, and SAC alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ascent.systems import off_policy, vagram
from ascent.systems.config import ControlConfig
from ascent.systems.trial import Record
from ascent.training.loop import Loop
from ascent.training.processes import Processes

SEEDS = {"small/vagram": 3, "small/mse": 3, "small/sac": 2, "full/vagram": 1, "full/mse": 1}
STEPS, BLOCK, START = 12, 100, 300  # rounds of learning, environment steps of each, uniform steps before
CONDITIONS = {"small": {"model_hidden": [16], "distractors": 4}, "full": {"model_hidden": [128], "distractors": 0}}
ARMS = {"small": ("vagram", "mse", "sac"), "full": ("vagram", "mse")}
SHARED = {
    "start": START,
    "updates": 5,
    "batch": 64,
    "temperature": 0.1,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "temperature_learning_rate": 1e-3,
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


def control(condition: str, arm: str, seed: int) -> dict[str, Any]:
    """Returns of 10 held-out episodes after training, and one-step and value errors of the last fits."""
    chosen = CONDITIONS[condition]
    world = {**ENVIRONMENT, "distractors": chosen["distractors"]}
    own = {} if arm == "sac" else {**MODEL, "model_hidden": chosen["model_hidden"], "loss": arm}
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
    Loop(assembly.system, [record], evaluate_every=STEPS + 1).run()
    found = {"return": record.held_out[-1][1]["return"], "training": record.curve("episode_return")}
    for name in ("one_step_error", "value_error"):
        curve = record.curve(f"fit/{name}")
        found[name] = float(np.mean(curve[-2:])) if curve else None
    return found


def calls() -> list[tuple[str, str, int]]:
    """Every run."""
    return [(name, arm, seed) for name in CONDITIONS for arm in ARMS[name] for seed in range(SEEDS[f"{name}/{arm}"])]


def kept(path: Path, wanted: Sequence[tuple[str, str, int]]) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Results of the runs, those of `path` read and the others made and added to it, one line each."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        found[tuple(entry["call"])] = entry["found"]
    for call in wanted:
        if call not in found:
            found[call] = control(*call)
            with path.open("a") as file:
                file.write(json.dumps({"call": call, "found": found[call]}) + "\n")
    return {call: found[call] for call in wanted}
