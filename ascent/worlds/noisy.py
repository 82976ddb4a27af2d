"""Environments whose forces or rewards are random, or that tell the time: what uncertainty-aware critics are tried on.

Registered as "ascent/NoisyCartPole-v0", "ascent/NoisyMountainCar-v0", "ascent/NoisyPendulum-v0" and "ascent/Timed-v0".
Every draw comes from the environment's own seeded generator, so seed and actions decide an episode.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeAwareObservation

FORCES = {"CartPole-v1": "force_mag", "MountainCar-v0": "force"}
"""Environments with a force, and the attribute that holds it."""


class NoisyForce(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Each step's force is multiplied by U(low, high).

    Args:
        environment: Gymnasium id, one of `FORCES`.
        low, high: of the factor; 0.7 and 1.3 is what the paper intends. Its released wrapper adds 1 to that,
            U(1.7, 2.3), which doubles the mean force: `low=1.7 high=2.3`.

    Source: Kim et al. 2024 (arXiv 2408.02295).
    """

    def __init__(self, environment: str = "CartPole-v1", low: float = 0.7, high: float = 1.3) -> None:
        if environment not in FORCES:
            raise ValueError(f"environment must be one of {', '.join(FORCES)}; got {environment!r}.")
        if not 0 <= low <= high:
            raise ValueError(f"low and high must be 0 <= low <= high; got low={low!r}, high={high!r}.")
        super().__init__(gymnasium.make(environment, disable_env_checker=True))
        self.low, self.high, self._name = low, high, FORCES[environment]
        self._force: float = vars(self.unwrapped)[self._name]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        factor = self.unwrapped.np_random.uniform(self.low, self.high)
        vars(self.unwrapped)[self._name] = self._force * factor
        return self.env.step(action)


class NoisyReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Adds Student-t noise to the reward: heavy tails at few degrees of freedom.

    Args:
        environment: Gymnasium id.
        degrees: of freedom, > 2, so that the variance is finite.
        scale: what the draw is multiplied by, >= 0.
        on: False leaves the reward alone (evaluation).
    """

    def __init__(
        self, environment: str = "Pendulum-v1", degrees: float = 3.0, scale: float = 1.0, on: bool = True
    ) -> None:
        if not degrees > 2:
            raise ValueError(f"degrees must be > 2; got {degrees!r}.")
        if not scale >= 0:
            raise ValueError(f"scale must be >= 0; got {scale!r}.")
        super().__init__(gymnasium.make(environment, disable_env_checker=True))
        self.degrees, self.scale, self.on = degrees, scale, on

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.on:
            reward = float(reward) + self.scale * float(np.asarray(self.unwrapped.np_random.standard_t(self.degrees)))
        return observation, reward, terminated, truncated, info


def timed(environment: str = "HalfCheetah-v5", **arguments: Any) -> gymnasium.Env[Any, Any]:
    """Any environment with a time limit, whose observation ends with the share of the time that is over.

    Raises:
        ValueError: the environment has no time limit.
    """
    made = gymnasium.make(environment, disable_env_checker=True, **arguments)
    if made.spec is None or made.spec.max_episode_steps is None:
        raise ValueError(f"environment must have a time limit to tell the time; {environment!r} has none.")
    return TimeAwareObservation(made, normalize_time=True)


def register() -> None:
    """Add the noisy worlds to Gymnasium's registry; a second call changes nothing."""
    wanted: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("ascent/NoisyCartPole-v0", "NoisyForce", {"environment": "CartPole-v1"}),
        ("ascent/NoisyMountainCar-v0", "NoisyForce", {"environment": "MountainCar-v0"}),
        ("ascent/NoisyPendulum-v0", "NoisyReward", {"environment": "Pendulum-v1"}),
        ("ascent/Timed-v0", "timed", {"environment": "HalfCheetah-v5"}),
    )
    for name, world, arguments in wanted:
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"ascent.worlds.noisy:{world}", kwargs=arguments)


register()
