"""Rollouts of a learned model from replayed states: what model-based methods learn from besides the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.random import key, uniform
from ascent.policies.continuous import ContinuousActor, standard_normal
from ascent.policies.dynamics import Dynamics

Termination = Callable[[Tensor], Tensor]
"""Successors [..., O] -> [...] bool: whether the world ends there."""


class ImaginedSampler:
    """The actor in the model: short rollouts, each step of each one by a member drawn among the elites.

    Args:
        actor: who acts, with its noise.
        model: who answers.
        states: observations [M, O] to start from, asked at each act.
        ends: the world's known termination.
        count: rollouts of an act; rounded up to a multiple of the elites, so that all are asked equally often.
        horizon: steps of a rollout, asked at each act.
        seed: of every draw.

    `act` gives the columns that a replayed transition has: context, `action`, `reward`, `terminated`, `truncated`;
    steps after the end of a rollout are masked.
    """

    consumed = 0

    def __init__(
        self,
        actor: ContinuousActor,
        model: Dynamics,
        states: Callable[[], Tensor],
        ends: Termination,
        count: int,
        horizon: Callable[[], int],
        seed: int,
    ) -> None:
        if count < 1:
            raise ValueError(f"count must be an integer >= 1; got {count!r}.")
        elites = len(model.elite)
        self.actor, self.model, self.states, self.ends = actor, model, states, ends
        self.count, self.horizon, self.seed = -(-count // elites) * elites, horizon, seed

    @torch.no_grad()
    def act(self, step: int) -> Decisions:
        """`horizon` decisions of each rollout; `step` names the draws."""
        places, known = torch.arange(self.count), self.states()
        drawn = uniform(torch.full((self.count,), key(self.seed, "imagined_start", step)), places)
        state = known[(drawn * len(known)).long()]
        alive = torch.ones(self.count, dtype=torch.bool)
        columns: dict[str, list[Tensor]] = {}
        for t in range(self.horizon()):
            name = torch.tensor(key(self.seed, "imagined_action", step, t))
            action, _ = self.actor.fresh(state, standard_normal(name, places, self.actor.head.dimensions))
            successor, reward = self.answer(state, action, step, t)
            # A model that left all bounds ends there: nothing that is not finite may be learnt from.
            finite = successor.isfinite().all(-1) & reward.isfinite()
            ended = self.ends(successor) & finite
            for column, tensor in {
                "mask": alive & finite,
                "observation": state,
                "next_observation": torch.where(finite[:, None], successor, state),
                "action": action,
                "reward": torch.where(finite, reward, 0.0),
                "terminated": ended,
            }.items():
                columns.setdefault(column, []).append(tensor)
            alive = alive & finite & ~ended
            state = columns["next_observation"][-1]
        stacked = {column: torch.stack(tensors, 1) for column, tensors in columns.items()}
        context = {column: stacked.pop(column) for column in ("observation", "next_observation")}
        return Decisions(**stacked, context=context, truncated=torch.zeros_like(stacked["mask"]))

    def answer(self, state: Tensor, action: Tensor, step: int, t: int) -> tuple[Tensor, Tensor]:
        """Successors [B, O] and rewards [B]: the rows are dealt to the elites anew at each step."""
        model, size = self.model, self.model.state_size
        places = torch.arange(self.count)
        order = torch.argsort(uniform(torch.full((self.count,), key(self.seed, "member", step, t)), places))
        dealt = order.view(len(model.elite), -1)
        said = torch.empty(self.count, model.outputs, dtype=state.dtype)
        said[order] = model(state[dealt], action[dealt], model.elite).flatten(0, 1)
        change = said[:, :size]
        if model.gaussian:
            name = torch.tensor(key(self.seed, "imagined_state", step, t))
            change = change + torch.exp(0.5 * said[:, size + 1 :]) * standard_normal(name, places, size)
        return state + change, said[:, size]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: draws are named by the act's number."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""
