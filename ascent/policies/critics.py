"""K action-value networks as one: their weights are stacked, so a layer of all of them is one batched product."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.policies.actor_critic import ACTIVATIONS, SPREAD, Activation
from ascent.policies.policy import Probe


class Critics(nn.Module):
    """Q_k(s, a) for k = 1 .. K, networks of one shape and different weights.

    Args:
        observation_size: O, numbers in an observation.
        action_size: A, numbers in an action.
        count: K >= 1.
        hidden: widths of the hidden layers.
        activation: "relu" or "tanh".
        seed: of the initial weights, uniform within 1 / sqrt(inputs) as in `torch.nn.Linear`.
        final: bound of the last layer's initial weights instead, > 0; None takes the same.
        spread: each network also says how wide its error is, the probe "value_spread" [N, T, K], unbounded; the number
            that it says at first. None says nothing.

    Parameters are `weight.<layer>` [K, inputs, outputs] and `bias.<layer>` [K, 1, outputs].
    """

    splittable = True

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        count: int = 2,
        hidden: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        seed: int = 0,
        final: float | None = None,
        spread: float | None = None,
    ) -> None:
        super().__init__()
        if count < 1:
            raise ValueError(f"count must be an integer >= 1; got {count!r}.")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}.")
        self.count, self.activation = count, activation
        sizes = (observation_size + action_size, *hidden, 1 if spread is None else 2)
        self.spread = spread
        draw = generator(seed, "critics")
        weights, biases = [], []
        for place, (inputs, outputs) in enumerate(pairwise(sizes)):
            bound = final if final is not None and place == len(sizes) - 2 else 1.0 / math.sqrt(inputs)
            weights.append(bound * (2.0 * torch.rand(count, inputs, outputs, generator=draw) - 1.0))
            biases.append(bound * (2.0 * torch.rand(count, 1, outputs, generator=draw) - 1.0))
        if spread is not None:
            biases[-1][..., 1] = spread
        self.weight = nn.ParameterList(weights)
        self.bias = nn.ParameterList(biases)
        # Walking parameter lists costs as much as a small layer, so the layers are looked up once.
        self.layers = list(zip(self.weight, self.bias, strict=True))

    def forward(self, observation: Tensor, action: Tensor, frozen: bool = False, first: int | None = None) -> Tensor:
        """Values [..., K] of observations [..., O] and actions [..., A].

        Args:
            observation, action: of equal leading dimensions.
            frozen: the weights are constants: gradient flows to the inputs only.
            first: only the first so many critics; None is all K.
        """
        count = self.count if first is None else first
        x = self._hidden(observation, action, frozen, count)
        weight, bias = (self._cut(tensor, frozen, count) for tensor in self.layers[-1])
        if self.spread is not None:
            weight, bias = weight[..., :1], bias[..., :1]
        # A product with a single column is several times faster as a sum than as a batched product.
        return (x * weight.mT).sum(-1).add_(bias[..., 0]).t().reshape(*observation.shape[:-1], count)

    def _hidden(self, observation: Tensor, action: Tensor, frozen: bool, count: int) -> Tensor:
        """The last hidden activation [count, B, H] of the first `count` networks."""
        x = torch.cat((observation, action), dim=-1).view(-1, observation.shape[-1] + action.shape[-1])
        x = x.expand(count, *x.shape)
        for weight, bias in self.layers[:-1]:
            weight, bias = self._cut(weight, frozen, count), self._cut(bias, frozen, count)
            x = ACTIVATIONS[self.activation](torch.bmm(x, weight).add_(bias))
        return x

    def said(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Values and spreads [..., K]."""
        weight, bias = self.layers[-1]
        both = torch.bmm(self._hidden(observation, action, False, self.count), weight) + bias
        value, spread = both.transpose(0, 1).reshape(*observation.shape[:-1], self.count, 2).unbind(-1)
        return value, spread

    def _cut(self, parameter: Tensor, frozen: bool, count: int) -> Tensor:
        """The stacked parameter of the first `count` critics, a constant if frozen."""
        tensor = parameter.detach() if frozen else parameter
        return tensor if count == self.count else tensor[:count]

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """`value` [N, T, K]: Q_k of the recorded observation and action, with gradient; and `value_spread` if asked."""
        observation = decisions.context["observation"]
        if SPREAD not in needs:
            return Evaluation(value=self(observation, decisions.action))
        if self.spread is None:
            raise ValueError("these critics have no spread; build them with spread=0.")
        value, spread = self.said(observation, decisions.action)
        return Evaluation(value=value, probes={"value_spread": spread})

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """The decisions as they are: what follows an action is told by the target networks, not by these."""
        return decisions
