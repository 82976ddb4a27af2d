"""Gradient ascent with exact gradients in the tabular coordination game, all seeds of an arm at once."""

from __future__ import annotations

from typing import Any

import torch

from ascent.evaluation.team_games import best, gradient, nash_gap, solve
from ascent.policies.bayesian_table import BayesianTable, complete, empty, line
from ascent.worlds.teams.tables import coordination

GRAPHS = {"empty": empty, "line": line, "complete": complete}


def ascend(agents: int, graph: str, seeds: int, steps: int, every: int, pace: float = 1.0) -> dict[str, Any]:
    """J / J* and the Nash gap of `seeds` tables on the way.

    The released code steps 0.01 on a start distribution that adds up to 2^n / n; with a proper one that is a step of
    0.01 * 2^n / n, times `pace`.
    """
    game = coordination(agents)
    ceiling, _ = best(game)
    policy = BayesianTable(GRAPHS[graph](agents), 2**agents, 2, seeds=range(seeds))
    rate = pace * 0.01 * 2**agents / agents
    curve, at = [], []
    for step in range(steps + 1):
        if step % every == 0:
            with torch.no_grad():
                curve.append((solve(game, policy.log_prob().exp()).worth / ceiling).tolist())
            at.append(step)
        if step < steps:
            moves = gradient(game, policy)
            with torch.no_grad():
                for logits, move in zip(policy.logits, moves, strict=True):
                    logits += rate * move
    gap = nash_gap(game, policy) / ceiling
    return {"agents": agents, "graph": graph, "steps": at, "worth": curve, "gap": gap.tolist()}
