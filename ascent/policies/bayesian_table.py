"""A joint policy over a given graph as tables: agent i's softmax row depends on the state and its parents' actions.

    pi(a | s) = prod_i pi_i(a_i | s, a_{parents of i})

B policies (seeds) at once; S states, n agents, K actions, joint actions numbered as in `worlds/teams/tables.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ascent.core.random import generator


def check_graph(graph: Tensor) -> None:
    """Raise ValueError unless `graph` [n, n] (graph[j, i]: j is a parent of i) has no cycle."""
    square = graph.dim() == 2 and graph.shape[0] == graph.shape[1]
    if not square or not acyclic(graph):
        raise ValueError(f"graph must be [n, n] without cycles, graph[j, i] for j a parent of i; got {graph.tolist()}.")


def acyclic(graph: Tensor) -> bool:
    """Whether graphs [..., n, n] have no cycle: no path is as long as there are agents."""
    paths = graph.double()
    for _ in range(graph.shape[-1] - 1):
        paths = (paths @ graph.double()).clamp(max=1.0)
    return not bool(paths.any())


def empty(agents: int) -> Tensor:
    """[n, n] nobody sees another's action."""
    return torch.zeros(agents, agents, dtype=torch.bool)


def complete(agents: int) -> Tensor:
    """[n, n] every agent sees all before it."""
    return torch.ones(agents, agents, dtype=torch.bool).triu(1)


def line(agents: int) -> Tensor:
    """[n, n] every agent sees the one before it."""
    return torch.ones(agents, agents, dtype=torch.bool).triu(1).tril(1)


class BayesianTable(nn.Module):
    """B tabular policies over one graph.

    Args:
        graph: [n, n] bool, graph[j, i] says that j is a parent of i.
        states: S.
        actions: K.
        seeds: of the B tables' initial numbers.
        scale: standard deviation of them; 0 is uniform.
    """

    def __init__(self, graph: Tensor, states: int, actions: int, seeds: Sequence[int] = (0,), scale: float = 1.0):
        super().__init__()
        check_graph(graph)
        self.graph, self.actions, self.states = graph.bool(), actions, states
        self.agents = len(graph)
        powers = actions ** torch.arange(self.agents - 1, -1, -1)
        joint = torch.arange(actions**self.agents)[:, None] // powers % actions
        self.joint = joint  # [K^n, n]
        self.parents = [graph[:, i].nonzero()[:, 0] for i in range(self.agents)]
        # [n, K^n] the number of each agent's parents' joint action.
        self.row = torch.stack(
            [
                (joint[:, who] * actions ** torch.arange(len(who) - 1, -1, -1)).sum(1)
                if len(who)
                else torch.zeros(len(joint), dtype=torch.int64)
                for who in self.parents
            ]
        )

        def drawn(agent: int) -> Tensor:
            shape = (states, actions ** len(self.parents[agent]), actions)
            draws = [
                torch.randn(shape, generator=generator(seed, "table", agent), dtype=torch.float64) for seed in seeds
            ]
            return scale * torch.stack(draws)

        self.logits = nn.ParameterList(nn.Parameter(drawn(agent)) for agent in range(self.agents))

    def conditional(self, agent: int) -> Tensor:
        """[B, S, K^n] log pi_i(a_i | s, a_parents) of an agent, in each joint action."""
        return self.logits[agent].log_softmax(-1)[:, :, self.row[agent], self.joint[:, agent]]

    def log_prob(self) -> Tensor:
        """[B, S, K^n] of every joint action: the sum of the conditionals."""
        return torch.stack([self.conditional(agent) for agent in range(self.agents)]).sum(0)

    def entropy(self) -> Tensor:
        """[B, S] of the joint distribution, nats."""
        log_prob = self.log_prob()
        return -(log_prob.exp() * log_prob).sum(-1)

    def marginal(self, agents: Sequence[int]) -> Tensor:
        """[B, S, K^m] probabilities of the joint actions of some agents, by enumeration."""
        m = len(agents)
        powers = self.actions ** torch.arange(m - 1, -1, -1)
        number = (self.joint[:, list(agents)] * powers).sum(1)
        probability = self.log_prob().exp()
        return probability.new_zeros(*probability.shape[:2], self.actions**m).index_add(2, number, probability)

    def act(self, state: Tensor, uniform: Tensor, order: Sequence[int] | None = None) -> Tensor:
        """[B, M, n] actions in states [M], by the inverse distribution of uniforms [B, M, n].

        `order` is a topological one; what is drawn depends on the uniforms and not on which one it is.
        """
        order = topological(self.graph) if order is None else order
        policies, moments, _ = uniform.shape
        action = torch.zeros(policies, moments, self.agents, dtype=torch.int64)
        which = torch.arange(policies)[:, None]
        for agent in order:
            who = self.parents[agent]
            powers = self.actions ** torch.arange(len(who) - 1, -1, -1)
            row = (action[:, :, who] * powers).sum(-1)
            chances = self.logits[agent].detach().softmax(-1)[which, state[None], row].cumsum(-1)
            drawn = (uniform[:, :, agent, None] >= chances).sum(-1)
            action[:, :, agent] = drawn.clamp(max=self.actions - 1)
        return action


def topological(graph: Tensor) -> list[int]:
    """Agents of an acyclic graph [n, n], parents before children."""
    left, order = list(range(len(graph))), list[int]()
    while left:
        free = [agent for agent in left if not graph[left, agent].any()]
        order += free
        left = [agent for agent in left if agent not in free]
    return order
