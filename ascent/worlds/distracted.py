"""Environments with further numbers in the observation that have nothing to do with the task.

Registered as "ascent/Distracted-v0". The further numbers d follow a dynamical system of their own, beside the task.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

Kind = Literal["linear", "nonlinear", "rotation", "noise"]
KINDS = ("linear", "nonlinear", "rotation", "noise")


class Distracted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Appends d distracting numbers to the observation.

        linear      d' = L d            (L normal entries, scaled to spectral radius 1)
        nonlinear   d' = L d + 0.1 sum_j sin(P_ij d_j)            (P: squares of N(0, 10^2) draws)
        rotation    d' = Q d            (Q orthogonal: no number fades)
        noise       d' ~ N(0, 1)

    Args:
        environment: Gymnasium id with a vector observation.
        distractors: d >= 0.
        kind: see above.
        correlated: the linear map also reads the true observation.
        scale: deviation of d at the start of an episode, > 0.
        limit: d starts anew where a number of it is beyond this; 0 never.
        system: seed of L, P and Q: the same system for every copy and episode.

    Source: Voelcker et al. 2022 (arXiv 2204.01464) and its code, whose L is not scaled and diverges for d > 1; the
    scaling and "rotation" are Ascent's.
    """

    def __init__(
        self,
        environment: str = "Pendulum-v1",
        distractors: int = 4,
        kind: Kind = "linear",
        correlated: bool = False,
        scale: float = 0.1,
        limit: float = 20.0,
        system: int = 0,
    ) -> None:
        if not isinstance(distractors, int) or distractors < 0:
            raise ValueError(f"distractors must be an integer >= 0; got {distractors!r}.")
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
        if not scale > 0:
            raise ValueError(f"scale must be > 0; got {scale!r}.")
        if not limit >= 0:
            raise ValueError(f"limit must be >= 0; got {limit!r}.")
        super().__init__(gymnasium.make(environment, disable_env_checker=True))
        space = self.env.observation_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"environment must have a vector observation; {environment!r} has {space}.")
        self.distractors, self.kind, self.correlated = distractors, kind, correlated
        self.scale, self.limit, self.task = scale, limit, environment
        far = np.full(distractors, np.inf)
        self.observation_space = gymnasium.spaces.Box(
            np.concatenate([space.low, -far]).astype(np.float32), np.concatenate([space.high, far]).astype(np.float32)
        )
        draw = np.random.default_rng(system)
        self.own = draw.standard_normal((distractors, distractors))
        self.driven = draw.standard_normal((distractors, space.shape[0]))
        self.waves = np.square(10.0 * draw.standard_normal((distractors, distractors)))
        if distractors:
            if kind == "rotation":
                self.own = np.linalg.qr(self.own)[0]
            else:
                radius = np.abs(np.linalg.eigvals(self.own)).max()
                self.own, self.driven = self.own / radius, self.driven / radius
        self._distraction = np.zeros(distractors)
        self._before = np.zeros(space.shape[0])

    def _begin(self) -> NDArray[np.float64]:
        drawn: NDArray[np.float64] = self.scale * self.unwrapped.np_random.standard_normal(self.distractors)
        return drawn

    def _seen(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        return np.concatenate([observation, self._distraction]).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._distraction = self._begin()
        self._before = observation
        return self._seen(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._distraction = self._next()
        self._before = observation
        return self._seen(observation), reward, terminated, truncated, info

    def _next(self) -> NDArray[np.float64]:
        now = self._distraction
        if self.kind == "noise":
            fresh: NDArray[np.float64] = self.unwrapped.np_random.standard_normal(self.distractors)
            return fresh
        following = self.own @ now
        if self.correlated:
            following = following + self.driven @ self._before
        if self.kind == "nonlinear":
            following = following + 0.1 * np.sin(self.waves * now).sum(1)
        beyond = self.limit > 0 and bool((np.abs(following) > self.limit).any())
        return self._begin() if beyond else following


def register() -> None:
    """Add the distracted world to Gymnasium's registry; a second call changes nothing."""
    if "ascent/Distracted-v0" not in gymnasium.registry:
        gymnasium.register("ascent/Distracted-v0", entry_point="ascent.worlds.distracted:Distracted")


register()
