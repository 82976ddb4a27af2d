"""The greedy ideal of sampling without sampling error: always the most under-sampled action of a tabular policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ascent.core.decisions import Decisions
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import Actor, ActorCritic

NEVER = -1e4  # logits of actions that are not chosen: no Gumbel noise reaches across


class GreedyActor(Actor):
    """Chooses argmax_a pi(a|s) - count(s, a) / count(s), and counts what it chose."""

    def __init__(self, target: Actor, count: NDArray[np.float64]) -> None:
        super().__init__(target.head, None, target.outputs)
        self.count = count

    def outputs(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Logits [E, A], 0 for the one action that is chosen."""
        logits = self._forward(observation)
        probability = np.exp(logits - logits.max(1, keepdims=True))
        probability /= probability.sum(1, keepdims=True)
        chosen = np.full(logits.shape, NEVER, np.float32)
        # Copies that meet in one state take turns, so that together they stay balanced.
        for row, state in enumerate(observation.argmax(1)):
            taken = self.count[state]
            best = int((probability[row] - taken / max(taken.sum(), 1.0)).argmax())
            taken[best] += 1
            chosen[row, best] = 0.0
        return chosen


class GreedyTabular(nn.Module):
    """A behaviour policy for one-hot observations and single choices, for `VectorSampler` only.

    Args:
        target: the policy whose proportions the buffer should have.
        states: S, numbers in an observation.

    What was taken is counted while acting; call `recount` with the buffer after old decisions left it.
    """

    def __init__(self, target: ActorCritic, states: int) -> None:
        super().__init__()
        if target.head.kind != "categorical":
            raise ValueError(f"GreedyTabular needs a categorical head; got {target.head.kind}.")
        self.target = target
        self.head: Head = target.head
        self.count: torch.Tensor
        self.register_buffer("count", torch.zeros(states, target.head.outputs, dtype=torch.float64))

    def numpy_actor(self) -> GreedyActor:
        """An actor that goes on counting in this policy's buffer."""
        return GreedyActor(self.target.numpy_actor(), self.count.numpy())

    def recount(self, decisions: Decisions) -> None:
        """Count anew what `decisions` hold."""
        mask = decisions.mask
        state = decisions.context["observation"][mask].argmax(-1)
        self.count.zero_()
        self.count.index_put_(
            (state, decisions.action[mask]), torch.ones_like(state, dtype=self.count.dtype), accumulate=True
        )
