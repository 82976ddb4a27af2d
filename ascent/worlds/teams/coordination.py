"""The coordination game to be sampled (PettingZoo parallel API); its table is in `tables.py`."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ascent.worlds.teams.tables import LEEWAY, coordination_reward, digits
from ascent.worlds.teams.team import Team


class Coordination(Team):
    """n agents set one bit each, which flips with probability `noise`; everyone sees all bits and shares the reward.

    The reward of a step is that of the state in which it was taken. A fresh episode starts in any state alike.

    Args:
        agents: n, 2, 3, 5 or 10.
        noise: in [0, 1].
        episode: steps; the end truncates.
        numbered: show the number of the state, one-hot, in place of its bits: networks that see it are tables.
    """

    metadata = {"name": "coordination_v0", "render_modes": []}  # noqa: RUF012  (PettingZoo's own form)

    def __init__(self, agents: int = 3, noise: float = 0.1, episode: int = 25, numbered: bool = False) -> None:
        if agents not in LEEWAY:
            raise ValueError(f"agents must be one of {sorted(LEEWAY)}; got {agents!r}.")
        if not 0 <= noise <= 1 or episode < 1:
            raise ValueError(f"noise must be in [0, 1], episode >= 1; got noise={noise!r}, episode={episode!r}.")
        size = 2**agents if numbered else agents
        names = [f"bit_{number}" for number in range(agents)]
        super().__init__(names, spaces.Box(0.0, 1.0, (size,), np.float32), 2, episode)
        self.noise = noise
        self.reward = coordination_reward(digits(2, agents)).tolist()
        self.powers = 2 ** np.arange(agents - 1, -1, -1)
        self.bits = np.zeros(agents, np.int64)
        self.onehot = np.eye(size, dtype=np.float32) if numbered else None

    def state(self) -> NDArray[np.float32]:
        """All bits, or the one-hot number that they are."""
        if self.onehot is None:
            return self.bits.astype(np.float32)
        return self.onehot[int(self.bits @ self.powers)].copy()

    def begin(self) -> None:
        self.bits = self.random.integers(0, 2, self.count)

    def seen(self) -> list[NDArray[np.float32]]:
        return [self.state() for _ in range(self.count)]

    def act(self, chosen: NDArray[np.int64]) -> float:
        reward: float = self.reward[int(self.bits @ self.powers)]
        flips = self.random.random(self.count) < self.noise
        self.bits = np.where(flips, 1 - chosen, chosen)
        return reward
