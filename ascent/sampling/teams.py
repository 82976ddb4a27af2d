"""A team's policy in several copies of a PettingZoo parallel environment -> the one batch.

E copies (rows, N = E), M moments of n agents (T = M n columns): agent i of step t is decision `t n + i`, and the agents
of a step share a `segment`. Who has left the game is masked.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.random import Ahead, key, uniform
from ascent.policies.bayesian_network import BayesianNetwork, OwnCritics
from ascent.worlds.teams.parallel import Moment, Teams

RECENT = 100
AHEAD = 25  # moments whose draws are hashed together


class TeamSampler:
    """Steps E copies M times per call.

    Args:
        policy: of the team; its weights are read at every call of `act`.
        teams: the copies.
        steps: M, moments per copy and call.
        seed: of every episode's start and every draw.
        share: (rank, processes); this process steps copies rank * E ... of processes * E.

    `act` gives Decisions with context "observation" [N, T, O], "state" and "next_state" [N, T, S], "present" [N, T]
    (and "available" [N, T, A]), `action`, `behaviour_log_prob`, `reward` (each agent's own), `terminated` and
    `truncated` (of the episode, on every agent of its last moment), `segment` and `index` (the moment's number),
    `trajectory`, and the extras "agent" and, where a graph is drawn, "graph_noise" [N, T, 3 n]. Where each agent has
    its own critic also context "next_observation" [N, T, O] and the extra "left" [N, T] bool: the agent left here, and
    the others went on; where agents remember, context "memory" [N, n, H], before the row's first moment.
    """

    def __init__(
        self, policy: BayesianNetwork, teams: Teams, steps: int, seed: int = 0, share: tuple[int, int] = (0, 1)
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be an integer >= 1; got {steps!r}.")
        self.policy, self.teams, self.steps, self.seed = policy, teams, steps, seed
        self._processes, self._own = share[1], isinstance(policy.critic, OwnCritics)
        self._numbers = [share[0] * teams.count + place for place in range(teams.count)]
        self._keys = torch.tensor([key(seed, "team", number) for number in self._numbers])
        self.consumed = self._taken = 0
        self.recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._episode = np.zeros(teams.count, np.int64)
        self._return = np.zeros(teams.count)
        self._history: list[list[NDArray[np.int64]]] = [[] for _ in range(teams.count)]
        self._memory: Tensor | None = None
        self._draws = Ahead(self._named, AHEAD)
        self._moment = self._begin(np.ones(teams.count, bool))

    def _named(self, taken: Tensor) -> Tensor:
        """[moments, E, n, 1 + draws] uniforms."""
        agents = torch.arange(self.teams.agents)[:, None]
        width = torch.arange(1 + self.policy.graph.draws)
        return uniform(self._keys[:, None, None], taken[:, None, None, None], agents, width)

    def _begin(self, which: NDArray[np.bool_]) -> Moment:
        seeds = [
            key(self.seed, "episode", number, int(episode)) & 0x7FFF_FFFF if chosen else None
            for number, episode, chosen in zip(self._numbers, self._episode, which, strict=True)
        ]
        return self.teams.reset(seeds)

    def act(self, step: int = 0) -> Decisions:
        """The next M moments of every copy; draws are named by the moment's number."""
        teams, kept = self.teams, list[dict[str, Tensor]]()
        before = self._memory
        for _ in range(self.steps):
            now, draws = self._moment, self._draws(self._taken)
            noise = draws[..., 1:].float() if self.policy.graph.draws else None
            context = shown(now)
            self._memory = self.policy.remembered(context["observation"], self._memory)
            action, log_prob, _ = self.policy.act(
                context["observation"],
                context["state"],
                draws[..., 0],
                noise,
                torch.from_numpy(now.present),
                context.get("available"),
                self._memory,
            )
            chosen = action.numpy()
            after, reward, terminated, truncated = teams.step(chosen)
            moment = {f"context/{name}": tensor for name, tensor in context.items()}
            moment |= {
                "context/next_state": torch.from_numpy(after.state),
                "context/present": torch.from_numpy(now.present),
                "column/mask": torch.from_numpy(now.present),
                "column/action": action,
                "column/behaviour_log_prob": log_prob,
                "column/reward": torch.from_numpy(reward),
                "column/terminated": torch.from_numpy(terminated),
                "column/truncated": torch.from_numpy(truncated),
                "column/trajectory": (torch.tensor(self._numbers) << 40) + torch.from_numpy(self._episode),
                "column/segment": torch.full((teams.count,), self._taken),
                "column/index": torch.full((teams.count,), self._taken),
                "extras/agent": torch.arange(teams.agents).expand(teams.count, -1),
            }
            if noise is not None:
                moment["extras/graph_noise"] = noise
            if self._own:
                over = (terminated | truncated)[:, None]
                moment["context/next_observation"] = torch.from_numpy(after.observation)
                moment["extras/left"] = torch.from_numpy(now.present & ~after.present & ~over)
            kept.append(moment)
            self._taken += 1
            self._moment = self._went_on(after, chosen, reward, now.present, terminated | truncated)
        self.consumed += self.steps * teams.count * self._processes
        laid = {name: self._laid([moment[name] for moment in kept], name) for name in kept[0]}
        if self._memory is not None:
            laid["context/memory"] = torch.zeros_like(self._memory) if before is None else before
        return Decisions.from_tensors(laid)

    def _laid(self, moments: list[Tensor], name: str) -> Tensor:
        """[E, M n, ...] out of moments [E, n, ...], or of the team's [E, ...], which every agent gets."""
        stacked = torch.stack(moments, 1)
        whole = {"context/state", "context/next_state", "column/terminated", "column/truncated"}
        whole |= {"column/trajectory", "column/segment", "column/index"}
        if name in whole:
            return stacked.repeat_interleave(self.teams.agents, 1)
        return stacked.flatten(1, 2)

    def _went_on(
        self,
        after: Moment,
        action: NDArray[np.int64],
        reward: NDArray[np.float32],
        present: NDArray[np.bool_],
        ended: NDArray[np.bool_],
    ) -> Moment:
        """Count the step, and start the next episode where one ended."""
        self._return += np.where(present, reward, 0.0).sum(1) / np.maximum(present.sum(1), 1)
        for place in range(self.teams.count):
            self._history[place].append(action[place])
        if not ended.any():
            return after
        for place in np.flatnonzero(ended):
            self.recent.append((float(self._return[place]), len(self._history[place])))
            self._history[place] = []
        self._return[ended] = 0.0
        self._episode[ended] += 1
        if self._memory is not None:
            self._memory = self._memory.masked_fill(torch.from_numpy(ended)[:, None, None], 0.0)
        return self._begin(ended)

    def statistics(self) -> dict[str, float]:
        """Mean team return and length of the last 100 finished episodes; empty before the first."""
        if not self.recent:
            return {}
        returns, lengths = zip(*self.recent, strict=True)
        return {"episode_return": float(np.mean(returns)), "episode_length": float(np.mean(lengths))}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the continuation depends on, the weights aside."""
        memory = {} if self._memory is None else {"memory": self._memory.clone()}
        return memory | {
            "consumed": self.consumed,
            "taken": self._taken,
            "episode": self._episode.tolist(),
            "return": self._return.tolist(),
            "recent": [list(pair) for pair in self.recent],
            "history": [torch.from_numpy(np.array(past, np.int64)) for past in self._history],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore: each copy replays its actions since its episode's seeded reset."""
        if len(state["episode"]) != self.teams.count:
            raise ValueError(
                f"the saved sampler steps {len(state['episode'])} copies, this one {self.teams.count}; use as many."
            )
        self.consumed, self._taken = int(state["consumed"]), int(state["taken"])
        self._episode = np.asarray(state["episode"], np.int64)
        self._return = np.asarray(state["return"], np.float64)
        self.recent = deque([(float(total), int(length)) for total, length in state["recent"]], maxlen=RECENT)
        self._memory = state["memory"].clone() if "memory" in state else None
        self._history = [list(past.numpy()) for past in state["history"]]
        self._moment = self._begin(np.ones(self.teams.count, bool))
        for place, past in enumerate(self._history):
            if past:
                self._moment = self.teams.replay(place, past)


def shown(moment: Moment) -> dict[str, Tensor]:
    """What the policy sees of a moment, as tensors."""
    found = {"observation": torch.from_numpy(moment.observation), "state": torch.from_numpy(moment.state)}
    if moment.available is not None:
        # An agent that left may take anything: what it would do is masked.
        free = moment.available | ~moment.available.any(-1, keepdims=True)
        found["available"] = torch.from_numpy(free)
    return found
