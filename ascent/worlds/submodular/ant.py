"""An ant that is paid for ground it has not trodden: MuJoCo's Ant, F = number of covered cells of a 100 x 100 grid."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

CELLS = 100
REACH = 20.0  # the grid spans [-20, 20] metres both ways
STAMP = 2  # cells on each side of the torso's that are covered with it: 5 x 5


class AntCoverage(gymnasium.Env[Any, Any]):
    """Gymnasium's Ant-v5; a step earns a tenth of the cells that it covers first.

    Args:
        history: append the covered share of each of 10 x 10 blocks to what the policy sees (SubPO-NM).
        moves: of an episode, which is truncated then.

    Terminates where the torso leaves the grid. Ant-v5's own reward, and its death of an unhealthy ant, are not used.
    The torso's position (x, y), divided by 20, is part of the observation. Source: Prajapat et al. 2023
    (arXiv 2307.13372), with Ant-v5 instead of Ant-v4.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)

    def __init__(self, history: bool = False, moves: int = 400) -> None:
        self._ant = gymnasium.make(
            "Ant-v5",
            max_episode_steps=moves,
            terminate_when_unhealthy=False,
            include_cfrc_ext_in_observation=False,
            disable_env_checker=True,
        )
        self.history = history
        shape = self._ant.observation_space.shape
        assert shape is not None
        self.action_space = self._ant.action_space
        size = shape[0] + 2 + (100 if history else 0)
        self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.covered = np.zeros((CELLS, CELLS), bool)

    def _place(self) -> NDArray[np.float64]:
        data: Any = self._ant.unwrapped
        return np.asarray(data.data.qpos[:2], np.float64)

    def _stamp(self) -> int:
        """Cover the cells round the torso; how many were new."""
        row, column = np.floor((self._place() + REACH) / (2 * REACH) * CELLS).astype(int)
        # Cut at the border: a negative start would wrap round to the far side.
        patch = self.covered[max(row - STAMP, 0) : row + STAMP + 1, max(column - STAMP, 0) : column + STAMP + 1]
        new = int(patch.size - patch.sum())
        patch[...] = True
        return new

    def _seen(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [observation, self._place() / REACH]
        if self.history:
            parts.append(self.covered.reshape(10, 10, 10, 10).mean((1, 3)).reshape(-1))
        return np.concatenate(parts)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        super().reset(seed=seed)
        observation, _ = self._ant.reset(seed=seed, options=options)
        self.covered[...] = False
        self._stamp()
        return self._seen(observation), {"objective": float(self.covered.sum())}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        observation, _, _, truncated, _ = self._ant.step(action)
        outside = bool((np.abs(self._place()) >= REACH).any())
        new = 0 if outside else self._stamp()
        return self._seen(observation), new / 10, outside, truncated, {"objective": float(self.covered.sum())}

    def close(self) -> None:
        self._ant.close()
