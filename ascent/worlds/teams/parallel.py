"""Copies of any PettingZoo parallel environment with discrete actions, as arrays over agents.

Agents keep their place in `possible_agents`; who has left is absent, sees zeros and earns nothing. E copies, n agents,
O observation numbers (the longest agent's), A actions, S numbers of a state.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

NAMES: Mapping[str, str] = {
    "ascent/Aloha-v0": "ascent.worlds.teams.aloha:Aloha",
    "ascent/Coordination-v0": "ascent.worlds.teams.coordination:Coordination",
}
INSTALL = "pip install 'ascent-rl[agents]'"


def maker(environment: str) -> Callable[..., Any]:
    """What makes the environment of a name, or of "module:function" such as "pettingzoo.sisl.pursuit_v4:parallel_env".

    Raises:
        ValueError: the name is unknown, or the module has no such function.
        ImportError: a package is absent.
    """
    place = NAMES.get(environment, environment)
    module, colon, function = place.partition(":")
    if not colon:
        raise ValueError(
            f"env must be one of {', '.join(NAMES)}, or 'module:function' that makes a PettingZoo parallel "
            f"environment; got {environment!r}."
        )
    try:
        found = vars(importlib.import_module(module)).get(function)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"env {environment!r} needs {error.name}: {INSTALL}, or install the named package."
        ) from error
    if not callable(found):
        raise ValueError(f"env: module {module!r} has no function {function!r}.")
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Moment:
    """What all copies show at one moment.

    Attributes:
        observation: [E, n, O].
        state: [E, S].
        present: [E, n] bool, agents that are there.
        available: [E, n, A] bool, actions that may be taken, or None where the environment masks none.
    """

    observation: NDArray[np.float32]
    state: NDArray[np.float32]
    present: NDArray[np.bool_]
    available: NDArray[np.bool_] | None


class Teams:
    """E copies, stepped one after the other; nothing resets by itself.

    Args:
        environment: name or "module:function" (see `maker`), or a function that makes one.
        count: E.
        arguments: of that function.
    """

    def __init__(
        self,
        environment: str | Callable[..., Any],
        count: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        make = maker(environment) if isinstance(environment, str) else environment
        self.copies = [make(**(arguments or {})) for _ in range(count)]
        first = self.copies[0]
        self.names: list[Any] = list(first.possible_agents)
        actions = [first.action_space(name) for name in self.names]
        sizes = {int(space.n) for space in actions if isinstance(space, spaces.Discrete)}
        if len(sizes) != 1 or not all(isinstance(space, spaces.Discrete) for space in actions):
            raise ValueError(f"every agent must choose from equally many actions (Discrete); got {actions}.")
        self.starts = [int(space.start) for space in actions]
        self.actions = sizes.pop()
        shown = [first.observation_space(name) for name in self.names]
        self.masked = isinstance(shown[0], spaces.Dict) and "action_mask" in shown[0].spaces
        self.spaces = [space["observation"] if self.masked else space for space in shown]
        self.sizes = [spaces.flatdim(space) for space in self.spaces]
        self.observation_size = max(self.sizes)
        self.moment = self._blank(0)
        first.reset(seed=0)
        self.states = self._has_state(first)
        self.state_size = int(np.size(first.state())) if self.states else len(self.names) * self.observation_size
        self.moment = self._blank(self.state_size)

    @property
    def count(self) -> int:
        """E."""
        return len(self.copies)

    @property
    def agents(self) -> int:
        """n."""
        return len(self.names)

    @staticmethod
    def _has_state(environment: Any) -> bool:
        # PettingZoo's own `state` raises NotImplementedError where an environment has no state of the team.
        try:
            environment.state()
        except (NotImplementedError, AttributeError):
            return False
        return True

    def _blank(self, state_size: int) -> Moment:
        shape = (self.count, self.agents)
        return Moment(
            np.zeros((*shape, self.observation_size), np.float32),
            np.zeros((self.count, state_size), np.float32),
            np.zeros(shape, bool),
            np.ones((*shape, self.actions), bool) if self.masked else None,
        )

    def _show(self, place: int, seen: Mapping[Any, Any]) -> None:
        """Write what a copy's agents see into the present moment; absent ones keep zeros."""
        moment, live = self.moment, set(self.copies[place].agents)
        for agent, name in enumerate(self.names):
            moment.present[place, agent] = name in live
            moment.observation[place, agent] = 0.0
            if name not in seen:
                continue
            shown, space = seen[name], self.spaces[agent]
            if self.masked:
                assert moment.available is not None
                moment.available[place, agent] = np.asarray(shown["action_mask"], bool)
                shown = shown["observation"]
            flat = shown if isinstance(space, spaces.Box) else spaces.flatten(space, shown)
            moment.observation[place, agent, : self.sizes[agent]] = np.asarray(flat, np.float32).reshape(-1)
        if self.states:
            moment.state[place] = np.asarray(self.copies[place].state(), np.float32).reshape(-1)
        else:
            moment.state[place] = moment.observation[place].reshape(-1)

    def _now(self) -> Moment:
        moment = self.moment
        available = None if moment.available is None else moment.available.copy()
        return Moment(moment.observation.copy(), moment.state.copy(), moment.present.copy(), available)

    def reset(self, seeds: Sequence[int | None]) -> Moment:
        """Start the copies whose seed is not None anew."""
        for place, seed in enumerate(seeds):
            if seed is not None:
                self._show(place, self.copies[place].reset(seed=seed)[0])
        return self._now()

    def step(self, action: NDArray[Any]) -> tuple[Moment, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """One step of every copy by actions [E, n]: the moment after, rewards [E, n], terminated [E], truncated [E].

        An episode is over when no agent is left; it is truncated if one of the last ones was cut off.
        """
        reward = np.zeros((self.count, self.agents), np.float32)
        terminated, truncated = np.zeros(self.count, bool), np.zeros(self.count, bool)
        for place in range(self.count):
            reward[place], terminated[place], truncated[place] = self._advance(place, action[place])
        return self._now(), reward, terminated, truncated

    def _advance(self, place: int, action: NDArray[Any]) -> tuple[NDArray[np.float32], bool, bool]:
        copy = self.copies[place]
        live = set(copy.agents)
        chosen = {
            name: int(action[agent]) + self.starts[agent] for agent, name in enumerate(self.names) if name in live
        }
        seen, paid, _, cut, _ = copy.step(chosen)
        self._show(place, seen)
        over = not copy.agents
        truncated = over and any(cut.values())
        rewards = np.array([float(paid.get(name, 0.0)) for name in self.names], np.float32)
        return rewards, over and not truncated, truncated

    def replay(self, place: int, actions: Sequence[NDArray[Any]]) -> Moment:
        """Walk one copy through recorded actions since its reset."""
        for action in actions:
            self._advance(place, action)
        return self._now()

    def close(self) -> None:
        """Close all copies."""
        for copy in self.copies:
            copy.close()
