"""Policies as a learning stage evaluates them: the same numbers, at less cost for small networks.

`native_mlp.py` says how, and why nobody but a learning stage may take its gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.policies.actor_critic import MLP, ActorCritic
from ascent.policies.continuous import ContinuousActor, Judged
from ascent.policies.critics import Critics
from ascent.policies.native_mlp import MOST, Normal, Piece, Stack, passed
from ascent.policies.policy import Policy, Probe

SAID = frozenset({"log_prob", "entropy", "value"})
"""What is said of a normal policy without PyTorch's operations."""


def stacked(network: MLP, constant: bool = False) -> Stack:
    """The layers of an MLP."""
    parameters = [parameter for layer in network.layers for parameter in (layer.weight, layer.bias)]
    return Stack(parameters, network.activation == "relu", constant)


class Learning:
    """An actor-critic whose gradients go straight into the parameters' `.grad`.

    Args:
        policy: whose parameters learn.
    """

    splittable = True

    def __init__(self, policy: ActorCritic) -> None:
        self.policy, self.annotate = policy, policy.annotate
        self.actor = stacked(policy.actor)
        self.critic = None if policy.critic is None else stacked(policy.critic)
        head, log_std = policy.head, policy.log_std
        plain = head.kind == "gaussian" and not head.tanh_mean and policy.members is None
        self.normal = Normal(self.actor, log_std) if plain and log_std is not None else None

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """What the policy says."""
        said = self._normal(decisions, needs) if self.normal is not None and needs <= SAID and not probes else None
        return self.policy.evaluate(decisions, needs, probes, self.networks) if said is None else said

    def _normal(self, decisions: Decisions, needs: frozenset[str]) -> Evaluation | None:
        """All of `SAID` that is needed."""
        assert self.normal is not None
        observation, action, shape = decisions.context["observation"], decisions.action, decisions.mask.shape
        x = observation.reshape(-1, observation.shape[-1])
        acts = "log_prob" in needs
        if not acts and "entropy" in needs:
            return None
        pieces: list[tuple[Piece, Sequence[Tensor]]] = []
        if acts:
            pieces.append((self.normal, (x, action.reshape(-1, action.shape[-1]))))
        if "value" in needs and self.critic is not None:
            pieces.append((self.critic, (x,)))
        found = passed(pieces) if pieces else None
        if found is None:
            return None
        columns = {"value": found[-1].view(shape)} if "value" in needs else {}
        if acts:
            columns["log_prob"] = found[0].view(shape)
            if "entropy" in needs:
                columns["entropy"] = found[1].expand(shape)
        return Evaluation(**columns)

    def networks(self, x: Tensor, acts: bool, value: bool) -> tuple[Tensor | None, Tensor | None]:
        """See `Networks`."""
        wanted = [stack for stack, asked in ((self.actor, acts), (self.critic, value)) if asked and stack is not None]
        found = passed([(stack, (x,)) for stack in wanted]) if wanted else None
        if found is None:
            return None, None
        return found[0] if acts else None, found[-1] if value and self.critic is not None else None


class LearningCritics:
    """Critics whose gradients go straight into the parameters' `.grad`.

    Args:
        critics: whose parameters learn; they say no spread.
    """

    splittable = True

    def __init__(self, critics: Critics) -> None:
        self.critics, self.annotate = critics, critics.annotate
        self.stack = Stack(layers(critics), critics.activation == "relu")

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """What the critics say."""
        observation, action = decisions.context["observation"], decisions.action
        found = passed([(self.stack, (joined(observation, action),))]) if needs <= SAID else None
        if found is None:
            return self.critics.evaluate(decisions, needs, probes)
        return Evaluation(value=values(found[0], observation))


class LearningJudged:
    """An actor whose gradients go straight into the parameters' `.grad`, and its judges.

    Args:
        judged: the actor and the critics.
    """

    splittable = True

    def __init__(self, judged: Judged) -> None:
        self.judged, self.annotate = judged, judged.annotate
        self.actor, self.judges = stacked(judged.actor.network), constant_critics(judged.critics, judged.first)

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """What the critics say of the actor's action."""
        observation = decisions.context["observation"]
        found = passed([(self.actor, (observation.reshape(-1, observation.shape[-1]),))])
        if found is None:
            return self.judged.evaluate(decisions, needs, probes)
        judged = self.judged
        outputs = found[0].view(*observation.shape[:-1], -1)
        return judged.told(decisions, *judged.actor.drawn(outputs, judged.noise(decisions)), self.judges)


def layers(critics: Critics) -> list[nn.Parameter]:
    """Weights and biases of stacked critics, layer by layer."""
    return [parameter for layer in critics.layers for parameter in layer]


def joined(observation: Tensor, action: Tensor) -> Tensor:
    """[M, O + A] of observations [..., O] and actions [..., A]."""
    return torch.cat((observation, action), dim=-1).view(-1, observation.shape[-1] + action.shape[-1])


def values(outputs: Tensor, observation: Tensor) -> Tensor:
    """[..., K] of the critics' outputs [K, M, 1] for observations [..., O]."""
    return outputs[..., 0].t().reshape(*observation.shape[:-1], len(outputs))


def constant_critics(critics: Critics, first: int | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """`critics(observation, action, frozen=True, first=first)`."""
    if type(critics) is not Critics or critics.spread is not None or len(critics.layers) > MOST:
        return partial(critics, frozen=True, first=first)
    stack = Stack(layers(critics), critics.activation == "relu", constant=True, first=first)

    def said(observation: Tensor, action: Tensor) -> Tensor:
        found = stack.said(joined(observation, action))
        return critics(observation, action, frozen=True, first=first) if found is None else values(found, observation)

    return said


def constant_actor(actor: ContinuousActor) -> Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
    """`actor.fresh`, whose parameters have no gradient."""
    if type(actor) is not ContinuousActor or len(actor.network.layers) > MOST:
        return actor.fresh
    stack = stacked(actor.network, constant=True)

    def fresh(observation: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        outputs = stack.said(observation.reshape(-1, observation.shape[-1]))
        if outputs is None:
            return actor.fresh(observation, noise)
        return actor.drawn(outputs.view(*observation.shape[:-1], -1), noise)

    return fresh


def learning(model: Policy) -> Policy:
    """The model as a learning stage should evaluate it."""
    if type(model) is ActorCritic and len(model.actor.layers) <= MOST:
        return Learning(model)
    if type(model) is Critics and model.spread is None and len(model.layers) <= MOST:
        return LearningCritics(model)
    if type(model) is Judged and type(model.actor) is ContinuousActor and len(model.actor.network.layers) <= MOST:
        return LearningJudged(model)
    return model
