"""A small room of words: fetch the key, open the door, walk to the goal. What is seen are names, not numbers.

Registered as "ascent/DoorKey-v0". The room has `size` x `size` cells and a wall across it with one locked door. The
agent, the key and the goal start in random places, the goal behind the door. The agent sees the 5 x 5 cells around it,
what it faces and what it carries: 27 words.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

CELLS = ("wall", "empty", "key", "door, locked", "door, open", "goal")
FACING = ("up", "down", "left", "right")
CARRYING = ("nothing", "key")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
WALL, EMPTY, KEY, LOCKED, OPEN, GOAL = range(6)
PICK_UP, TOGGLE = 4, 5
VIEW, REACH = 5, 2
WORDS = (CELLS,) * VIEW**2 + (FACING, CARRYING)
NAMES = (*(f"cell {row:+d} {column:+d}" for row in range(-2, 3) for column in range(-2, 3)), "facing", "carrying")
LETTERS = "abcdefghijklmnopqrstuvwxyz, "

Coding = Literal["category", "integer", "one_hot", "words"]


class DoorKey(gymnasium.Env[Any, Any]):
    """Actions 0-3 turn to and walk up, down, left, right; 4 picks up the key and 5 opens the door that is faced.

    The reward is 1 - 0.9 t / steps at the goal, and the episode ends there; it is truncated after `steps`.

    Args:
        observation: "category": the words' codes as MultiDiscrete; "integer": the same codes as numbers (Box);
            "one_hot": Box; "words": the words themselves (Tuple of Text).
        size: of the room, >= 4.
        steps: most of an episode, >= 1.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)

    def __init__(self, observation: Coding = "category", size: int = 5, steps: int = 80) -> None:
        if observation not in ("category", "integer", "one_hot", "words"):
            raise ValueError(f"observation must be category, integer, one_hot or words; got {observation!r}.")
        if size < 4:
            raise ValueError(f"size must be >= 4, for a wall with a cell on either side; got {size}.")
        self.observation, self.size, self.steps = observation, size, steps
        counts = np.array([len(words) for words in WORDS])
        self._first = np.concatenate([[0], counts.cumsum()[:-1]])
        total = int(counts.sum())
        self.observation_space: spaces.Space[Any]
        if observation == "category":
            self.observation_space = spaces.MultiDiscrete(counts)
        elif observation == "integer":
            self.observation_space = spaces.Box(np.zeros(len(counts), np.float32), (counts - 1).astype(np.float32))
        elif observation == "one_hot":
            self.observation_space = spaces.Box(0.0, 1.0, (total,), np.float32)
        else:
            self.observation_space = spaces.Tuple([spaces.Text(20, charset=LETTERS) for _ in WORDS])
        self.action_space = spaces.Discrete(6)
        self._grid = np.zeros((size + 2 * REACH, size + 2 * REACH), np.int64)
        self._place, self._facing, self._carries, self._time = (0, 0), 0, 0, 0

    def codes(self) -> NDArray[np.int64]:
        """[27] codes of the words that are seen now."""
        row, column = self._place
        seen = self._grid[row : row + VIEW, column : column + VIEW].ravel()
        return np.concatenate([seen, [self._facing, self._carries]])

    def words(self) -> tuple[str, ...]:
        """The 27 words that are seen now."""
        return tuple(listed[code] for listed, code in zip(WORDS, self.codes(), strict=True))

    def _seen(self) -> Any:
        if self.observation == "words":
            return self.words()
        codes = self.codes()
        if self.observation == "category":
            return codes
        if self.observation == "integer":
            return codes.astype(np.float32)
        found = np.zeros(self.observation_space.shape or (), np.float32)
        found[self._first + codes] = 1.0
        return found

    def _cell(self, row: int, column: int) -> int:
        return int(self._grid[row + REACH, column + REACH])

    def _set(self, row: int, column: int, thing: int) -> None:
        self._grid[row + REACH, column + REACH] = thing

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        draw, size = self.np_random, self.size
        self._grid[:] = WALL
        self._grid[REACH : REACH + size, REACH : REACH + size] = EMPTY
        wall, door = int(draw.integers(2, size - 1)), int(draw.integers(size))
        for row in range(size):
            self._set(row, wall, LOCKED if row == door else WALL)
        mine, key = draw.choice(size * wall, 2, replace=False)
        goal = int(draw.integers(size * (size - wall - 1)))
        self._place, self._facing, self._carries, self._time = divmod(int(mine), wall), int(draw.integers(4)), 0, 0
        self._set(*divmod(int(key), wall), KEY)
        row, column = divmod(goal, size - wall - 1)
        self._set(row, wall + 1 + column, GOAL)
        return self._seen(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        move = int(action)
        if move < 4:
            self._facing = move
        row, column = self._place[0] + MOVES[self._facing][0], self._place[1] + MOVES[self._facing][1]
        ahead = self._cell(row, column)
        if move < 4 and ahead in (EMPTY, OPEN, GOAL):
            self._place = (row, column)
        elif move == PICK_UP and ahead == KEY:
            self._set(row, column, EMPTY)
            self._carries = 1
        elif move == TOGGLE and ahead == LOCKED and self._carries:
            self._set(row, column, OPEN)
        won = move < 4 and ahead == GOAL
        reward = 1.0 - 0.9 * self._time / self.steps if won else 0.0
        return self._seen(), reward, won, not won and self._time >= self.steps, {"success": won}


def register() -> None:
    """Add the room to Gymnasium's registry; a second call changes nothing."""
    if "ascent/DoorKey-v0" not in gymnasium.registry:
        gymnasium.register("ascent/DoorKey-v0", entry_point="ascent.worlds.door_key:DoorKey")


register()
