"""Cooperative Markov games as tables: every state, joint action and successor is listed.

S states, n agents with K actions each, K^n joint actions; the joint action of (a_1, ..., a_n) is the number with these
digits, agent 1's first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEEWAY = {2: 1, 3: 1, 5: 2, 10: 3}
"""Largest difference between zeros and ones at which a coordination game is in its penalty zone, by agents."""


@dataclass(frozen=True)
class TeamGame:
    """A cooperative game.

    Attributes:
        transition: [S, K^n, S] probabilities of the successor.
        reward: [S, K^n], shared.
        start: [S] probabilities.
        discount: gamma in [0, 1).
        agents: n.
        actions: K.
    """

    transition: Tensor
    reward: Tensor
    start: Tensor
    discount: float
    agents: int
    actions: int

    def __post_init__(self) -> None:
        if not 0 <= self.discount < 1:
            raise ValueError(f"discount must be in [0, 1); got {self.discount!r}.")
        joint = self.actions**self.agents
        states = len(self.start)
        if self.transition.shape != (states, joint, states) or self.reward.shape != (states, joint):
            raise ValueError(
                f"transition must be [S, K^n, S] and reward [S, K^n] with S={states}, K^n={joint}; got "
                f"{list(self.transition.shape)} and {list(self.reward.shape)}."
            )
        one = torch.ones((), dtype=self.start.dtype)
        for name, total in (("transition", self.transition.sum(-1)), ("start", self.start.sum())):
            if not torch.allclose(total, one):
                raise ValueError(f"{name} must be probabilities that add up to 1.")

    @property
    def joint(self) -> Tensor:
        """[K^n, n] actions of each joint action."""
        return digits(self.actions, self.agents)


def digits(base: int, places: int) -> Tensor:
    """[base^places, places] digits of 0, 1, ..., the most significant first."""
    numbers = torch.arange(base**places)
    powers = base ** torch.arange(places - 1, -1, -1)
    return numbers[:, None] // powers % base


def coordination_reward(bits: Tensor) -> Tensor:
    """[...] reward of states [..., n] of 0 and 1: 3 for mostly zeros, 2 for mostly ones, 0 or 1 between them."""
    agents = bits.shape[-1]
    ones = bits.sum(-1)
    zeros = agents - ones
    between = (zeros - ones).abs() <= LEEWAY[agents]
    inside = (ones > zeros).double()
    return torch.where(between, inside, torch.where(zeros > ones, 3.0, 2.0).double())


def coordination(agents: int, noise: float = 0.1, discount: float = 0.95) -> TeamGame:
    """The coordination game: every agent sets its bit of the state, which flips with probability `noise`.

    All zeros pay 3, all ones 2, what lies between 0 or 1: a team on the lesser hill has to leave it together.
    """
    if agents not in LEEWAY:
        raise ValueError(f"agents must be one of {sorted(LEEWAY)}; got {agents!r}.")
    if not 0 <= noise <= 1:
        raise ValueError(f"noise must be in [0, 1]; got {noise!r}.")
    bits = digits(2, agents)
    same = bits[:, None, :] == bits[None, :, :]
    follows = torch.where(same, 1.0 - noise, noise).double().prod(-1)  # [K^n, S]
    count = len(bits)
    return TeamGame(
        transition=follows[None].expand(count, -1, -1).contiguous(),
        reward=coordination_reward(bits)[:, None].expand(-1, count).contiguous(),
        start=torch.full((count,), 1.0 / count, dtype=torch.float64),
        discount=discount,
        agents=agents,
        actions=2,
    )


def matrix_game(actions: int, best: float = 2.0, miss: float = -1.0) -> TeamGame:
    """One shot of two agents: 1 where they agree, `best` where both take the first action, `miss` elsewhere."""
    table = torch.full((actions, actions), miss, dtype=torch.float64)
    table.fill_diagonal_(1.0)
    table[0, 0] = best
    return TeamGame(
        transition=torch.ones(1, actions**2, 1, dtype=torch.float64),
        reward=table.reshape(1, -1),
        start=torch.ones(1, dtype=torch.float64),
        discount=0.0,
        agents=2,
        actions=actions,
    )
