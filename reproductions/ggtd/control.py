"""B: PPO on CartPole with a random push, SAC on Pendulum with heavy-tailed reward noise; equal steps for every arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascent.core.method import Method
from ascent.evaluation.returns import evaluate_returns
from ascent.evaluation.td_errors import fit, histogram
from ascent.policies.actor_critic import ActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.systems.config import ControlConfig
from ascent.systems.run import assemble
from ascent.training.loop import Loop
from ascent.training.processes import Processes
from ascent.worlds.gym import Environments

ARMS = ("plain", "base", "gd", "iv_gd", "ggd", "iv_ggd", "iev_ggd", "ggd, product")
COLLECTIONS, ENVIRONMENTS, COLUMNS, EVALUATED, EPISODES = 60, 8, 128, 6, 20
PPO: dict[str, Any] = {"passes": 4, "minibatches": 8, "learning_rate": 1e-3, "discount": 0.98, "trace": 0.9}
SAC_BLOCKS = 60
SAC: dict[str, Any] = {"batch": 64, "start": 512, "learning_rate": 1e-3}


def composed(arm: str, settings: Mapping[str, Any], algorithm: str) -> tuple[str, tuple[str, ...]]:
    """Slug and `set` of an arm; `plain` is the algorithm of the library with one critic (SAC's two)."""
    given = {**settings}
    if arm == "plain":
        if algorithm == "sac":
            given = {**given, "critic_learning_rate": given["learning_rate"]}
            given["temperature_learning_rate"] = given["learning_rate"]
        return algorithm, tuple(f"{name}={value}" for name, value in given.items())
    given |= {"algorithm": algorithm, "variant": arm.removesuffix(", product")}
    if arm.endswith("product"):
        given["form"] = "product"
    return "ggtd", tuple(f"{name}={value}" for name, value in given.items())


class Watch:
    """Held-out returns on the way, and how much the said spread varies (its coefficient of variation)."""

    def __init__(self, evaluate: Callable[[], float], every: int) -> None:
        self.evaluate, self.every = evaluate, every
        self.returns: list[float] = []
        self.spread: list[float] = []

    def updated(self, loop: Loop) -> None:
        """Only steps are watched."""

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        if "spread" in metrics:
            deviation = max(metrics["spread_square"] - metrics["spread"] ** 2, 0.0) ** 0.5
            self.spread.append(round(deviation / metrics["spread"], 4))
        if loop.step % self.every == 0:
            self.returns.append(self.evaluate())

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        """Held-out returns are measured at each `every` steps instead."""


def cartpole(arm: str, seed: int) -> dict[str, Any]:
    """PPO, 61,440 steps of noisy CartPole, evaluated six times over held-out episodes with the same noise."""
    slug, chosen = composed(arm, PPO, "ppo")
    config = ControlConfig(
        method=slug,
        env="ascent/NoisyCartPole-v0",
        set=chosen,
        environments=ENVIRONMENTS,
        horizon=COLUMNS,
        steps=COLLECTIONS,
        seed=seed,
    )
    return trained(config, config.composed(), COLLECTIONS)


def pendulum(arm: str, seed: int) -> dict[str, Any]:
    """SAC, about 3,840 steps of Pendulum with noisy rewards (Student t, 3 degrees), evaluated without the noise."""
    slug, chosen = composed(arm, SAC, "sac")
    config = ControlConfig(
        method=slug, env="ascent/NoisyPendulum-v0", set=chosen, hidden=(64, 64), steps=SAC_BLOCKS, seed=seed
    )
    return trained(config, config.composed(), SAC_BLOCKS)


def trained(config: ControlConfig, method: Method, steps: int) -> dict[str, Any]:
    """Train in memory; the returns on the way and what the TD errors of the last critic look like."""
    assembly = assemble(config, method, Processes())
    policy: Any = assembly.system.models["policy"]
    noisy = config.env == "ascent/NoisyPendulum-v0"

    def score() -> float:
        if noisy:
            return evaluate_returns(policy, "Pendulum-v1", EPISODES, squashed=True).mean
        return evaluate_returns(policy, config.env, EPISODES).mean

    watch = Watch(score, steps // EVALUATED)
    Loop(assembly.system, (watch,)).run()
    errors = last_errors(policy, config.env) if isinstance(policy, ActorCritic) else None
    found: dict[str, Any] = {
        "returns": [round(number, 2) for number in watch.returns],
        "area": float(np.mean(watch.returns)),
        "final": watch.returns[-1],
        "variation": watch.spread,
    }
    if errors is not None:
        found |= {"fit": vars(fit(errors)), "histogram": histogram(errors)}
    return found


def last_errors(policy: ActorCritic, env: str) -> Tensor:
    """One-step TD errors of the members' means on fresh steps of the last policy."""
    batch = VectorSampler(policy, Environments(env, ENVIRONMENTS), COLUMNS, seed=77).act()
    batch = policy.annotate(batch, frozenset({"value", "next_value"}))
    value, following = batch.value, batch.next_value
    if value.dim() == 3:
        value, following = value.mean(-1), following.mean(-1)
    with torch.no_grad():
        return (value - batch.reward - PPO["discount"] * following).flatten()
