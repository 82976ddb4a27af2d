"""A walker on a map who is paid by what is new: the reward of a move is the marginal gain of the cell it reaches."""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ascent.worlds.submodular.maps import MAPS, MOVES, Map, additive

Observe = Literal["place", "cell", "index", "path", "visited"]
Pay = Literal["gain", "additive"]


class SubmodularGrid(gymnasium.Env[Any, Any]):
    """Five moves (stay, right, down, left, up), a fixed number of them, F of the visited cells as return.

    Args:
        ground: the map, or the name of one.
        observe: what the policy sees, all in [-1, 1]: "place" (row, column, time); "cell" (one-hot cell, time);
            "index" (cell number, time: the release's two raw floats, neither scaled); "path" (all visited cell numbers,
            padded with -1: the history policy of the release); "visited" (one-hot cell, bitmap of visited cells,
            time). The first three are Markov (SubPO-M), the last two see the history (SubPO-NM).
        pay: "gain" F(A + v) - F(A); "additive" F({v}) at every visit (ModPO).
        slip: probability of a uniformly random move instead of the chosen one, in [0, 1].

    Attributes:
        path: cells visited so far.
        walked: the walk that the latest reset left, empty before the first.

    The first cell is visited at the reset, so the return is F(path) - F({start}); `info["objective"]` says F(path)
    whatever is paid. The horizon ends the task (terminated): time is part of what the policy sees.
    Source: Prajapat et al. 2023 (arXiv 2307.13372).
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (Gymnasium's own name and form)

    def __init__(
        self, ground: Map | str = "Coverage", observe: Observe = "place", pay: Pay = "gain", slip: float = 0.0
    ) -> None:
        if isinstance(ground, str):
            if ground not in MAPS:
                raise ValueError(f"ground must be one of {', '.join(MAPS)} or a Map; got {ground!r}.")
            ground = MAPS[ground]()
        if observe not in get_args(Observe):
            raise ValueError(f"observe must be one of {', '.join(get_args(Observe))}; got {observe!r}.")
        if pay not in get_args(Pay):
            raise ValueError(f"pay must be one of {', '.join(get_args(Pay))}; got {pay!r}.")
        if not 0.0 <= slip <= 1.0:
            raise ValueError(f"slip must be in [0, 1]; got {slip!r}.")
        self.ground, self.observe, self.pay, self.slip = ground, observe, pay, slip
        self._paid = additive(ground) if pay == "additive" else ground.objective
        cells, moves = ground.cells, ground.horizon
        size = {"place": 3, "cell": cells + 1, "index": 2, "path": moves + 1, "visited": 2 * cells + 1}[observe]
        high = float(max(cells, moves)) if observe in ("index", "path") else 1.0
        self.observation_space = spaces.Box(-1.0, high, (size,), np.float32)
        self.action_space = spaces.Discrete(len(MOVES))
        self._ways = [[ground.moved(cell, action) for action in range(len(MOVES))] for cell in range(cells)]
        self.path: list[int] = []
        self.walked: list[int] = []

    def _seen(self) -> NDArray[np.float32]:
        ground, cell, taken = self.ground, self.path[-1], len(self.path) - 1
        time = 2.0 * taken / ground.horizon - 1.0
        seen = np.zeros(self.observation_space.shape, np.float32)
        if self.observe == "place":
            row, column = divmod(cell, ground.columns)
            seen[:] = (2.0 * row / max(ground.rows - 1, 1) - 1, 2.0 * column / max(ground.columns - 1, 1) - 1, time)
        elif self.observe == "index":
            seen[:] = (cell, taken)
        elif self.observe == "path":
            seen[:] = -1.0
            seen[: taken + 1] = self.path
        else:
            seen[cell] = 1.0
            seen[-1] = time
            if self.observe == "visited":
                seen[[ground.cells + each for each in self.path]] = 1.0
        return seen

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.walked = self.path
        self.path = [self.ground.first]
        self._running, self._objective = self._paid.begin(), self.ground.objective.begin()
        self._running.add(self.path[0])
        self._total = self._objective.add(self.path[0])
        return self._seen(), {"objective": self._total}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        move = int(action)
        if self.slip and self.np_random.random() < self.slip:
            move = int(self.np_random.integers(len(MOVES)))
        self.path.append(self._ways[self.path[-1]][move])
        gained = self._objective.add(self.path[-1])
        self._total += gained
        reward = gained if self.pay == "gain" else self._running.add(self.path[-1])
        return self._seen(), reward, len(self.path) > self.ground.horizon, False, {"objective": self._total}
