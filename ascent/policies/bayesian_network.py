"""The joint policy of a team: an encoder of observations, heads that see the parents' actions, critics.

    logits_i = W_i [ f(o_i), (onehot(a_j) G[j, i])_j ] + b_i             V(s): of the whole state, or V_i(o_i)

Columns: step t of agent i is decision `t n + i` of its row. M moments, n agents, O observation numbers, A actions, S
numbers of a state, H of an agent's memory. With memory f(o_i) is a gated recurrent unit's over what agent i saw since
its episode began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.core.ranges import one_of
from ascent.policies.actor_critic import MLP
from ascent.policies.graphs import GraphNetwork, Kind, open_ratio
from ascent.policies.policy import Probe

OPEN = "probe:open_ratio"
Critic = Literal["central", "own"]


class OwnCritics(nn.Module):
    """A critic of each agent, which sees what the agent sees.

    Args:
        agents: n.
        sizes: of each critic's layers, (O, hidden..., 1).
        seed: of the weights.
    """

    def __init__(self, agents: int, sizes: Sequence[int], seed: int = 0) -> None:
        super().__init__()
        self.each = nn.ModuleList(MLP(sizes, 1.0, generator(seed, "critic", agent)) for agent in range(agents))

    def forward(self, observation: Tensor) -> Tensor:
        """[M, n] of observations [M, n, O]."""
        return torch.cat([critic(observation[:, agent]) for agent, critic in enumerate(self.each)], -1)


class BayesianNetwork(nn.Module):
    """A team's policy over a fixed or learned graph, with one critic of the state or one of each agent's observation.

    Args:
        agents: n.
        observation_size: O, of each agent.
        actions: A, of each agent.
        state_size: S.
        graph: kind of the graph, see `GraphNetwork`.
        density: of a "random" graph.
        hidden: widths of the encoder, the critic and the graph's networks.
        temperature, iterations: of the graph's soft matrices.
        seed: of the weights.
        critic: "central", of the state, or "own" of each agent, of its observation.
        recurrent: put a gated recurrent unit, the same for all agents, between encoder and heads; critics have none.

    Decisions of a recurrent policy carry context "memory" [N, n, H], before the first moment of each row; inside a row
    it is cleared after every terminated or truncated moment. Rows must stay whole (Plan unit "row").
    """

    splittable = True

    def __init__(
        self,
        agents: int,
        observation_size: int,
        actions: int,
        state_size: int,
        graph: Kind = "learned",
        density: float = 0.5,
        hidden: Sequence[int] = (64, 64),
        temperature: float = 1.0,
        iterations: int = 20,
        seed: int = 0,
        critic: Critic = "central",
        recurrent: bool = False,
    ) -> None:
        super().__init__()
        one_of("critic", critic, ("central", "own"))
        self.agents, self.actions = agents, actions
        self.encoder = MLP((observation_size, *hidden), 2**0.5, generator(seed, "encoder"))
        self.critic: MLP | OwnCritics
        if critic == "own":
            self.critic = OwnCritics(agents, (observation_size, *hidden, 1), seed)
        else:
            self.critic = MLP((state_size, *hidden, 1), 1.0, generator(seed, "critic"))
        self.graph = GraphNetwork(agents, state_size, graph, density, hidden, temperature, iterations, seed)
        weights = torch.empty(agents, hidden[-1] + agents * actions, actions)
        for agent in range(agents):
            nn.init.orthogonal_(weights[agent], 0.01, generator=generator(seed, "head", agent))
        self.weight = nn.Parameter(weights)
        self.bias = nn.Parameter(torch.zeros(agents, actions))
        self.cell = gated(hidden[-1], generator(seed, "memory")) if recurrent else None

    @property
    def value_layers(self) -> tuple[nn.Linear, ...]:
        """The last layer of every critic."""
        critics = self.critic.each if isinstance(self.critic, OwnCritics) else (self.critic,)
        return tuple(critic.layers[-1] for critic in critics)

    def own(self, observation: Tensor, memory: Tensor | None = None) -> Tensor:
        """[M, n, A] the part of the logits that needs no parents, of observations [M, n, O] or memories [M, n, H]."""
        features = self.encoder(observation).tanh() if memory is None else memory
        width = features.shape[-1]
        return torch.einsum("mih,iha->mia", features, self.weight[:, :width]) + self.bias

    @torch.no_grad()
    def remembered(self, observation: Tensor, memory: Tensor | None) -> Tensor | None:
        """[M, n, H] memory after observations [M, n, O], from the one before or None at the start; None without."""
        if self.cell is None:
            return None
        features = self.encoder(observation).tanh()
        return self._moved(self.cell, features, torch.zeros_like(features) if memory is None else memory)

    def _moved(self, cell: nn.GRUCell, features: Tensor, memory: Tensor) -> Tensor:
        return cell(features.flatten(0, 1), memory.flatten(0, 1)).view_as(memory)

    def _memories(self, decisions: Decisions) -> Tensor | None:
        """[M, n, H] memory after every moment of every row; None without."""
        if self.cell is None:
            return None
        rows, n = len(decisions.mask), self.agents
        memory = decisions.context["memory"]
        if memory.shape != (rows, n, self.cell.hidden_size):
            raise ValueError(
                f"context 'memory' must be [N, n, H] = [{rows}, {n}, {self.cell.hidden_size}]; got "
                f"{list(memory.shape)}. A recurrent policy trains on whole rows: use Plan(unit='row')."
            )
        observation = decisions.context["observation"]
        features = self.encoder(observation.reshape(rows, -1, n, observation.shape[-1])).tanh()
        goes_on = ~(decisions.terminated | decisions.truncated)[:, ::n, None, None]
        found = []
        for seen, keep in zip(features.unbind(1), goes_on.to(features).unbind(1), strict=True):
            memory = self._moved(self.cell, seen, memory)
            found.append(memory)
            memory = memory * keep
        return torch.stack(found, 1).flatten(0, 1)

    def heard(self, action: Tensor, decided: Tensor | None, graph: Tensor) -> Tensor:
        """[M, n, A] the parents' part, of actions [M, n] and graphs [M, n, n]; who did not decide is not heard."""
        onehot = nn.functional.one_hot(action, self.actions).to(self.weight)
        if decided is not None:
            onehot = onehot * decided[..., None].to(onehot)
        weight = self.weight[:, -self.agents * self.actions :].view(self.agents, self.agents, self.actions, -1)
        said = torch.einsum("mjb,ijba->mjia", onehot, weight)
        return torch.einsum("mji,mjia->mia", graph, said)

    def _seen(self, decisions: Decisions) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Observations [M, n, O], states [M, S], who was there [M, n], the graphs' draws, and actions that are open."""
        rows, columns = decisions.mask.shape
        n = self.agents
        if columns % n:
            raise ValueError(f"a row must hold whole moments of {n} decisions; got {columns} columns.")
        shape = (rows * columns // n, n)
        context = decisions.context
        observation = context["observation"].reshape(*shape, -1)
        state = context["state"][:, ::n].reshape(shape[0], -1)
        noise = decisions.column("graph_noise", "the graph").reshape(*shape, -1) if self.graph.draws else None
        available = context["available"].reshape(*shape, -1) if "available" in context else None
        # A decision that was masked later was still made: its children heard it.
        present = context.get("present", decisions.mask).reshape(shape)
        return observation, state, present, noise, available

    def distribution(self, decisions: Decisions) -> tuple[Tensor, Tensor]:
        """[M, n, A] log-probs of every action given the recorded actions of the parents, and the graphs [M, n, n]."""
        observation, state, decided, noise, available = self._seen(decisions)
        graph = self.graph(state, noise)
        action = decisions.action.reshape(decided.shape).masked_fill(~decided, 0)
        logits = self.own(observation, self._memories(decisions)) + self.heard(action, decided, graph)
        return open_only(logits, available).log_softmax(-1), graph

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """Those of log_prob, entropy, value and probe:open_ratio that are in `needs`, with gradient.

        Args:
            decisions: with context "observation" [N, T, O] and "state" [N, T, S], `action`, and the extra "graph_noise"
                [N, T, 3 n] where the graph is drawn; context "present" [N, T] says who was there, if not the mask.
            needs: names of evaluated columns.
            probes: none are known beside the own one.
        """
        shape = decisions.mask.shape
        columns: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        if {"log_prob", "entropy", OPEN} & needs:
            every, graph = self.distribution(decisions)
            action = decisions.action.masked_fill(~decisions.mask, 0).reshape(every.shape[:2])
            columns["log_prob"] = every.gather(-1, action[..., None])[..., 0].reshape(shape)
            if "entropy" in needs:
                safe = every.clamp(min=torch.finfo(every.dtype).min / self.actions)
                columns["entropy"] = -(every.exp() * safe).sum(-1).reshape(shape)
            if OPEN in needs:
                found["open_ratio"] = open_ratio(graph)[:, None].expand(-1, self.agents).reshape(shape)
        if "value" in needs:
            columns["value"] = self._value(decisions)
        return Evaluation(**columns, probes=found)

    def _value(self, decisions: Decisions, when: str = "") -> Tensor:
        """[N, T] of the moments, or with when="next_" of their successors; a central critic's once a moment."""
        if isinstance(self.critic, OwnCritics):
            observation = decisions.context[f"{when}observation"]
            return self.critic(observation.reshape(-1, self.agents, observation.shape[-1])).view(decisions.mask.shape)
        state = decisions.context[f"{when}state"]
        return self.critic(state[:, :: self.agents])[..., 0].repeat_interleave(self.agents, 1)

    @torch.no_grad()
    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """Write those of `old_log_prob`, `value`, `next_value` in `needs`; the next value is the next moment's.

        Reads context "next_state" [N, T, S], or "next_observation" [N, T, O] where each agent has its own critic.
        """
        columns: dict[str, Tensor] = {}
        if "old_log_prob" in needs:
            columns["old_log_prob"] = self.evaluate(decisions, frozenset({"log_prob"})).log_prob
        if {"value", "next_value"} & needs:
            columns["value"] = self._value(decisions)
        if "next_value" in needs:
            following = self._value(decisions, "next_")
            columns["next_value"] = following.masked_fill(decisions.terminated, 0.0)
        return decisions.replace(**columns)

    @torch.no_grad()
    def act(
        self,
        observation: Tensor,
        state: Tensor,
        uniform: Tensor | None,
        graph_noise: Tensor | None,
        decided: Tensor | None = None,
        available: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Actions [M, n], their log-probs [M, n] and graphs [M, n, n] of observations [M, n, O] and states [M, S].

        Args:
            uniform: [M, n], what each agent draws its action with; None takes the likeliest.
            graph_noise: [M, n, 3 n]; None takes the likeliest graph.
            decided: [M, n] bool, agents that are there; the others are not heard.
            available: [M, n, A] bool, actions that may be taken.
            memory: [M, n, H] after these observations, see `remembered`; None without.

        Every agent answers again until nobody's parents changed their mind: along an acyclic graph that takes as many
        rounds as its longest path, and gives what answering in any topological order would.
        """
        graph = self.graph(state, graph_noise)
        alone = self.own(observation, memory)
        action = torch.full(alone.shape[:2], -1)
        for round_ in range(self.agents + 1):
            logits = alone + self.heard(action, decided, graph) if round_ else alone
            every = open_only(logits, available).log_softmax(-1)
            if uniform is None:
                drawn = every.argmax(-1)
            else:
                chances = every.double().exp().cumsum(-1)
                drawn = (uniform[..., None] * chances[..., -1:] >= chances).sum(-1).clamp(max=self.actions - 1)
            if bool((drawn == action).all()):
                break
            action = drawn
        return action, every.gather(-1, action[..., None])[..., 0], graph


def open_only(logits: Tensor, available: Tensor | None) -> Tensor:
    """Logits [..., A], hopeless where an action may not be taken."""
    return logits if available is None else logits.masked_fill(~available, torch.finfo(logits.dtype).min / 4)


def gated(size: int, draw: torch.Generator) -> nn.GRUCell:
    """A gated recurrent unit from `size` numbers to as many, with orthogonal weights and biases 0."""
    cell = nn.GRUCell(size, size)
    for weight in (cell.weight_ih, cell.weight_hh):
        nn.init.orthogonal_(weight, generator=draw)
    for bias in (cell.bias_ih, cell.bias_hh):
        nn.init.zeros_(bias)
    return cell
