"""A problem so small that every trajectory can be listed: J and its gradient are sums, not estimates.

Dimensions: M trajectories, T decisions of the longest, S states in which something is decided, F final states.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.policies.policy import Policy


class Trainable(Policy, Protocol):
    """A policy with parameters, as every `nn.Module` has them."""

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True, eq=False)
class Tree:
    """Every trajectory of a problem, with what chance contributes to its probability.

    Attributes:
        name: for tables and errors.
        states: S, the states in which a policy decides, numbered from 0.
        actions: A, the actions of every state.
        prompt: [M] int, which question a trajectory answers; a group answers one question.
        prompt_probability: [P] float64, how often each question is drawn; sums to 1.
        chance: [M] float64, log-probability of what the world did (start state, transitions), given the actions.
        mask: [M, T] bool.
        state, action: [M, T] int64.
        next_state: [M, T] int64; S + f where the time limit stopped the episode in final state f.
        reward: [M, T] float64.
        terminated, truncated: [M, T] bool, at the last decision.
        final_value: [F] float64, the fixed worth of a state in which the time limit stops an episode. It is
            part of the objective and carries no gradient; that is what bootstrapping at truncation estimates.
        discount: of the objective, in [0, 1].
    """

    name: str
    states: int
    actions: int
    prompt: Tensor
    prompt_probability: Tensor
    chance: Tensor
    mask: Tensor
    state: Tensor
    action: Tensor
    next_state: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_value: Tensor
    discount: float = 1.0

    def __len__(self) -> int:
        return len(self.mask)

    def decisions(self) -> Decisions:
        """The M trajectories as rows: contexts `state` and `next_state`, rewards and ends; no log-probs yet."""
        rows = torch.arange(len(self))
        return Decisions(
            mask=self.mask,
            context={"state": self.state, "next_state": self.next_state},
            action=self.action,
            reward=self.reward,
            terminated=self.terminated,
            truncated=self.truncated,
            group=self.prompt,
            trajectory=rows,
            key=rows,
            index=self.prompt,
            policy_version=torch.zeros_like(rows),
            extras={"budget": torch.full_like(rows, self.mask.shape[1])},
        )

    def log_probability(self, policy: Policy) -> Tensor:
        """[M] log-probability of each trajectory given its question, differentiable in the policy."""
        log_prob = policy.evaluate(self.decisions(), frozenset({"log_prob"})).log_prob
        return self.chance + torch.where(self.mask, log_prob, 0.0).sum(1)

    def to_go(self) -> Tensor:
        """[M, T] discounted return from each decision on, with the final state's worth at truncation."""
        padded = torch.cat([torch.zeros(self.states, dtype=torch.float64), self.final_value])
        worth = torch.where(self.truncated, padded[self.next_state], 0.0)
        returns = torch.zeros_like(self.reward)
        following = torch.zeros(len(self), dtype=torch.float64)
        for column in range(self.mask.shape[1] - 1, -1, -1):
            now = self.reward[:, column] + self.discount * (following + worth[:, column])
            following = torch.where(self.mask[:, column], now, 0.0)
            returns[:, column] = following
        return returns

    def objective(self, policy: Policy) -> Tensor:
        """J, the expected discounted return: a scalar, differentiable in the policy, exact by enumeration."""
        probability = self.prompt_probability[self.prompt] * self.log_probability(policy).exp()
        return (probability * self.to_go()[:, 0]).sum()

    def state_value(self, policy: Policy) -> Tensor:
        """[S + F] expected return from a state, averaged over the times of its visit; 0 where never visited."""
        with torch.no_grad():
            weight = self.prompt_probability[self.prompt] * self.log_probability(policy).exp()
        visits = weight[:, None].expand(self.mask.shape)[self.mask]
        value = torch.zeros(self.states, dtype=torch.float64)
        visited = torch.zeros(self.states, dtype=torch.float64)
        value.index_add_(0, self.state[self.mask], visits * self.to_go()[self.mask])
        visited.index_add_(0, self.state[self.mask], visits)
        return torch.cat([torch.where(visited > 0, value / visited.clamp(min=1e-300), 0.0), self.final_value])


def gradient(tree: Tree, policy: Trainable) -> Tensor:
    """[P] the exact gradient of J, over the parameters in `actor`, flattened in their order."""
    parameters = actor(tree, policy)
    return flat(torch.autograd.grad(tree.objective(policy), parameters))


def actor(tree: Tree, policy: Trainable) -> list[nn.Parameter]:
    """The parameters on which J depends (a critic's are left out), in the policy's order.

    Raises:
        ValueError: J depends on no parameter.
    """
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    objective = tree.objective(policy)
    found = torch.autograd.grad(objective, parameters, allow_unused=True) if objective.requires_grad else ()
    moving = [parameter for parameter, slope in zip(parameters, found, strict=False) if slope is not None]
    if not moving:
        raise ValueError(f"policy has no trainable parameter on which the return of {tree.name!r} depends.")
    return moving


def flat(tensors: tuple[Tensor, ...]) -> Tensor:
    """Tensors as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
