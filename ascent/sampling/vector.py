"""A policy in several copies of an environment -> Decisions of fixed length.

Dimensions: E environments (rows, N = E), T steps (columns), O observation numbers, A action numbers,
K distribution parameters. Acting writes time-major; the columns are [N, T].
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.random import Ahead, key
from ascent.policies.action_head import Acting, Head
from ascent.policies.actor_critic import Actor
from ascent.worlds.gym import Environments
from ascent.worlds.normalisation import Exchange, RewardScale, RunningStatistics, alone

AHEAD = 64  # steps whose noise is drawn together, where a call takes fewer; each has its name, whoever draws it
RECENT = 100  # episodes in the running means that are shown


class ActingPolicy(Protocol):
    """What the sampler needs of a policy."""

    @property
    def head(self) -> Acting: ...
    def numpy_actor(self) -> Actor: ...


class VectorSampler:
    """Steps E environments T times per call, acting in numpy on the policy's present weights.

    Args:
        policy: gives `numpy_actor()`; its weights are read at every call of `act`.
        environments: the copies to step, or their Gymnasium id together with `count`.
        steps: T, decisions per environment and call.
        seed: of every episode's start and every action's noise.
        normalise_observation: subtract the running mean, divide by the running deviation.
        normalise_reward: divide by the running deviation of the discounted return.
        share: (rank, processes); this process steps copies rank * E ... of processes * E, with draws that
            depend on a copy's number only.
        discount: of the return whose deviation scales rewards.
        log_probs: record `behaviour_log_prob`; off, for policies without one and methods that do not ask for it.
        exchange: with the processes of `share`, so that all normalise by the same statistics, those of all copies.
        elapsed: record the extra "elapsed", how many decisions of its episode lie before a decision.

    `act` gives Decisions with context "observation" and "next_observation" [N, T, O] (the true successor,
    an episode's final observation included), `action`, `behaviour_log_prob`, `reward`, `terminated`,
    `truncated`, `trajectory` (episode number), `index` (step number of the environment), and, where
    normalised, the extras "raw_observation", "raw_next_observation", "raw_reward".
    """

    def __init__(
        self,
        policy: ActingPolicy,
        environments: Environments,
        steps: int,
        seed: int = 0,
        normalise_observation: bool = False,
        normalise_reward: bool = False,
        share: tuple[int, int] = (0, 1),
        discount: float = 0.99,
        exchange: Exchange = alone,
        log_probs: bool = True,
        elapsed: bool = False,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be an integer >= 1; got {steps!r}.")
        if not 0 <= share[0] < share[1]:
            raise ValueError(f"share must be (rank, processes) with 0 <= rank < processes; got {share!r}.")
        self.policy = policy
        self.environments = environments
        self.steps = steps
        self.seed = seed
        count = environments.count
        self._processes = share[1]
        self._numbers = [share[0] * count + place for place in range(count)]
        self._keys = torch.tensor([key(seed, "action", number) for number in self._numbers])
        size = environments.observation_size
        self.observation_statistics = RunningStatistics(size) if normalise_observation else None
        self.reward_scale = RewardScale(count, discount, exchange=exchange) if normalise_reward else None
        self.exchange = exchange
        self.log_probs = log_probs
        self.elapsed = elapsed
        self.consumed = 0
        self.recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self.finished: list[tuple[float, int]] = []
        self._mean: dict[str, float] | None = None  # of `recent`, until another episode ends
        self._taken = 0
        self._noise = Ahead(self._named, steps * max(AHEAD // steps, 1))
        self._episode = np.zeros(count, np.int64)
        self._return = np.zeros(count)
        self._history: list[list[NDArray[Any]]] = [[] for _ in range(count)]
        self._memory: NDArray[Any] | None = None
        self._violated = 0  # before a resumption, less what its replay counts again
        self._raw = self._begin(np.ones(count, bool))
        self._learn(self._raw)

    @property
    def count(self) -> int:
        """E, the environments of this process."""
        return self.environments.count

    def _named(self, steps: Tensor) -> NDArray[np.float32]:
        """The head's noise [steps, E, ...]."""
        return self.policy.head.noise(self._keys.expand(len(steps), self.count), steps[:, None].expand(-1, self.count))

    def _begin(self, which: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Reset `which` environments to the start of their present episode; observations [E, O] of all."""
        seeds = [
            key(self.seed, "episode", number, int(episode)) & 0x7FFF_FFFF if chosen else None
            for number, episode, chosen in zip(self._numbers, self._episode, which, strict=True)
        ]
        return self.environments.reset(seeds, which).astype(np.float32)

    def _learn(self, raw: NDArray[Any]) -> None:
        if self.observation_statistics is not None:
            everyone = self.exchange(raw)
            if len(everyone):
                self.observation_statistics.update(everyone)

    def _seen(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        statistics = self.observation_statistics
        return raw if statistics is None else statistics.normalise(raw)

    def act(self, step: int = 0) -> Decisions:
        """The next T decisions of every environment. `step` (of the run) is not needed: draws are named by index."""
        count, steps, size = self.count, self.steps, self.environments.observation_size
        head = self.policy.head
        actor = self.policy.numpy_actor()
        actor.begin(count)
        if self._memory is not None:
            actor.memory = self._memory
        first_memory = None if actor.memory is None else actor.memory.copy()
        index = torch.arange(self._taken, self._taken + steps)[:, None].expand(steps, count)
        noise = self._noise(self._taken, steps)

        normalising = self.observation_statistics is not None
        observations = np.empty((steps, count, size), np.float32)
        successors = np.empty_like(observations)
        raws = np.empty_like(observations) if normalising else None
        raw_successors = np.empty_like(observations) if normalising else None
        outputs = np.empty((steps, count, head.outputs), np.float32)
        rewards = np.empty((steps, count), np.float32)
        raw_rewards = np.empty((steps, count)) if self.reward_scale is not None else None
        terminated = np.empty((steps, count), bool)
        truncated = np.empty((steps, count), bool)
        episodes = np.empty((steps, count), np.int64)
        actions: list[NDArray[Any]] = []

        ages = [len(past) for past in self._history]
        self.finished = []
        raw = self._raw
        observation = self._seen(raw)
        begun = [0] * count
        episodes[:] = self._episode
        for t in range(steps):
            observations[t] = observation
            outputs[t] = output = actor.outputs(observation)
            action = head.sample(output, actor.log_std, noise[t])
            actions.append(action)
            successor, reward, over, cut = self.environments.step(action)
            raw_successor = successor.astype(np.float32)
            self._return += reward
            ended = over | cut
            if raws is not None and raw_successors is not None:
                raws[t] = raw
                raw_successors[t] = raw_successor
                self._learn(raw_successor)
            observation = self._seen(raw_successor)
            successors[t] = observation
            terminated[t] = over
            truncated[t] = cut
            if self.reward_scale is None:
                rewards[t] = reward
            else:
                rewards[t] = self.reward_scale(reward, over, cut)
                raw_rewards[t] = reward  # type: ignore[index]
            raw = raw_successor
            restarting = bool(ended.any())
            if restarting:
                raw = self._restart(ended, actions, begun)
            if normalising and (restarting or self._processes > 1):
                self._learn(raw[ended])
            if restarting:
                observation = np.where(ended[:, None], self._seen(raw), observation)
                actor.restart(ended)
                episodes[t + 1 :] = self._episode
        self._raw = raw
        self._memory = actor.memory
        for place in range(count):
            self._history[place] += [action[place] for action in actions[begun[place] :]]
        self._taken += steps
        self.consumed += steps * count * self._processes

        action_column = rows_first(np.stack(actions))
        behaviour_log_prob = None
        if self.log_probs:
            assert isinstance(head, Head)
            with torch.no_grad():
                log_std = None if actor.log_std is None else torch.from_numpy(actor.log_std)
                density = head.distribution(rows_first(outputs), log_std)
                behaviour_log_prob = density.log_prob(action_column)
        extras: dict[str, Tensor] = {}
        if raws is not None and raw_successors is not None:
            extras = {"raw_observation": rows_first(raws), "raw_next_observation": rows_first(raw_successors)}
        if raw_rewards is not None:
            extras["raw_reward"] = rows_first(raw_rewards.astype(np.float32))
        if self.elapsed:
            extras["elapsed"] = rows_first(since_start(np.array(ages), terminated | truncated))
        context = {"observation": rows_first(observations), "next_observation": rows_first(successors)}
        if first_memory is not None:
            context["memory"] = torch.from_numpy(first_memory)
        numbers = torch.tensor(self._numbers)[:, None] << 40
        return Decisions(
            mask=torch.ones(count, steps, dtype=torch.bool),
            context=context,
            action=action_column,
            behaviour_log_prob=behaviour_log_prob,
            reward=rows_first(rewards),
            terminated=rows_first(terminated),
            truncated=rows_first(truncated & ~terminated),
            trajectory=numbers + rows_first(episodes),
            index=index.T.contiguous(),
            extras=extras,
        )

    def _restart(self, ended: NDArray[np.bool_], actions: list[NDArray[Any]], begun: list[int]) -> NDArray[np.float32]:
        """Start the next episode where `ended`; raw observations [E, O] of all."""
        for place in np.flatnonzero(ended):
            length = len(self._history[place]) + len(actions) - begun[place]
            self.finished.append((float(self._return[place]), length))
            self.recent.append(self.finished[-1])
            self._mean = None
            self._history[place] = []
            begun[place] = len(actions)
        self._return[ended] = 0.0
        self._episode[ended] += 1
        return self._begin(ended)

    def statistics(self) -> dict[str, float]:
        """Mean return and length of the last 100 finished episodes, absent before the first; violations so far."""
        violations = self.environments.violations()
        counted = {} if violations is None else {"violations": float(self._violated + violations)}
        if not self.recent:
            return counted
        if self._mean is None:
            returns, lengths = zip(*self.recent, strict=True)
            self._mean = {"episode_return": float(np.mean(returns)), "episode_length": float(np.mean(lengths))}
        return self._mean | counted

    def state_dict(self) -> dict[str, Any]:
        """Everything that the continuation depends on, the policy's weights aside: plain numbers, lists, tensors."""
        state: dict[str, Any] = {
            "consumed": self.consumed,
            "taken": self._taken,
            "episode": self._episode.tolist(),
            "return": self._return.tolist(),
            "recent": [list(pair) for pair in self.recent],
            "history": [torch.from_numpy(np.array(past)) for past in self._history],
        }
        if self._memory is not None:
            state["memory"] = torch.from_numpy(self._memory.copy())
        for name, statistics in self._statistics():
            state[name] = statistics.state_dict()
        violations = self.environments.violations()
        return state if violations is None else state | {"violations": self._violated + violations}

    def _statistics(self) -> list[tuple[str, RunningStatistics | RewardScale]]:
        kept: dict[str, RunningStatistics | RewardScale | None] = {
            "observation_statistics": self.observation_statistics,
            "reward_scale": self.reward_scale,
        }
        return [(name, statistics) for name, statistics in kept.items() if statistics is not None]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore: each environment replays its actions since its episode's seeded reset."""
        if len(state["episode"]) != self.count:
            raise ValueError(
                f"the saved sampler steps {len(state['episode'])} environments, this one {self.count}; "
                "use the same number."
            )
        self.consumed, self._taken = int(state["consumed"]), int(state["taken"])
        self._episode = np.asarray(state["episode"], np.int64)
        self._return = np.asarray(state["return"], np.float64)
        self.recent = deque([(float(total), int(length)) for total, length in state["recent"]], maxlen=RECENT)
        self._mean = None
        self._memory = state["memory"].numpy().copy() if "memory" in state else None
        for name, statistics in self._statistics():
            if name not in state:
                raise ValueError(f"the saved sampler has no {name}; switch that normalisation off, or start a new run.")
            statistics.load_state_dict(state[name])
        self._history = [list(past.numpy()) for past in state["history"]]
        raw = self._begin(np.ones(self.count, bool))
        for place, past in enumerate(self._history):
            if past:
                raw[place] = self.environments.replay(place, past)
        self._raw = raw
        self._violated = int(state.get("violations", 0)) - (self.environments.violations() or 0)


def since_start(ages: NDArray[np.int64], ended: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[T, E] decisions of the running episode before each one, from those before the first [E] and the ends [T, E]."""
    steps = len(ended)
    moments = np.arange(steps)[:, None]
    # The last column after which an episode ended, before each moment; none: the episode began `ages` before the first.
    begun = np.maximum.accumulate(np.where(ended, moments + 1, -ages), axis=0)
    begun = np.concatenate([-ages[None], begun[:-1]])
    found: NDArray[np.int64] = moments - begun
    return found


def rows_first(time_major: NDArray[Any]) -> Tensor:
    """[T, N, ...] storage as a contiguous [N, T, ...] tensor.

    Contiguous, because a checkpoint keeps numbers and not strides, and a sum over other strides rounds otherwise;
    dealing single decisions would copy it anyway.
    """
    return torch.from_numpy(time_major).transpose(0, 1).contiguous()
