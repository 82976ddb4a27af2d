"""The coordination game to be sampled (PettingZoo parallel API); its table is in `tables.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

from ascent.worlds.teams.tables import LEEWAY, coordination_reward, digits


class Coordination(ParallelEnv[str, Any, int]):
    """n agents set one bit each, which flips with probability `noise`; everyone sees all bits and shares the reward.

    The reward of a step is that of the state in which it was taken. A fresh episode starts in any state alike.

    Args:
        agents: n, 2, 3, 5 or 10.
        noise: in [0, 1].
        episode: steps; the end truncates.
        numbered: show the number of the state, one-hot, in place of its bits: networks that see it are tables.
    """

    metadata = {"name": "coordination_v0", "render_modes": []}  # noqa: RUF012  (PettingZoo's own form)
    render_mode = None

    def __init__(self, agents: int = 3, noise: float = 0.1, episode: int = 25, numbered: bool = False) -> None:
        if agents not in LEEWAY:
            raise ValueError(f"agents must be one of {sorted(LEEWAY)}; got {agents!r}.")
        if not 0 <= noise <= 1 or episode < 1:
            raise ValueError(f"noise must be in [0, 1], episode >= 1; got noise={noise!r}, episode={episode!r}.")
        self.noise, self.episode, self.count = noise, episode, agents
        self.possible_agents = [f"bit_{number}" for number in range(agents)]
        self.agents: list[str] = []
        size = 2**agents if numbered else agents
        self.observation_spaces = {name: spaces.Box(0.0, 1.0, (size,), np.float32) for name in self.possible_agents}
        self.action_spaces = {name: spaces.Discrete(2) for name in self.possible_agents}
        self.reward = coordination_reward(digits(2, agents)).tolist()
        self.powers = 2 ** np.arange(agents - 1, -1, -1)
        self.random = np.random.default_rng()
        self.bits = np.zeros(agents, np.int64)
        self.onehot = np.eye(size, dtype=np.float32) if numbered else None
        self.time = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def state(self) -> NDArray[np.float32]:
        """All bits, or the one-hot number that they are."""
        if self.onehot is None:
            return self.bits.astype(np.float32)
        return self.onehot[int(self.bits @ self.powers)].copy()

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.bits = self.random.integers(0, 2, self.count)
        self.time = 0
        return self._seen(), {name: {} for name in self.agents}

    def _seen(self) -> dict[str, NDArray[np.float32]]:
        return {name: self.state() for name in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        reward = self.reward[int(self.bits @ self.powers)]
        chosen = np.array([int(actions[name]) for name in self.agents])
        flips = self.random.random(self.count) < self.noise
        self.bits = np.where(flips, 1 - chosen, chosen)
        self.time += 1
        over = self.time >= self.episode
        live, seen = self.agents, self._seen()
        if over:
            self.agents = []
        return (
            seen,
            dict.fromkeys(live, reward),
            dict.fromkeys(live, False),
            dict.fromkeys(live, over),
            {name: {} for name in live},
        )
