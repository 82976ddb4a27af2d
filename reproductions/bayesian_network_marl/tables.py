"""Gradient ascent with exact gradients in tabular games, all seeds of an arm at once."""

from __future__ import annotations

from typing import Any

import torch

from ascent.evaluation.team_games import best, gradient, nash_gap, solve
from ascent.policies.bayesian_table import BayesianTable, complete, empty, line
from ascent.worlds.teams.tables import TeamGame, coordination, matrix_game

GRAPHS = {"empty": empty, "line": line, "complete": complete}


def game_of(name: str) -> tuple[TeamGame, float]:
    """A game and the step size: the released 0.01 for a start distribution that adds up to 2^n / n, made proper."""
    if name == "matrix":
        return matrix_game(3), 0.1
    agents = int(name)
    return coordination(agents), 0.01 * 2**agents / agents


def ascend(name: str, graph: str, seeds: int, steps: int, every: int) -> dict[str, Any]:
    """J / J* on the way, and the Nash gap / J* at the end, of `seeds` tables with N(0, 1) logits.

    `graph` is empty, line, complete, or "coins": the tables of the complete graph, whose rows are chosen by coins that
    each agent throws for itself. It has as many parameters as the complete graph and no correlation.
    """
    game, rate = game_of(name)
    ceiling, _ = best(game)
    coins = graph == "coins"
    made = GRAPHS["complete" if coins else graph](game.agents)
    policy = BayesianTable(made, len(game.start), game.actions, seeds=range(seeds))
    curve, at = [], []
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                probability = product(policy) if coins else policy.log_prob().exp()
                curve.append((solve(game, probability).worth / ceiling).tolist())
            at.append(step)
        if step < steps:
            moves = slopes(game, policy) if coins else gradient(game, policy)
            with torch.no_grad():
                for logits, move in zip(policy.logits, moves, strict=True):
                    logits += rate * move
    gap = (nash_gap(game, marginals(policy) if coins else policy) / ceiling).tolist()
    return {"game": name, "graph": graph, "steps": at, "worth": curve, "gap": gap}


def shares(policy: BayesianTable) -> list[torch.Tensor]:
    """Each agent's chances [B, S, K], its rows averaged."""
    return [logits.softmax(-1).mean(2) for logits in policy.logits]


def product(policy: BayesianTable) -> torch.Tensor:
    """[B, S, K^n] of agents that throw their own coins."""
    found = [chances[:, :, policy.joint[:, agent]] for agent, chances in enumerate(shares(policy))]
    return torch.stack(found).prod(0)


def slopes(game: TeamGame, policy: BayesianTable) -> list[torch.Tensor]:
    """Gradients of J with such coins."""
    worth = solve(game, product(policy)).worth.sum()
    return list(torch.autograd.grad(worth, list(policy.logits)))


def marginals(policy: BayesianTable) -> BayesianTable:
    """The same team as tables over the empty graph."""
    seeds = len(policy.logits[0])
    plain = BayesianTable(empty(policy.agents), policy.states, policy.actions, seeds=range(seeds))
    with torch.no_grad():
        for logits, chances in zip(plain.logits, shares(policy), strict=True):
            logits.copy_(chances.log()[:, :, None])
    return plain
