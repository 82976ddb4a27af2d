"""Tiny worlds that can be understood entirely: a bandit, and the two-step choice and grid worlds of the PROPS paper.

Registered as "ascent/Bandit-v0", "ascent/TwoStep-v0", "ascent/GridWorld5-v0" and "ascent/GridWorld8-v0". States are
Discrete; a linear softmax over their one-hot form is a tabular policy.
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium import spaces

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right as (row, column)


class TwoStep(gymnasium.Env[Any, Any]):
    """Seven states, two actions (0 left, 1 right), two steps.

    0 -> 1 | 2; 1 -> 3 (reward 2) | 4 (reward 0.5); 2 -> 5 | 6 (reward 1). Under a uniform second action
    left is worth 1.25 and right 1.0, so exact gradients go left, but an over-sampled 0.5 misleads.
    Source: the TwoStep MDP of Corrado and Hanna 2023 (arXiv 2311.08290).
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)
    SUCCESSOR = ((1, 2), (3, 4), (5, 6))
    REWARD = (0.0, 0.0, 0.0, 2.0, 0.5, 1.0, 1.0)

    def __init__(self) -> None:
        self.observation_space = spaces.Discrete(7)
        self.action_space = spaces.Discrete(2)
        self.state = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.state = self.SUCCESSOR[self.state][int(action)]
        return self.state, self.REWARD[self.state], self.state >= 3, False, {}


class Bandit(gymnasium.Env[Any, Any]):
    """One state, `arms` choices, an episode is one choice.

    Args:
        arms: number of choices, >= 1.
        rewards: of each choice; 0 everywhere when not given, for studies of sampling alone.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)

    def __init__(self, arms: int = 10, rewards: tuple[float, ...] | None = None) -> None:
        self.rewards = (0.0,) * arms if rewards is None else tuple(rewards)
        if len(self.rewards) != arms:
            raise ValueError(f"rewards must be {arms} numbers, one an arm; got {len(self.rewards)}.")
        self.observation_space = spaces.Discrete(1)
        self.action_space = spaces.Discrete(arms)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return 0, float(self.rewards[int(action)]), True, False, {}


class GridWorld(gymnasium.Env[Any, Any]):
    """A square grid; the state is `row * size + column`, the actions are up, down, left, right.

    Args:
        size: cells on a side.
        start: cell in which an episode begins.
        goals: reward of each terminal cell.
        step_reward: of any other move.
        bump_reward: of a move against a wall (the agent stays).

    Episodes are cut by the registered `max_episode_steps`, which truncates. Source: as TwoStep.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)

    def __init__(
        self,
        size: int = 5,
        start: tuple[int, int] = (2, 2),
        goals: tuple[tuple[tuple[int, int], float], ...] = (((0, 0), 0.5), ((4, 4), 1.0)),
        step_reward: float = -0.01,
        bump_reward: float = -0.01,
    ) -> None:
        self.size = size
        self.start = start
        self.goals = dict(goals)
        self.step_reward = step_reward
        self.bump_reward = bump_reward
        self.observation_space = spaces.Discrete(size * size)
        self.action_space = spaces.Discrete(4)
        self.cell = start

    def _state(self) -> int:
        return self.cell[0] * self.size + self.cell[1]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell = self.start
        return self._state(), {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        down, right = MOVES[int(action)]
        row, column = self.cell[0] + down, self.cell[1] + right
        inside = 0 <= row < self.size and 0 <= column < self.size
        if inside:
            self.cell = (row, column)
        ended = inside and self.cell in self.goals
        reward = self.goals[self.cell] if ended else self.step_reward if inside else self.bump_reward
        return self._state(), float(reward), ended, False, {}


def register() -> None:
    """Add the toy worlds to Gymnasium's registry; a second call changes nothing."""
    wanted: tuple[tuple[str, str, int | None, dict[str, Any]], ...] = (
        ("ascent/TwoStep-v0", "TwoStep", None, {}),
        ("ascent/Bandit-v0", "Bandit", None, {}),
        ("ascent/GridWorld5-v0", "GridWorld", 15, {}),
        (
            "ascent/GridWorld8-v0",
            "GridWorld",
            30,
            {"size": 8, "start": (0, 0), "goals": (((7, 7), 1.0),), "step_reward": -0.1, "bump_reward": -1.0},
        ),
    )
    for name, world, horizon, arguments in wanted:
        if name not in gymnasium.registry:
            gymnasium.register(
                name, entry_point=f"ascent.worlds.toy:{world}", max_episode_steps=horizon, kwargs=arguments
            )


register()
