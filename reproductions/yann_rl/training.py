"""One training on a plant: an episode a step, its cost and its violations, and held-out costs on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ascent.evaluation.regions import change
from ascent.evaluation.returns import evaluate_returns
from ascent.policies.affine.actor import AffineActor
from ascent.sampling.vector import VectorSampler
from ascent.systems import off_policy, yann_rl
from ascent.systems.config import ControlConfig
from ascent.training.loop import Loop
from ascent.training.processes import Processes
from ascent.training.program import Collect, Repeat
from ascent.worlds.gym import Environments

PLANTS = {"pendulum": ("ascent/ClippedPendulum-v0", 200), "reactor": ("ascent/SafetyReactor-v0", 100)}
"""Environment and steps of an episode."""
HELD_OUT = 20
LATTICE = 41
ARMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "YANN-DDPG": ("yann_rl", ("critic=quadratic", "critic_learning_rate=0.0001")),
    "YANN actor, random critic": ("yann_rl", ("critic=random", "critic_learning_rate=0.001")),
    "DDPG, noise 0.1": (
        "ddpg",
        ("noise=normal", "exploration=0.1", "critic_weight_decay=0.0", "critic_learning_rate=0.001"),
    ),
}
"""Method and settings besides the policy's rate. All arms: batch 64, one update a step, target rate 1e-3."""


class Watch:
    """Held-out costs every so many episodes, and what the training episodes did."""

    def __init__(self, sampler: VectorSampler, plant: str, every: int) -> None:
        self.sampler, self.every = sampler, every
        name, self.length = PLANTS[plant]
        self.worlds = Environments(name, HELD_OUT, squashed=True)
        self.held_out: list[dict[str, Any]] = []
        self.violations: list[int] = []

    def look(self, episodes: int) -> None:
        """Costs of the same held-out starts, whoever acts."""
        before = self.worlds.violations() or 0
        found = evaluate_returns(self.sampler.policy, self.worlds, HELD_OUT)
        beyond = (self.worlds.violations() or 0) - before
        costs = (-found.returns).round(4).tolist()
        self.held_out.append({"episodes": episodes, "costs": costs, "violations": int(beyond)})

    def updated(self, loop: Loop) -> None:
        """Nothing happens between updates."""

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        self.violations.append(int(self.sampler.environments.violations() or 0))
        if loop.step % self.every == 0 or loop.step == loop.total:
            self.look(loop.step)

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        """Held-out costs are looked at by `look`."""


def training(plant: str, arm: str, rate: float, seed: int, episodes: int, every: int) -> dict[str, Any]:
    """What one run left: held-out costs, training costs, violations, and how the law moved."""
    torch.manual_seed(seed)
    name, length = PLANTS[plant]
    slug, settings = ARMS[arm]
    config = ControlConfig(
        method=slug,
        env=name,
        environments=1,
        horizon=length,
        steps=episodes - 1,
        seed=seed,
        hidden=(256, 256) if slug == "ddpg" else None,
        set=(*settings, f"learning_rate={rate}", f"start={length}", "capacity=100000"),
    )
    method = config.composed()
    build = yann_rl.build if slug == "yann_rl" else off_policy.build
    system = build(config, method, Processes()).system
    sampler = acting(system.program)
    watch = Watch(sampler, plant, every)
    watch.look(0)
    actor = sampler.policy
    before = added(actor, plant) if isinstance(actor, AffineActor) else None
    Loop(system, [watch]).run()
    result: dict[str, Any] = {
        "held_out": watch.held_out,
        "training": [round(-total, 4) for total, _ in sampler.recent],
        "violations": watch.violations,
    }
    if isinstance(actor, AffineActor) and before is not None:
        low, high = _box(plant)
        result["start_difference"] = float(np.abs(before).max())
        result["change"] = np.nan_to_num(change(actor.law, lambda x: _inputs(actor, x), low, high)).round(5).tolist()
        result["added"] = added(actor, plant).round(3).tolist()
    watch.worlds.close()
    return result


def acting(program: Any) -> VectorSampler:
    """The sampler of an off-policy program."""
    block = program[-1].stages[0]
    assert isinstance(block, Repeat)
    collect = block.stages[0]
    assert isinstance(collect, Collect) and isinstance(collect.sampler, VectorSampler)
    return collect.sampler


def _box(plant: str) -> tuple[Any, Any]:
    worlds = Environments(PLANTS[plant][0], 1, squashed=True)
    return yann_rl.design_of(worlds).state_limits


def _inputs(actor: AffineActor, state: Any) -> Any:
    """Inputs in the plant's units, as the plant receives them."""
    return actor.middle + actor.reach * actor.head.mode(actor.numpy_actor().outputs(state))


def added(actor: AffineActor, plant: str) -> Any:
    """What the present policy adds to the law on a lattice of the plant's states, [LATTICE, LATTICE]."""
    low, high = _box(plant)
    grid = np.stack(np.meshgrid(*(np.linspace(low[k], high[k], LATTICE) for k in (0, 1))), axis=-1).reshape(-1, 2)
    return (_inputs(actor, grid) - actor.law.evaluate(grid))[:, 0].reshape(LATTICE, LATTICE)
