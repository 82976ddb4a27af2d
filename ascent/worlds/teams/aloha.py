"""Slotted Aloha: neighbours that send at once destroy each other's messages (PettingZoo parallel API)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from ascent.worlds.teams.team import Team

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


class Aloha(Team):
    """Each agent has a backlog of 0 to 5 messages, 1 at first, one more with probability 0.6 after each step.

    Who sends (action 1) with a backlog earns the team 0.1 and loses a message if no neighbour chose to send, even one
    with nothing to send; else the team pays 10. All share the sum. An agent sees its own backlog only.

    Args:
        agents: n, even.
        episode: steps; the end truncates.
    """

    metadata = {"name": "aloha_v0", "render_modes": []}  # noqa: RUF012  (PettingZoo's own form)

    def __init__(self, agents: int = 10, episode: int = 20) -> None:
        if agents < 2 or agents % 2 or episode < 1:
            raise ValueError(f"agents must be even and >= 2, episode >= 1; got agents={agents!r}, episode={episode!r}.")
        names = [f"sender_{number}" for number in range(agents)]
        super().__init__(names, spaces.Discrete(FULL + 1), 2, episode)
        self.beside = neighbours(agents)
        self.backlog = np.full(agents, START)

    def state(self) -> NDArray[np.float32]:
        """All backlogs, as shares of a full one."""
        return (self.backlog / FULL).astype(np.float32)

    def begin(self) -> None:
        self.backlog = np.full(self.count, START)

    def seen(self) -> list[int]:
        backlog: list[int] = self.backlog.tolist()
        return backlog

    def act(self, chosen: NDArray[np.int64]) -> float:
        sends = (chosen == 1) & (self.backlog > 0)
        heard = (self.beside & (chosen == 1)[None]).any(1)
        good = sends & ~heard
        arrived = self.random.random(self.count) < ARRIVAL
        self.backlog = np.minimum(self.backlog - good + arrived, FULL)
        return float(SENT * good.sum() + LOST * (sends & heard).sum())
