"""An environment of your own: a cart on a rail that must stop at the mark.

    PYTHONPATH=examples ascent train --method ppo --env gymnasium_env:Stopping-v0 --steps 40

`module:id` imports the module, which registers the environment; `PYTHONPATH` lets Python find it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

State = NDArray[np.float32]


class Stopping(gymnasium.Env[State, State]):
    """Position and speed are seen, a push in [-1, 1] is the action; the nearer to 0 and the slower, the better.

    Leaving the rail terminates (nothing follows); the time limit that `register` sets truncates (more would follow),
    and Ascent treats the two apart.
    """

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.state = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[State, dict[str, Any]]:
        # Episodes are seeded by the caller; draws must come from self.np_random so that a run can be resumed.
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self.state.copy(), {}

    def step(self, action: State) -> tuple[State, float, bool, bool, dict[str, Any]]:
        position, speed = self.state
        speed = speed + 0.1 * float(action[0])
        position = position + 0.1 * speed
        self.state = np.array([position, speed], np.float32)
        lost = abs(position) > 2.0
        reward = 1.0 - position**2 - 0.1 * speed**2 - (10.0 if lost else 0.0)
        return self.state.copy(), float(reward), bool(lost), False, {}


gymnasium.register("Stopping-v0", entry_point="gymnasium_env:Stopping", max_episode_steps=100)
