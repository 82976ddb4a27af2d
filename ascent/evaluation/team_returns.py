"""What a team earns in whole held-out episodes, and how much of its graph it uses there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ascent.core.random import key, uniform
from ascent.policies.bayesian_network import BayesianNetwork
from ascent.policies.graphs import open_ratio
from ascent.sampling.teams import shown
from ascent.worlds.teams.parallel import Teams


@dataclass(frozen=True)
class TeamReturns:
    """Of finished episodes in order of their seeds.

    Attributes:
        returns: sums over time of the agents' mean reward.
        lengths: steps.
        open_ratio: mean share of open edges over all moments; above 0 the agents must talk to act.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    open_ratio: float


def evaluate_team(
    policy: BayesianNetwork, teams: Teams, episodes: int, seed: int = 0, greedy: bool = True
) -> TeamReturns:
    """Play `episodes` seeded episodes: likeliest graphs and actions, or drawn ones where not `greedy`.

    A "random" graph is drawn in any case, by hashes of (seed, episode, time).
    """
    if episodes < 1:
        raise ValueError(f"episodes must be an integer >= 1; got {episodes!r}.")
    returns, lengths, ratios = np.zeros(episodes), np.zeros(episodes, np.int64), list[float]()
    drawn = policy.graph.draws and (policy.graph.kind == "random" or not greedy)
    for first in range(0, episodes, teams.count):
        playing = min(teams.count, episodes - first)
        numbers = [first + place for place in range(teams.count)]
        moment = teams.reset([key(seed, "held out", number) & 0x7FFF_FFFF for number in numbers])
        keys = torch.tensor([key(seed, "held out draw", number) for number in numbers])[:, None, None]
        live = np.arange(teams.count) < playing
        time, memory = 0, None
        while live.any():
            draws = uniform(keys, time, torch.arange(teams.agents)[:, None], torch.arange(1 + policy.graph.draws))
            context = shown(moment)
            memory = policy.remembered(context["observation"], memory)
            action, _, graph = policy.act(
                context["observation"],
                context["state"],
                None if greedy else draws[..., 0],
                draws[..., 1:].float() if drawn else None,
                torch.from_numpy(moment.present),
                context.get("available"),
                memory,
            )
            ratios += open_ratio(graph)[torch.from_numpy(live)].tolist()
            present = moment.present
            moment, reward, terminated, truncated = teams.step(action.numpy())
            earned = np.where(present, reward, 0.0).sum(1) / np.maximum(present.sum(1), 1)
            here = np.flatnonzero(live)
            returns[first + here] += earned[here]
            lengths[first + here] += 1
            live &= ~(terminated | truncated)
            over = terminated | truncated
            if over.any() and live.any():  # a copy that is done waits in an episode that does not count
                moment = teams.reset([0 if ended else None for ended in over])
            time += 1
    return TeamReturns(returns, lengths, float(np.mean(ratios)))
