"""The arms of the off-policy benchmark: SAC by this library, by Stable-Baselines3, and by hand, with equal settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scratch_sac import ScratchSAC

from ascent.evaluation.returns import evaluate_returns
from ascent.policies.actor_critic import Actor
from ascent.policies.continuous import ContinuousHead
from ascent.sampling.vector import ActingPolicy
from ascent.systems.config import ControlConfig
from ascent.systems.off_policy import build
from ascent.training.loop import Loop, System
from ascent.training.processes import Processes

OURS, PEER, HAND, FLOOR = "ascent", "stable-baselines3", "hand-written", "matrix products alone"


@dataclass(frozen=True)
class Setting:
    """What all arms share; one environment, one update a step, a learned temperature."""

    env: str = "Pendulum-v1"
    hidden: tuple[int, int] = (256, 256)
    batch: int = 256
    start: int = 300
    capacity: int = 100_000
    discount: float = 0.99
    rate: float = 0.005
    learning_rate: float = 3e-4


class Arm(Protocol):
    """Advances by environment steps, each with its update once the warm-up is over."""

    policy: ActingPolicy

    def advance(self, steps: int) -> None: ...


def configured(setting: Setting, seed: int, block: int) -> ControlConfig:
    """The library's configuration; the temperature's loss in the form that the peer has."""
    sizes = {
        "batch": setting.batch,
        "start": setting.start,
        "capacity": setting.capacity,
        "discount": setting.discount,
        "target_rate": setting.rate,
        "learning_rate": setting.learning_rate,
        "critic_learning_rate": setting.learning_rate,
        "temperature_learning_rate": setting.learning_rate,
        "temperature_form": "log",
    }
    return ControlConfig(
        method="sac",
        env=setting.env,
        environments=1,
        horizon=block,
        steps=10**9,
        hidden=setting.hidden,
        seed=seed,
        set=tuple(f"{name}={number}" for name, number in sizes.items()),
        evaluate_every=0,
    )


class Ours:
    """The library's program, in blocks of 50 steps."""

    BLOCK = 50

    def __init__(self, setting: Setting, seed: int) -> None:
        config = configured(setting, seed, self.BLOCK)
        self.system: System = build(config, config.composed(), Processes()).system
        self.policy: Any = self.system.models["policy"]
        self.loop = Loop(self.system)
        self.start, self.train = self.system.program
        self.train.until = self.wanted = 0

    def advance(self, steps: int) -> None:
        self.wanted += steps
        self.start.run(self.loop)
        self.train.until += max(-(-(self.wanted - self.system.consumed()) // self.BLOCK), 0)
        self.train.run(self.loop)


class Hand:
    """The hand-written loop."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.loop = ScratchSAC(
            setting.env,
            setting.hidden,
            setting.batch,
            setting.capacity,
            setting.start,
            seed,
            setting.discount,
            setting.rate,
            setting.learning_rate,
        )
        size = self.loop.size

        def outputs(observation: NDArray[Any]) -> NDArray[Any]:
            x = observation
            weights = [parameter.detach().numpy() for parameter in self.loop.actor]
            for place in range(0, len(weights), 2):
                x = x @ weights[place].T + weights[place + 1]
                x = np.maximum(x, 0.0) if place < len(weights) - 2 else x
            return x

        self.policy: ActingPolicy = Foreign(ContinuousHead(size, soft=True), outputs)

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self.loop.step()


@dataclass
class Foreign:
    """A policy of another loop as the evaluation sees it."""

    head: ContinuousHead
    outputs: Callable[[NDArray[Any]], NDArray[Any]]

    def numpy_actor(self) -> Actor:
        return Actor(self.head, None, self.outputs)


class Peer:
    """Stable-Baselines3 with the same sizes and rates."""

    def __init__(self, setting: Setting, seed: int) -> None:
        from stable_baselines3 import SAC

        self.model = SAC(
            "MlpPolicy",
            setting.env,
            learning_rate=setting.learning_rate,
            buffer_size=setting.capacity,
            learning_starts=setting.start,
            batch_size=setting.batch,
            tau=setting.rate,
            gamma=setting.discount,
            train_freq=1,
            gradient_steps=1,
            policy_kwargs={"net_arch": list(setting.hidden)},
            seed=seed,
            device="cpu",
        )
        actor = self.model.actor
        space = self.model.action_space
        assert space.shape is not None

        @torch.no_grad()
        def outputs(observation: NDArray[Any]) -> NDArray[Any]:
            latent = actor.latent_pi(torch.from_numpy(observation))
            found: NDArray[Any] = torch.cat((actor.mu(latent), actor.log_std(latent)), -1).numpy()  # type: ignore[operator]
            return found

        self.policy: ActingPolicy = Foreign(ContinuousHead(space.shape[0], soft=True), outputs)

    def advance(self, steps: int) -> None:
        self.model.learn(steps, reset_num_timesteps=False)


class Floor:
    """The matrix products of an update between hidden layers and nothing else, into buffers that are there.

    One of the actor for the next action, two of the target critics; two forward and four backward of the critics; for
    the policy one forward and two backward of the actor, two forward and two backward of the critics: 16 in all.
    """

    def __init__(self, setting: Setting, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        inputs, outputs = setting.hidden
        self.one = [torch.randn(*shape, generator=draw) for shape in ((setting.batch, inputs), (inputs, outputs))]
        self.two = [tensor.expand(2, *tensor.shape).contiguous() for tensor in self.one]
        self.results = torch.empty(setting.batch, outputs), torch.empty(2, setting.batch, outputs)
        self.policy: Any = None

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            for _ in range(4):
                torch.mm(*self.one, out=self.results[0])
            for _ in range(6):
                torch.bmm(*self.two, out=self.results[1])


ARMS: dict[str, Callable[[Setting, int], Arm]] = {OURS: Ours, PEER: Peer, HAND: Hand, FLOOR: Floor}

TO_REWARD = Setting(hidden=(64, 64), batch=128, start=500, learning_rate=1e-3)
"""Pendulum within a few thousand steps."""


class Clock(Protocol):
    """Training time, stopped while something else happens."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def until(
    name: str,
    seed: int,
    clock: Clock,
    solved: float = -200.0,
    every: int = 250,
    budget: int = 15_000,
    episodes: int = 100,
    setting: Setting = TO_REWARD,
) -> int | None:
    """Environment steps until the mean held-out return of deterministic actions is `solved`, evaluated off the clock.

    Args:
        name: of the arm.
        every: steps between two evaluations, a multiple of 50; budget: most steps.
        episodes: held out, of this seed, equal for every arm.
    """
    arm = ARMS[name](setting, seed)
    for taken in range(every, budget + 1, every):
        clock.start()
        arm.advance(every)
        clock.stop()
        found = evaluate_returns(arm.policy, setting.env, episodes, seed, environments=10, squashed=True)
        if taken > setting.start and found.mean >= solved:
            return taken
    return None
