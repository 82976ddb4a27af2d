"""An ensemble of networks that predict the next state and the reward: stacked weights, batched products.

Dimensions: E members, O observation numbers, A action numbers; B inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.policies.continuous import ContinuousActor
from ascent.policies.critics import Critics
from ascent.policies.policy import Probe

LOWEST, HIGHEST = -10.0, 4.0  # of the log variance of a number of the state, approached softly


class Dynamics(nn.Module):
    """E networks (s, a) -> change of the state, reward, and log variances of a Gaussian model.

    Args:
        observation_size: O.
        action_size: A.
        members: E >= 1.
        elites: members that imagine, <= E.
        hidden: widths of the hidden layers, SiLU.
        gaussian: also says O log variances.
        seed: of the initial weights, uniform within 1 / sqrt(inputs).

    Parameters are `weight.<layer>` [E, inputs, outputs] and `bias.<layer>` [E, 1, outputs]; the buffers `mean` and
    `deviation` standardise inputs, `elite` [elites] names the members that imagine. Outputs are not standardised.
    """

    splittable = True
    mean: Tensor
    deviation: Tensor
    elite: Tensor

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        members: int = 7,
        elites: int = 5,
        hidden: Sequence[int] = (200, 200, 200, 200),
        gaussian: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= elites <= members:
            raise ValueError(f"elites must be in 1..members={members}; got {elites!r}.")
        self.state_size, self.members, self.gaussian = observation_size, members, gaussian
        inputs = observation_size + action_size
        self.outputs = observation_size + 1 + (observation_size if gaussian else 0)
        draw = generator(seed, "dynamics")
        weights, biases = [], []
        for before, after in pairwise((inputs, *hidden, self.outputs)):
            bound = 1.0 / math.sqrt(before)
            weights.append(bound * (2.0 * torch.rand(members, before, after, generator=draw) - 1.0))
            biases.append(bound * (2.0 * torch.rand(members, 1, after, generator=draw) - 1.0))
        self.weight = nn.ParameterList(weights)
        self.bias = nn.ParameterList(biases)
        self.layers = list(zip(self.weight, self.bias, strict=True))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.register_buffer("elite", torch.arange(elites))

    def forward(self, observation: Tensor, action: Tensor, which: Tensor | None = None) -> Tensor:
        """[E, B, outputs]: change, reward, log variances.

        Args:
            observation: [B, O], or [M, B, O] where `which` is given.
            action: [B, A] or [M, B, A].
            which: [M] numbers of the members that are asked, each on its own inputs; None asks all on the same.
        """
        x = (torch.cat((observation, action), -1) - self.mean) / self.deviation
        x = x.expand(self.members, *x.shape) if which is None else x
        layers = self.layers if which is None else [(weight[which], bias[which]) for weight, bias in self.layers]
        for weight, bias in layers[:-1]:
            x = silu(torch.baddbmm(bias, x, weight))
        weight, bias = layers[-1]
        said = torch.baddbmm(bias, x, weight)
        if not self.gaussian:
            return said
        middle, half = (HIGHEST + LOWEST) / 2, (HIGHEST - LOWEST) / 2
        known = self.state_size + 1
        return torch.cat((said[..., :known], middle + half * torch.tanh(said[..., known:] / half)), -1)

    @torch.no_grad()
    def standardise(self, observation: Tensor, action: Tensor) -> None:
        """Take mean and deviation of these inputs [B, O], [B, A]; a constant input is only shifted."""
        inputs = torch.cat((observation, action), -1).double()
        deviation = inputs.std(0, unbiased=False)
        self.mean.copy_(inputs.mean(0))
        self.deviation.copy_(torch.where(deviation > 1e-8, deviation, 1.0))

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """`outputs` [N, T, E * outputs] of the recorded observations and actions."""
        observation, action = decisions.context["observation"], decisions.action
        said = self(observation.flatten(0, 1), action.flatten(0, 1)).transpose(0, 1)
        return Evaluation(outputs=said.reshape(*decisions.mask.shape, -1))

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """The decisions as they are; nothing of them is a model's."""
        return decisions


class StateValues:
    """V_v(s) = Q_v(s, a*) of several value functions, a* the mean of the actor; all weights are constants.

    Args:
        actor: whose mean acts.
        critics: stacked networks; all of their values count.
    """

    def __init__(self, actor: ContinuousActor, critics: Sequence[Critics]) -> None:
        self.actor, self.critics = actor, tuple(critics)

    def action(self, state: Tensor) -> Tensor:
        """The actor's mean action [..., A], without gradient."""
        with torch.no_grad():
            said: Tensor = self.actor.network(state)
        return said[..., : self.actor.head.dimensions].tanh()

    def __call__(self, state: Tensor) -> Tensor:
        """[..., V] of states [..., O]; gradient flows to the states, past the actor, whose action is held."""
        action = self.action(state)
        return torch.cat([critics(state, action, frozen=True) for critics in self.critics], -1)

    def slopes(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Values [..., V] and their gradients [..., V, O] at the states, each value function's own."""
        with torch.enable_grad():
            leaf = state.detach().requires_grad_()
            values = self(leaf)
            found = [
                torch.autograd.grad(values[..., place].sum(), leaf, retain_graph=True)[0]
                for place in range(values.shape[-1])
            ]
        return values.detach(), torch.stack(found, -2)


class Predicted:
    """A dynamics ensemble as a Learn sees it where the loss asks what its predictions are worth (IterVAML).

    Args:
        model: whose parameters learn.
        values: the value functions.
    """

    splittable = True

    def __init__(self, model: Dynamics, values: StateValues) -> None:
        self.model, self.values = model, values
        self.named_parameters = model.named_parameters
        self.annotate = model.annotate

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """`outputs`, and if asked for the probe "predicted_value" [N, T, E * V], V of each member's next state."""
        said = self.model.evaluate(decisions, needs)
        if "probe:predicted_value" not in needs:
            return said
        state = decisions.context["observation"]
        change = said.outputs.unflatten(-1, (self.model.members, -1))[..., : state.shape[-1]]
        worth = self.values(state.unsqueeze(-2) + change)
        return Evaluation(outputs=said.outputs, probes={"predicted_value": worth.flatten(-2)})
