"""How much a policy earns: deterministic actions over held-out episode seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ascent.core.random import key
from ascent.sampling.vector import ActingPolicy
from ascent.worlds.gym import Environments
from ascent.worlds.normalisation import RunningStatistics


@dataclass(frozen=True)
class Returns:
    """Undiscounted raw returns and lengths of finished episodes, in order of their seeds."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def mean(self) -> float:
        return float(self.returns.mean())

    @property
    def deviation(self) -> float:
        """Population standard deviation over episodes."""
        return float(self.returns.std())


def evaluate_returns(
    policy: ActingPolicy,
    environment: str | Callable[[], gymnasium.Env[Any, Any]] | Environments,
    episodes: int = 20,
    seed: int = 0,
    observation_statistics: RunningStatistics | None = None,
    environments: int = 4,
    squashed: bool = False,
) -> Returns:
    """Play `episodes` whole episodes with the most likely action (argmax, mean); seeds differ from training's.

    Args:
        policy: gives `numpy_actor()`.
        environment: Gymnasium id, a function that makes one, or copies to play in (their episodes are dropped).
        episodes: >= 1. Every seeded episode counts, so short ones are not preferred.
        seed: of the held-out episodes; the same seed gives the same starts for any policy.
        observation_statistics: the training sampler's, used and left unchanged.
        environments: copies stepped together, when made here.
        squashed: actions are scaled, not clipped, when made here.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be an integer >= 1; got {episodes!r}.")
    if isinstance(environment, Environments):
        return _play(policy, environment, episodes, seed, observation_statistics)
    worlds = Environments(environment, min(environments, episodes), squashed)
    try:
        return _play(policy, worlds, episodes, seed, observation_statistics)
    finally:
        worlds.close()


def _play(
    policy: ActingPolicy,
    worlds: Environments,
    episodes: int,
    seed: int,
    observation_statistics: RunningStatistics | None,
) -> Returns:
    count = worlds.count
    actor = policy.numpy_actor()
    actor.begin(count)
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    # Each copy plays one seeded episode after another; copies that have none left idle in repeated ones.
    playing = np.arange(count)
    upcoming = count
    observation = worlds.reset([_held_out(seed, int(number)) for number in playing], np.ones(count, bool))
    while (playing < episodes).any():
        seen = np.asarray(observation, np.float32)
        if observation_statistics is not None:
            seen = observation_statistics.normalise(seen)
        observation, reward, terminated, truncated = worlds.step(policy.head.mode(actor.outputs(seen)))
        active = playing < episodes
        returns[playing[active]] += reward[active]
        lengths[playing[active]] += 1
        ended = terminated | truncated
        if ended.any():
            for place in np.flatnonzero(ended):
                playing[place] = upcoming
                upcoming += 1
            observation = worlds.reset([_held_out(seed, int(number)) for number in playing], ended)
            actor.restart(ended)
    return Returns(returns, lengths)


def _held_out(seed: int, number: int) -> int:
    return key(seed, "held-out", number) & 0x7FFF_FFFF
