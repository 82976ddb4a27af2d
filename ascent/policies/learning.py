"""Policies as a learning stage evaluates them: the same numbers, at less cost for small networks.

`native_mlp.py` says how, and why nobody but a learning stage may take its gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.policies.actor_critic import MLP, ActorCritic
from ascent.policies.native_mlp import MOST, Normal, Piece, Stack, passed
from ascent.policies.policy import Policy, Probe

SAID = frozenset({"log_prob", "entropy", "value"})
"""What is said of a normal policy without PyTorch's operations."""


def stacked(network: MLP) -> Stack:
    """The layers of an MLP."""
    parameters = [parameter for layer in network.layers for parameter in (layer.weight, layer.bias)]
    return Stack(parameters, network.activation == "relu")


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
        x = observation.view(-1, observation.shape[-1])
        acts = needs - {"value"}
        pieces: list[tuple[Piece, Sequence[Tensor]]] = []
        if acts:
            pieces.append((self.normal, (x, action.view(-1, action.shape[-1]))))
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


def learning(model: Policy) -> Policy:
    """The model as a learning stage should evaluate it."""
    if type(model) is not ActorCritic or len(model.actor.layers) > MOST:
        return model
    return Learning(model)
