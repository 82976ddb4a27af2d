"""An actor-critic with memory: a gated recurrent unit between the observation and both heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import Actor, arrays, boundaries, evaluate_head, following_values, orthogonal
from ascent.policies.policy import Probe


class RecurrentActor(Actor):
    """A recurrent actor in numpy; `memory` [E, H] moves on with every call of `outputs`."""

    def __init__(
        self,
        head: Head,
        log_std: Tensor | None,
        move: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]],
        size: int,
    ) -> None:
        super().__init__(head, log_std, lambda observation: observation)
        self._move = move
        self._size = size

    def begin(self, environments: int) -> None:
        """An empty memory for `environments` copies."""
        self.memory = np.zeros((environments, self._size), np.float32)

    def outputs(self, observation: NDArray[Any]) -> NDArray[Any]:
        if self.memory is None:
            raise RuntimeError("call begin(environments) before the first observation.")
        self.memory, outputs = self._move(observation, self.memory)
        return outputs

    def restart(self, ended: NDArray[np.bool_]) -> None:
        if self.memory is not None:
            self.memory = np.where(ended[:, None], np.float32(0), self.memory)


class RecurrentActorCritic(nn.Module):
    """Observation -> tanh layer -> GRU -> actor head and value head.

    Args:
        observation_size: O, numbers in an observation.
        head: family of the action distribution.
        hidden: H, size of the tanh layer and of the memory.
        critic: build the value head.
        log_std: initial state-independent log standard deviation.
        gain: of the actor's last layer.
        seed: of the initial weights.

    Decisions carry context "memory" [N, H], the state before each row's first decision; inside a row the
    memory is cleared after every terminated or truncated decision. Rows must stay whole (Plan unit "row").
    """

    splittable = True
    recurrent = True

    def __init__(
        self,
        observation_size: int,
        head: Head,
        hidden: int = 64,
        critic: bool = True,
        log_std: float = 0.0,
        gain: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        draw = generator(seed, "recurrent")
        self.head = head
        self.size = hidden
        self.encoder = orthogonal(observation_size, hidden, 2**0.5, draw)
        self.input = orthogonal(hidden, 3 * hidden, 1.0, draw)
        self.state = orthogonal(hidden, 3 * hidden, 1.0, draw)
        self.actor = orthogonal(hidden, head.outputs, gain, draw)
        self.critic = orthogonal(hidden, 1, 1.0, draw) if critic else None
        self.log_std = nn.Parameter(torch.full((head.dimensions,), log_std)) if head.continuous else None

    def _gates(self, observation: Tensor) -> Tensor:
        return linear(torch.tanh(self.encoder(observation)), self.input.weight, self.input.bias)

    def _move(self, gates: Tensor, memory: Tensor) -> Tensor:
        """The memory [B, H] after one observation, whose part of the gates [B, 3H] is given (PyTorch's GRUCell)."""
        reset_x, update_x, new_x = gates.chunk(3, dim=-1)
        reset_h, update_h, new_h = self.state(memory).chunk(3, dim=-1)
        reset, update = torch.sigmoid(reset_x + reset_h), torch.sigmoid(update_x + update_h)
        candidate = torch.tanh(new_x + reset * new_h)
        return candidate + update * (memory - candidate)

    def _memories(self, decisions: Decisions) -> Tensor:
        """[N, T, H] memory after each observation."""
        observation = decisions.context["observation"]
        memory = decisions.context["memory"]
        ended = decisions.terminated | decisions.truncated
        if memory.shape != (len(observation), self.size):
            raise ValueError(
                f"context 'memory' must be [N, H] = [{len(observation)}, {self.size}]; got {list(memory.shape)}. "
                "A recurrent policy trains on whole rows: use Plan(unit='row')."
            )
        gates = self._gates(observation).unbind(1)
        alive = (~ended).to(observation.dtype).unsqueeze(-1).unbind(1)
        found = []
        for gate, keep in zip(gates, alive, strict=True):
            memory = self._move(gate, memory)
            found.append(memory)
            memory = memory * keep
        return torch.stack(found, dim=1)

    def _value(self, memory: Tensor) -> Tensor:
        if self.critic is None:
            raise ValueError("this policy has no critic, so it gives no value; build it with critic=True.")
        value: Tensor = self.critic(memory)
        return value.squeeze(-1)

    def numpy_actor(self) -> RecurrentActor:
        """The actor on views of the present weights."""
        (w_e, b_e), (w_i, b_i) = arrays(self.encoder), arrays(self.input)
        (w_s, b_s), (w_a, b_a) = arrays(self.state), arrays(self.actor)
        size = self.size

        def move(observation: NDArray[Any], memory: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
            x = np.tanh(observation @ w_e + b_e) @ w_i + b_i
            h = memory @ w_s + b_s
            gates = 1.0 / (1.0 + np.exp(-(x[:, : 2 * size] + h[:, : 2 * size])))
            candidate = np.tanh(x[:, 2 * size :] + gates[:, :size] * h[:, 2 * size :])
            memory = candidate + gates[:, size:] * (memory - candidate)
            return memory, memory @ w_a + b_a

        return RecurrentActor(self.head, self.log_std, move, size)

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """As `ActorCritic.evaluate`, through time along each row."""
        memory = self._memories(decisions)
        columns: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        if needs - {"value"}:
            outputs = self.actor(memory)
            columns, found = evaluate_head(self.head, outputs, self.log_std, memory, decisions, needs, probes or {})
        if "value" in needs:
            columns["value"] = self._value(memory)
        return Evaluation(**columns, probes=found)

    @torch.no_grad()
    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """As `ActorCritic.annotate`; a boundary's next value sees the memory of its own episode."""
        memory = self._memories(decisions)
        columns: dict[str, Tensor] = {}
        if "old_log_prob" in needs:
            density = self.head.distribution(self.actor(memory), self.log_std)
            columns["old_log_prob"] = density.log_prob(decisions.action)
        if "value" in needs or "next_value" in needs:
            columns["value"] = self._value(memory)
        if "next_value" in needs:
            edge = boundaries(decisions)
            beyond = self._move(self._gates(decisions.context["next_observation"][edge]), memory[edge])
            columns["next_value"] = following_values(columns["value"], self._value(beyond), edge, decisions.terminated)
        return decisions.replace(**columns)

    @torch.no_grad()
    def distribution_parameters(self, decisions: Decisions) -> Tensor:
        """[N, T, K] parameters of the action distribution: logits, or mean and log-std one after the other."""
        return self.head.parameters(self.actor(self._memories(decisions)), self.log_std)
