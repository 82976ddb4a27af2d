"""Exact numbers of tabular policies in tabular team games: no sampling.

    J   = start . (I - gamma P_pi)^-1 r_pi          d = (1 - gamma) start (I - gamma P_pi)^-1
    Q   = r + gamma P V                             gap = max_i [ J(best response of i, the others as they are) - J ]

    dJ / d theta_i[s, p, a] = d(s) / (1 - gamma) * pi(p | s) pi_i(a | s, p) * ( E[Q | s, p, a] - E[Q | s, p] )

B policies at once; S states, K^n joint actions. All float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ascent.policies.bayesian_table import BayesianTable
from ascent.worlds.teams.tables import TeamGame


@dataclass(frozen=True)
class Solved:
    """Of B policies.

    Attributes:
        worth: J [B].
        visits: d [B, S], adds up to 1.
        value: V [B, S].
        action_value: Q [B, S, K^n].
    """

    worth: Tensor
    visits: Tensor
    value: Tensor
    action_value: Tensor


def solve(game: TeamGame, probability: Tensor) -> Solved:
    """J, d, V and Q of joint policies [B, S, K^n]; J carries the policies' gradient."""
    moves = torch.einsum("bsa,sat->bst", probability, game.transition)
    reward = (probability * game.reward).sum(-1)
    system = torch.eye(moves.shape[-1], dtype=moves.dtype) - game.discount * moves
    value = torch.linalg.solve(system, reward)
    start = game.start.expand(len(moves), -1)
    visits = (1.0 - game.discount) * torch.linalg.solve(system.mT, start)
    following = torch.einsum("sat,bt->bsa", game.transition, value)
    return Solved(value @ game.start, visits, value, game.reward + game.discount * following)


def gradient(game: TeamGame, policy: BayesianTable) -> list[Tensor]:
    """dJ / d logits of each agent [B, S, K^parents, K], by the formula above."""
    with torch.no_grad():
        probability = policy.log_prob().exp()
        solved = solve(game, probability)
        weight = solved.visits[..., None] / (1.0 - game.discount) * probability
        found = []
        for agent, logits in enumerate(policy.logits):
            cell = policy.row[agent] * policy.actions + policy.joint[:, agent]
            flat = logits.new_zeros(*logits.shape[:2], logits[0, 0].numel())
            gained = flat.index_add(2, cell, weight * solved.action_value).view_as(logits)
            own = logits.softmax(-1)
            found.append(gained - own * gained.sum(-1, keepdim=True))
        return found


def best(game: TeamGame, tolerance: float = 1e-12) -> tuple[float, Tensor]:
    """J* and the best joint action of each state [S], by policy iteration over joint actions."""
    states, joint = game.reward.shape
    choice = torch.zeros(states, dtype=torch.int64)
    while True:
        probability = torch.nn.functional.one_hot(choice, joint).double()[None]
        solved = solve(game, probability)
        worth = solved.action_value[0]
        better = worth.max(-1)
        improves = better.values > worth.gather(1, choice[:, None])[:, 0] + tolerance
        if not improves.any():
            return float(solved.worth[0]), choice
        choice = torch.where(improves, better.indices, choice)


@torch.no_grad()
def nash_gap(game: TeamGame, policy: BayesianTable, tolerance: float = 1e-10) -> Tensor:
    """[B] the most that one agent gains by another rule for (state, parents' actions), the others' rules as they are.

    The others' rules may condition on what the agent does; they then see its new action.
    """
    conditionals = torch.stack([policy.conditional(agent) for agent in range(policy.agents)])
    own = solve(game, conditionals.sum(0).exp()).worth
    gaps = []
    for agent in range(policy.agents):
        others = (conditionals.sum(0) - conditionals[agent]).exp()
        gaps.append(best_response(game, policy, agent, others, tolerance) - own)
    return torch.stack(gaps).amax(0).clamp(min=0.0)


def best_response(game: TeamGame, policy: BayesianTable, agent: int, others: Tensor, tolerance: float) -> Tensor:
    """[B] J of the best rule of one agent against the others' product [B, S, K^n], by policy iteration."""
    logits = policy.logits[agent]
    cell = policy.row[agent] * policy.actions + policy.joint[:, agent]
    rule = logits.softmax(-1)
    while True:
        probability = others * rule.flatten(2)[:, :, cell]
        solved = solve(game, probability)
        flat = logits.new_zeros(*logits.shape[:2], logits[0, 0].numel())
        worth = flat.index_add(2, cell, others * solved.action_value).view_as(logits)
        better = worth.max(-1)
        improves = better.values > (rule * worth).sum(-1) + tolerance
        if not improves.any():
            return solved.worth
        chosen = torch.nn.functional.one_hot(better.indices, policy.actions).to(rule)
        rule = torch.where(improves[..., None], chosen, rule)
