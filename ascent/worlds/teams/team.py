"""What team games have in common: n agents of one kind, one reward, an end that truncates (PettingZoo parallel API)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import ParallelEnv


class Team(ParallelEnv[str, Any, int], ABC):
    """A game that says how it begins, what a joint action does and what each agent sees.

    Args:
        names: of the n agents.
        sight: what each agent's observations are.
        choices: actions of each agent.
        episode: steps.
    """

    render_mode = None

    def __init__(self, names: Sequence[str], sight: spaces.Space[Any], choices: int, episode: int) -> None:
        self.count, self.episode, self.time = len(names), episode, 0
        self.possible_agents = list(names)
        self.agents: list[str] = []
        self.observation_spaces = dict.fromkeys(names, sight)
        self.action_spaces = {name: spaces.Discrete(choices) for name in names}
        self.random = np.random.default_rng()

    @abstractmethod
    def begin(self) -> None:
        """Lay the first state, with draws from `self.random`."""

    @abstractmethod
    def act(self, chosen: NDArray[np.int64]) -> float:
        """Move by the actions [n]; the reward that all share."""

    @abstractmethod
    def seen(self) -> Sequence[Any]:
        """What each of the n agents sees now."""

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.time = 0
        self.begin()
        return dict(zip(self.agents, self.seen(), strict=True)), {name: {} for name in self.agents}

    def step(
        self, actions: dict[str, int]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]:
        live = self.agents
        reward = self.act(np.array([int(actions[name]) for name in live]))
        self.time += 1
        over = self.time >= self.episode
        if over:
            self.agents = []
        return (
            dict(zip(live, self.seen(), strict=True)),
            dict.fromkeys(live, reward),
            dict.fromkeys(live, False),
            dict.fromkeys(live, over),
            {name: {} for name in live},
        )
