"""Several agents in one batch: the agents of one moment are consecutive decisions that share a `segment`.

A team earns one reward a moment. Where its critic says one value of it, credit is given to moments and every agent of a
moment gets the same (`Team`); where each agent has values of its own, each has its own credit (`EachAgent`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ascent.core.decisions import Columns, Decisions
from ascent.core.part import Part
from ascent.core.reductions import last
from ascent.core.returns import GAE

Credit = Callable[[Decisions], Tensor]


def moments(decisions: Decisions) -> tuple[Tensor, Tensor]:
    """[N, T] which moment of its row a decision belongs to, from 0, and [N, T] which decisions are the last of one."""
    end = last(decisions, "segment")
    number = end.long().cumsum(1) - end.long()
    return number, end


def team_reward(decisions: Decisions) -> Tensor:
    """[N, T] mean reward over the deciding agents of a moment, on each of them: the reward where it is shared."""
    mask = decisions.mask
    number, _ = moments(decisions)
    reward = torch.where(mask, decisions.reward, 0.0)
    room = reward.new_zeros(len(reward), mask.shape[1] + 1)
    total = room.scatter_add(1, number, reward)
    count = room.scatter_add(1, number, mask.to(reward.dtype))
    return torch.where(mask, (total / count.clamp(min=1.0)).gather(1, number), 0.0)


@dataclass(frozen=True)
class Team(Part):
    """A credit of whole moments, given to every agent of the moment [N, T].

    Attributes:
        of: the credit; it sees one decision a moment, the last, with the team's reward and the values recorded there.

    The reward of a moment is the mean over its agents, which is the reward where all share it.
    """

    of: Credit = GAE()

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"segment", "reward"})

    def __call__(self, decisions: Decisions) -> Tensor:
        number, end = moments(decisions)
        credit = self.of(decisions.replace(mask=end, reward=team_reward(decisions)))
        room = credit.new_zeros(len(credit), credit.shape[1] + 1)
        whole = room.scatter_add(1, number, torch.where(end, credit, 0.0))
        return torch.where(decisions.mask, whole.gather(1, number), 0.0)


@dataclass(frozen=True)
class EachAgent(Part):
    """A credit of each agent's own stream of decisions and values, with the team's reward [N, T].

    Attributes:
        of: the credit; it sees one agent at a time.

    Reads "agent" [N, T], who decides, and "left" [N, T] bool, True on an agent's last decision before the others go on
    without it: nothing follows there, so what the team earns later is not credited to it.
    """

    of: Credit = GAE()

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"segment", "reward", "terminated", "agent", "left"})

    def __call__(self, decisions: Decisions) -> Tensor:
        agent, left = (decisions.column(name, "EachAgent") for name in ("agent", "left"))
        shared = decisions.replace(reward=team_reward(decisions), terminated=decisions.terminated | left)
        found = torch.zeros_like(shared.reward)
        for number in torch.unique(agent[decisions.mask]):
            own = decisions.mask & (agent == number)
            found = torch.where(own, self.of(shared.replace(mask=own)), found)
        return found

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        """Two agents in turn, as the example's segments of two decisions."""
        agent = torch.arange(decisions.mask.shape[1]).expand(decisions.mask.shape) % 2
        return {"agent": agent, "left": torch.rand(decisions.mask.shape, generator=generator) < 0.2}
