"""Graphs of agents out of a state: a permutation times a set of edges, acyclic by construction, differentiable.

    G = U * (P^T T P)          T strictly upper triangular, P a permutation, U in {0, 1};  G[j, i]: j is a parent of i

P is the permutation nearest to a Gumbel-Sinkhorn matrix, U the larger of two Gumbel-softmax classes; both pass their
gradient on to the soft matrix beneath (straight-through). The uniforms behind the Gumbel noise are inputs, so the same
draws and parameters give the same graph again. M moments, n agents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ascent.core.random import generator
from ascent.policies.actor_critic import MLP
from ascent.policies.bayesian_table import complete, empty, line

Kind = Literal["learned", "empty", "complete", "line", "random"]
FIXED = {"empty": empty, "complete": complete, "line": line}


class _StraightThrough(torch.autograd.Function):
    """The first number forwards, the gradient to the second."""

    @staticmethod
    def forward(ctx: Any, hard: Tensor, soft: Tensor) -> Tensor:
        return hard.to(soft.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, gradient


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Exactly `hard`, with the gradient of `soft`."""
    found: Tensor = _StraightThrough.apply(hard, soft)
    return found


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise out of uniforms in [0, 1)."""
    tiny = torch.finfo(uniform.dtype).tiny
    return -(-(uniform.clamp(min=tiny).log())).clamp(min=torch.finfo(uniform.dtype).eps / 2).log()


def sinkhorn(log_alpha: Tensor, iterations: int) -> Tensor:
    """[..., n, n] matrices whose columns (and nearly whose rows) add up to 1: normalised in turn, in logarithms."""
    # With the moments last, both sums run over whole stretches of memory: several times faster, there and back.
    agents = log_alpha.shape[-1]
    turned = log_alpha.reshape(-1, agents, agents).permute(1, 2, 0).contiguous()
    for _ in range(iterations):
        turned = turned.log_softmax(1).log_softmax(0)
    return turned.exp().permute(2, 0, 1).reshape(log_alpha.shape)


def nearest_permutation(soft: Tensor) -> Tensor:
    """[M, n, n] permutation matrices with the largest inner product with `soft` (Hungarian method)."""
    costs = soft.detach().double().cpu().numpy()
    columns = np.empty(costs.shape[:2], np.int64)
    for moment, cost in enumerate(costs):
        columns[moment] = linear_sum_assignment(cost, maximize=True)[1]  # the rows of a square matrix come in order
    hard = torch.zeros_like(soft)
    hard.scatter_(-1, torch.from_numpy(columns).to(soft.device)[..., None], 1.0)
    return hard


def composed(permutation: Tensor, edges: Tensor) -> Tensor:
    """`U * (P^T T P)` [M, n, n] of permutations [M, n, n], position by agent, and edges [M, n, n], parent by child."""
    above = torch.ones(permutation.shape[-2:], dtype=permutation.dtype, device=permutation.device).triu(1)
    return edges * (permutation.mT @ above @ permutation)


def open_ratio(graph: Tensor) -> Tensor:
    """[...] share of the n (n - 1) / 2 possible edges of acyclic graphs [..., n, n]; 0 of a single agent."""
    agents = graph.shape[-1]
    return graph.sum((-1, -2)) * (2.0 / max(agents * (agents - 1), 1))


class GraphNetwork(nn.Module):
    """Graphs out of states.

    Args:
        agents: n.
        state_size: S.
        kind: "learned", or a fixed one: "empty", "complete", "line", or "random" edges over the given order.
        density: chance of each edge, with "random".
        hidden: widths of both networks.
        temperature: of both soft matrices, > 0.
        iterations: of Sinkhorn's normalisation, >= 1.
        seed: of the weights.

    Attributes:
        draws: uniforms that each agent brings to a moment's graph: n of its row of P, 2 n of its row of U.
    """

    def __init__(
        self,
        agents: int,
        state_size: int,
        kind: Kind = "learned",
        density: float = 0.5,
        hidden: Sequence[int] = (64,),
        temperature: float = 1.0,
        iterations: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if kind not in (*FIXED, "learned", "random"):
            raise ValueError(f"kind must be one of {', '.join((*FIXED, 'learned', 'random'))}; got {kind!r}.")
        if not temperature > 0 or iterations < 1:
            raise ValueError(f"temperature must be > 0, iterations >= 1; got {temperature!r}, {iterations!r}.")
        self.agents, self.kind, self.density = agents, kind, density
        self.temperature, self.iterations = temperature, iterations
        self.draws = 3 * agents if kind in ("learned", "random") else 0
        if kind == "learned":
            self.order = MLP((state_size, *hidden, agents * agents), 0.01, generator(seed, "order"))
            self.edge = MLP((state_size, *hidden, agents * agents * 2), 0.01, generator(seed, "edge"))

    def forward(self, state: Tensor, uniform: Tensor | None) -> Tensor:
        """Graphs [M, n, n] of states [M, S] by the uniforms [M, n, 3 n]; None: without noise, the likeliest.

        A "random" graph without uniforms is the one whose edges are likelier than not.
        """
        moments, n = len(state), self.agents
        if self.kind == "random":
            given = complete(n).to(state)
            if uniform is None:
                return given.expand(moments, n, n) * float(self.density >= 0.5)
            return given * (uniform[..., n : 2 * n] < self.density).to(state)
        if self.kind != "learned":
            return FIXED[self.kind](n).to(state).expand(moments, n, n)
        permutation = straight_through(*self.permutation(state, uniform))
        return composed(permutation, straight_through(*self.edges(state, uniform)))

    def permutation(self, state: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """The hard and the soft permutation [M, n, n]."""
        n = self.agents
        logits = nn.functional.logsigmoid(self.order(state).view(-1, n, n))
        noisy = logits if uniform is None else logits + gumbel(uniform[..., :n])
        soft = sinkhorn(noisy / self.temperature, self.iterations)
        return nearest_permutation(soft), soft

    def edges(self, state: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """The hard and the soft edges [M, n, n]."""
        n = self.agents
        logits = self.edge(state).view(-1, n, n, 2)
        noisy = logits if uniform is None else logits + gumbel(uniform[..., n:]).view(-1, n, n, 2)
        soft = (noisy / self.temperature).softmax(-1)[..., 1]
        return (soft > 0.5).to(soft), soft
