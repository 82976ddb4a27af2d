"""Slotted Aloha: neighbours that send at once destroy each other's messages (PettingZoo parallel API)."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv

FULL = 5
START = 1
ARRIVAL = 0.6
SENT, LOST = 0.1, -10.0


def neighbours(agents: int) -> NDArray[np.bool_]:
    """[n, n] the chain 0 - 1 - ... - n-1 and the rungs i - i + n/2."""
    who = np.arange(agents)
    apart = np.abs(who[:, None] - who[None])
    found: NDArray[np.bool_] = (apart == 1) | (apart == agents // 2) if agents > 2 else apart == 1
    return found


class Aloha(ParallelEnv[str, Any, int]):
    """Each agent has a backlog of 0 to 5 messages, 1 at first, one more with probability 0.6 after each step.

    Who sends (action 1) with a backlog earns the team 0.1 and loses a message if no neighbour chose to send, even one
    with nothing to send; else the team pays 10. All share the sum. An agent sees its own backlog only.

    Args:
        agents: n, even.
        episode: steps; the end truncates.
    """

    metadata = {"name": "aloha_v0", "render_modes": []}  # noqa: RUF012  (PettingZoo's own form)
    render_mode = None

    def __init__(self, agents: int = 10, episode: int = 20) -> None:
        if agents < 2 or agents % 2 or episode < 1:
            raise ValueError(f"agents must be even and >= 2, episode >= 1; got agents={agents!r}, episode={episode!r}.")
        self.count, self.episode = agents, episode
        self.possible_agents = [f"sender_{number}" for number in range(agents)]
        self.agents: list[str] = []
        self.beside = neighbours(agents)
        self.observation_spaces = {name: spaces.Discrete(FULL + 1) for name in self.possible_agents}
        self.action_spaces = {name: spaces.Discrete(2) for name in self.possible_agents}
        self.random = np.random.default_rng()
        self.backlog = np.full(agents, START)
        self.time = 0

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def state(self) -> NDArray[np.float32]:
        """All backlogs, as shares of a full one."""
        return (self.backlog / FULL).astype(np.float32)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.backlog = np.full(self.count, START)
        self.time = 0
        return self._seen(), {name: {} for name in self.agents}

    def _seen(self) -> dict[str, int]:
        return dict(zip(self.agents, self.backlog.tolist(), strict=True))

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        chosen = np.array([actions[name] for name in self.agents], dtype=bool)
        sends = chosen & (self.backlog > 0)
        heard = (self.beside & chosen[None]).any(1)
        good = sends & ~heard
        reward = float(SENT * good.sum() + LOST * (sends & heard).sum())
        arrived = self.random.random(self.count) < ARRIVAL
        self.backlog = np.minimum(self.backlog - good + arrived, FULL)
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
