"""B: PPO on CartPole with a random push, SAC on Pendulum with heavy-tailed reward noise; equal steps for every arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ascent.core.uncertainty import shapes, variances
from ascent.evaluation.returns import evaluate_returns
from ascent.evaluation.td_errors import fit, histogram
from ascent.policies.actor_critic import SPREAD
from ascent.sampling.vector import VectorSampler
from ascent.systems.assembly import Assembly
from ascent.systems.config import ControlConfig
from ascent.systems.run import assemble
from ascent.training.loop import Loop
from ascent.training.processes import Processes
from ascent.worlds.gym import Environments

VARIANTS = ("base", "gd", "iv_gd", "ggd", "iv_ggd", "iev_ggd")
ABLATIONS: dict[str, dict[str, Any]] = {
    "coefficient 1": {"coefficient": 1.0},
    "regulariser added, not averaged": {"reduction": "token-sum"},
    "no weights": {"over": "none"},
    "weights over the batch": {"over": "batch"},
    "3 members": {"members": 3},
    "10 members": {"members": 10},
    "least batch 64": {"least": 64},
    "product form (release)": {"form": "product"},
}
RELEASED = {"base, released push": "base", "iev_ggd, released push": "iev_ggd"}
COLLECTIONS, ENVIRONMENTS, COLUMNS = 42, 8, 128
BLOCKS = 48
STAGES, EPISODES, BATCHES = 6, 20, 16
PPO: dict[str, Any] = {"passes": 4, "minibatches": 8, "learning_rate": 1e-3, "discount": 0.98, "trace": 0.9}
SAC: dict[str, Any] = {"batch": 64, "start": 512, "learning_rate": 1e-3}


def chosen(arm: str) -> dict[str, Any]:
    """What an arm gives to ggtd."""
    if arm in ABLATIONS:
        return ABLATIONS[arm]
    return {"variant": RELEASED.get(arm, arm)}


def texts(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in settings.items())


class Watch:
    """Held-out returns and TD errors at equal distances, and how much the said spread varies in every step."""

    def __init__(self, score: Callable[[], float], look: Callable[[], dict[str, Any]], every: int) -> None:
        self.score, self.look, self.every, self.steps = score, look, every, 0
        self.returns: list[float] = []
        self.stages: list[dict[str, Any]] = []
        self.variation: list[float] = []

    def updated(self, loop: Loop) -> None:
        """Only steps are watched."""

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        name = next((name for name in ("spread", "critic/spread") if name in metrics), None)
        if name is not None:
            deviation = max(metrics[f"{name}_square"] - metrics[name] ** 2, 0.0) ** 0.5
            self.variation.append(deviation / metrics[name])
        self.steps += loop.updates > 0  # SAC's uniform start is a step without one
        if self.steps and self.steps % self.every == 0:
            self.returns.append(round(self.score(), 2))
            self.stages.append(self.look())

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        """Held-out returns are measured every `every` steps instead."""


def cartpole(arm: str, seed: int) -> dict[str, Any]:
    """PPO, 43,008 steps of noisy CartPole; held-out episodes have the same noise. `plain` is PPO with one critic."""
    config = ControlConfig(
        method="ppo" if arm == "plain" else "ggtd",
        env="ascent/NoisyCartPole-v0",
        env_set=("low=1.7", "high=2.3") if arm in RELEASED else (),
        set=texts(PPO if arm == "plain" else {**PPO, **chosen(arm)}),
        environments=ENVIRONMENTS,
        horizon=COLUMNS,
        steps=COLLECTIONS,
        seed=seed,
    )
    assembly = assemble(config, config.composed(), Processes())
    policy: Any = assembly.system.models["policy"]

    def worlds(count: int) -> Environments:
        return Environments(config.env, count, arguments=config.env_arguments)

    def score() -> float:
        return evaluate_returns(policy, worlds(4), EPISODES).mean

    def look() -> dict[str, Any]:
        """One-step TD errors of every member on fresh steps."""
        batch = VectorSampler(policy, worlds(ENVIRONMENTS), COLUMNS, seed=77).act()
        batch = policy.annotate(batch, frozenset({"value", "next_value"}))
        wide = batch.value.dim() == 3
        reward = batch.reward.unsqueeze(-1) if wide else batch.reward
        error = batch.value - reward - PPO["discount"] * batch.next_value
        said = None
        if wide and policy.spread is not None:
            with torch.no_grad():
                said = policy.evaluate(batch, frozenset({"value", SPREAD})).column("value_spread")
        return seen(error, heads(arm, said), seed)

    return trained(assembly, Watch(score, look, COLLECTIONS // STAGES))


def pendulum(arm: str, seed: int) -> dict[str, Any]:
    """SAC, 3,584 steps of Pendulum with rewards plus Student t (3 degrees); held-out episodes have no noise."""
    config = ControlConfig(
        method="ggtd",
        env="ascent/NoisyPendulum-v0",
        set=texts({"algorithm": "sac", **SAC, **chosen(arm)}),
        hidden=(64, 64),
        steps=BLOCKS,
        seed=seed,
    )
    method = config.composed()
    assembly = assemble(config, method, Processes())
    models: Mapping[str, Any] = assembly.system.models
    shared: Any = assembly.system.memories["shared"]

    def score() -> float:
        return evaluate_returns(models["policy"], "Pendulum-v1", EPISODES, squashed=True).mean

    def look() -> dict[str, Any]:
        """TD errors of every network on draws from the replay memory that no update learns from."""
        errors, said = [], []
        for round_ in range(10**6, 10**6 + BATCHES):
            batch = method.companions["critic"].credit(shared.annotate(shared.memory.draw(round_), round_))
            with torch.no_grad():
                now = models["critic"].evaluate(batch, method.companions["critic"].evaluates)
            errors.append(now.value - batch.value_target)
            said.append(now.probes.get("value_spread"))
        return seen(torch.cat(errors), heads(arm, None if said[0] is None else torch.cat(said)), seed)

    return trained(assembly, Watch(score, look, BLOCKS // STAGES))


def heads(arm: str, raw: Tensor | None) -> Tensor | None:
    """The variances or shapes that an arm's critics say."""
    if raw is None:
        return None
    return variances(raw) if chosen(arm).get("variant") in ("gd", "iv_gd") else shapes(raw)


def seen(error: Tensor, width: Tensor | None, seed: int) -> dict[str, Any]:
    """What TD errors look like, and what is said of them. The first seed keeps its histogram."""
    found: dict[str, Any] = {name: round(number, 4) for name, number in vars(fit(error)).items()}
    if width is not None:
        numbers = {"mean": width.mean(), "deviation": width.std(), "least": width.min(), "most": width.max()}
        numbers["up_to_2"] = (width <= 2).double().mean()
        found["said"] = {name: round(float(number), 4) for name, number in numbers.items()}
    if seed == 0:
        bars = histogram(error)
        found["histogram"] = {name: [round(x, 5) for x in numbers] for name, numbers in bars.items()}
    return found


def trained(assembly: Assembly, watch: Watch) -> dict[str, Any]:
    """Train in memory; returns on the way, TD errors at six stages, variation of the spread by stage."""
    Loop(assembly.system, (watch,)).run()
    found: dict[str, Any] = {"returns": watch.returns, "stages": watch.stages}
    if watch.variation:
        numbers = np.array(watch.variation)
        found["variation"] = [round(float(part.mean()), 4) for part in np.array_split(numbers, STAGES)]
        # Steps between neighbours in relation to the level, so that a small number is not called smooth for its size.
        found["roughness"] = round(float(np.abs(np.diff(numbers)).mean() / numbers.mean()), 4)
    return found
