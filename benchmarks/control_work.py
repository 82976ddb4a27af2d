"""What the arms of the control benchmark do: environments, sizes and constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Work:
    """What every arm does.

    Attributes:
        env: Gymnasium id; environments: copies, E.
        steps: of each copy per rollout; passes, minibatches: of the E x steps decisions.
        value: weight of half the squared error of the critic.
        value_clip: range in which the critic may leave its old value, or None.
        anneal: what falls linearly to 0 over the measured run; "both" is the learning rate and the clip range.
        fast, close: targets: times as fast as Stable-Baselines3, times as slow as the hand-written loop.
    """

    env: str
    environments: int
    steps: int
    passes: int
    minibatches: int
    discount: float = 0.99
    trace: float = 0.95
    clip: float = 0.2
    value_clip: float | None = None
    entropy: float = 0.0
    value: float = 1.0
    learning_rate: float = 3e-4
    anneal: Literal["none", "learning_rate", "both"] = "none"
    fast: float | None = None
    close: float | None = None

    @property
    def size(self) -> int:
        """Environment steps of a round."""
        return self.environments * self.steps

    @property
    def title(self) -> str:
        return f"PPO {self.env}, {self.environments} environment{'s' if self.environments > 1 else ''}"


WORKS: Mapping[str, Work] = {
    # ppo.py of CleanRL: every constant, with its clipped value loss and falling learning rate.
    "cartpole": Work(
        "CartPole-v1", 4, 128, 4, 4, value_clip=0.2, entropy=0.01, value=0.5, learning_rate=2.5e-4,
        anneal="learning_rate", fast=2.2, close=1.2,
    ),
    # Stable-Baselines3's defaults (minibatches of 64, whole squared error). CleanRL's ppo_continuous_action.py has
    # the same sizes and constants, and beside them value clipping, a falling rate and normalised observations.
    "halfcheetah_1": Work("HalfCheetah-v5", 1, 2048, 10, 32, fast=2.0),
    # The same rollout of 2048 decisions and minibatches of 64, so as many updates per step.
    "halfcheetah_8": Work("HalfCheetah-v5", 8, 256, 10, 32, fast=2.0),
}  # fmt: skip
