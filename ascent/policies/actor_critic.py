"""Actor and critic as small separate networks, for control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.policies.action_head import Acting, Density, Head
from ascent.policies.policy import Probe

SPREAD = "probe:value_spread"
Activation = Literal["tanh", "relu"]
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh_, "relu": torch.relu_}
"""In place, of a fresh product: half the memory traffic."""


def _relu(x: NDArray[Any]) -> NDArray[Any]:
    largest: NDArray[Any] = np.maximum(x, 0.0)
    return largest


NUMPY_ACTIVATIONS: Mapping[str, Callable[..., NDArray[Any]]] = {"tanh": np.tanh, "relu": _relu}


def orthogonal(inputs: int, outputs: int, gain: float, draw: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights (Saxe et al. 2014) of this gain and bias 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=draw)
    nn.init.zeros_(layer.bias)
    return layer


def arrays(layer: nn.Module) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of a linear layer's transposed weight and its bias (copies if on a device)."""
    weight, bias = (tensor.detach().cpu().numpy() for tensor in (layer.weight, layer.bias))
    return weight.T, bias


Networks = Callable[[Tensor, bool, bool], tuple[Tensor | None, Tensor | None]]
"""(observations [M, O], whether the actor, whether the critic is asked) -> outputs of each [M, ...], None of what is
not asked or cannot be passed so."""


class MLP(nn.Module):
    """Hidden layers with one activation, then a linear layer.

    Args:
        sizes: numbers in and out of every layer, (input, hidden..., output).
        gain: of the last layer's orthogonal initialisation; hidden ones have sqrt(2).
        draw: source of the initial weights.
        activation: "tanh" or "relu".
    """

    def __init__(self, sizes: Sequence[int], gain: float, draw: torch.Generator, activation: Activation = "tanh"):
        super().__init__()
        gains = [2**0.5] * (len(sizes) - 2) + [gain]
        self.layers = nn.ModuleList(
            orthogonal(inputs, outputs, each, draw)
            for inputs, outputs, each in zip(sizes[:-1], sizes[1:], gains, strict=True)
        )
        self.activation = activation

    def hidden(self, x: Tensor) -> Tensor:
        """The last hidden activation [..., H] of inputs [..., I]."""
        activate = ACTIVATIONS[self.activation]
        *layers, _ = self.layers
        for layer in layers:
            # The function and not the module: calling a module costs as much as a small matrix product.
            x = activate(linear(x, layer.weight, layer.bias))
        return x

    def last(self, hidden: Tensor) -> Tensor:
        """Outputs [..., O] of the last hidden activation."""
        layer = self.layers[-1]
        return linear(hidden, layer.weight, layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        # Matrices are cheaper than three-dimensional inputs, by about a tenth of a small network's time.
        flat = x.reshape(-1, x.shape[-1])
        return self.last(self.hidden(flat)).view(*x.shape[:-1], -1)

    def numpy(self) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """The same function of numpy arrays, reading the weights in place (copied once if on a device)."""
        layers = [arrays(layer) for layer in self.layers]
        hidden, (weight, bias) = layers[:-1], layers[-1]
        activate = NUMPY_ACTIVATIONS[self.activation]

        def forward(x: NDArray[Any]) -> NDArray[Any]:
            for matrix, offset in hidden:
                x = x @ matrix
                x += offset
                x = activate(x, out=x) if activate is np.tanh else activate(x)
            outputs: NDArray[Any] = x @ weight + bias
            return outputs

        return forward


class Actor:
    """A policy's distribution over actions as numpy arrays, for stepping environments.

    Attributes:
        head: family of the distribution.
        log_std: [A], or None for discrete actions.
        memory: [E, H] recurrent state before the next observation, or None.
    """

    memory: NDArray[Any] | None = None

    def __init__(self, head: Acting, log_std: Tensor | None, forward: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self.head = head
        self.log_std = None if log_std is None else log_std.detach().cpu().numpy()
        self._forward = forward

    def outputs(self, observation: NDArray[Any]) -> NDArray[Any]:
        """Logits or means [E, outputs] of observations [E, O]."""
        return self._forward(observation)

    def begin(self, environments: int) -> None:
        """Empty the memory for `environments` copies; an actor without memory has nothing to empty."""

    def restart(self, ended: NDArray[np.bool_]) -> None:
        """Forget what was seen in episodes that ended [E]; an actor without memory has nothing to forget."""


def boundaries(decisions: Decisions) -> Tensor:
    """[N, T] bool: decisions whose next value is not the value one column on, nor 0.

    So: truncated ones, the row's last, and those before a masked column.
    """
    mask = decisions.mask
    following = torch.zeros_like(mask)
    following[:, :-1] = mask[:, 1:]
    return mask & ~decisions.terminated & (decisions.truncated | ~following)


class ActorCritic(nn.Module):
    """Separate MLPs for the action distribution and the state value.

    Args:
        observation_size: O, numbers in an observation.
        head: family of the action distribution.
        hidden: sizes of the hidden layers of each network; () is a linear (with one-hot states, tabular) policy.
        critic: build the value network; without it `value` cannot be asked for.
        members: K values on one trunk, [N, T, K]; None is one value [N, T].
        spread: each member also says how wide its error is, the probe "value_spread" [N, T, K], unbounded; the number
            that it says at first. None says nothing.
        activation: "tanh" or "relu".
        log_std: initial state-independent log standard deviation.
        gain: of the actor's last layer (0.01 starts near uniform or zero mean; 0 exactly there).
        seed: of the initial weights.
    """

    splittable = True
    recurrent = False

    def __init__(
        self,
        observation_size: int,
        head: Head,
        hidden: Sequence[int] = (64, 64),
        critic: bool = True,
        activation: Activation = "tanh",
        log_std: float = 0.0,
        gain: float = 0.01,
        seed: int = 0,
        members: int | None = None,
        spread: float | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}.")
        self.head = head
        self.actor = MLP((observation_size, *hidden, head.outputs), gain, generator(seed, "actor"), activation)
        self.critic: MLP | None = None
        if members is None and spread is not None:
            raise ValueError(f"spread is said by the members of an ensemble; got spread={spread!r} with members=None.")
        self.members, self.spread = members, spread
        if critic:
            outputs = (members or 1) * (1 if spread is None else 2)
            self.critic = MLP((observation_size, *hidden, outputs), 1.0, generator(seed, "critic"), activation)
            if spread is not None:
                with torch.no_grad():
                    self.critic.layers[-1].get_parameter("bias")[1::2] = spread
        self.log_std = nn.Parameter(torch.full((head.dimensions,), log_std)) if head.continuous else None

    def numpy_actor(self) -> Actor:
        """The actor on views of the present weights; take a new one after they moved to another device."""
        return Actor(self.head, self.log_std, self.actor.numpy())

    def _said(self, observation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Values [...], or [..., K] of members, and the spreads [..., K] that they say."""
        if self.critic is None:
            raise ValueError("this policy has no critic, so it gives no value; build it with critic=True.")
        outputs = self.critic.last(self.critic.hidden(observation.reshape(-1, observation.shape[-1])))
        return self._shaped(outputs, observation.shape[:-1])

    def _shaped(self, outputs: Tensor, lead: torch.Size) -> tuple[Tensor, Tensor | None]:
        """The critic's outputs [M, ...] as values and spreads of the leading dimensions `lead`."""
        if self.members is None:
            return outputs.view(lead), None
        if self.spread is None:
            return outputs.view(*lead, self.members), None
        value, spread = outputs.view(*lead, self.members, 2).unbind(-1)
        return value, spread

    def _value(self, observation: Tensor) -> Tensor:
        return self._said(observation)[0]

    def evaluate(
        self,
        decisions: Decisions,
        needs: frozenset[str],
        probes: Mapping[str, Probe] | None = None,
        networks: Networks | None = None,
    ) -> Evaluation:
        """Those of log_prob, entropy, value, outputs, features and probes that are in `needs`, with gradient.

        Args:
            decisions: with context "observation" [N, T, O], `action`; for the KL probes
                extras "reference_distribution" [N, T, K] as `distribution_parameters` gave it.
            needs: names of evaluated columns; "probe:kl_reference" is KL(self || reference),
                "probe:reverse_kl_reference" KL(reference || self), both exact and summed over action numbers.
            probes: further probes, called with (outputs [N, T, K], features [N, T, H], action).
            networks: how the networks are passed, where features are not read; None is by PyTorch's operations.
        """
        observation = decisions.context["observation"]
        columns: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        judges = needs & {"value", SPREAD}
        acts = needs - judges
        hidden = outputs = valued = None
        if networks is not None and not probes and "features" not in acts:
            flat = observation.reshape(-1, observation.shape[-1])
            outputs, valued = networks(flat, bool(acts), bool(judges))
        if acts:
            if outputs is None:
                hidden = self.actor.hidden(observation.reshape(-1, observation.shape[-1]))
                outputs = self.actor.last(hidden)
            shape = decisions.mask.shape
            columns, found = evaluate_head(
                self.head,
                outputs.view(*shape, -1),
                self.log_std,
                None if hidden is None else hidden.view(*shape, -1),
                decisions,
                acts,
                probes or {},
            )
        if judges:
            lead = observation.shape[:-1]
            value, spread = self._said(observation) if valued is None else self._shaped(valued, lead)
            if "value" in needs:
                columns["value"] = value
            if SPREAD in needs:
                if spread is None:
                    raise ValueError("this policy's values have no spread; build it with members=K and spread=0.")
                found["value_spread"] = spread
        return Evaluation(**columns, probes=found)

    @torch.no_grad()
    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """Write those of `old_log_prob`, `value` and `next_value` that are in `needs`; one forward of each network.

        Next values are the values one column on, except: 0 where terminated, V(next_observation) where
        truncated and at the end of a row. Needs context "next_observation" [N, T, O] for them.
        """
        observation = decisions.context["observation"]
        columns: dict[str, Tensor] = {}
        if "old_log_prob" in needs:
            density = self.head.distribution(self.actor(observation), self.log_std)
            columns["old_log_prob"] = density.log_prob(decisions.action)
        if "next_value" in needs:
            edge = boundaries(decisions)
            rows, width = edge.shape
            seen = torch.cat([observation.flatten(0, 1), decisions.context["next_observation"][edge]])
            values = self._value(seen)
            value = values[: rows * width].view(rows, width, *values.shape[1:])
            columns["value"] = value
            columns["next_value"] = following_values(value, values[rows * width :], edge, decisions.terminated)
        elif "value" in needs:
            columns["value"] = self._value(observation)
        return decisions.replace(**columns)

    @torch.no_grad()
    def distribution_parameters(self, decisions: Decisions) -> Tensor:
        """[N, T, K] parameters of the action distribution: logits, or mean and log-std one after the other."""
        return self.head.parameters(self.actor(decisions.context["observation"]), self.log_std)


def following_values(value: Tensor, edge_values: Tensor, edge: Tensor, terminated: Tensor) -> Tensor:
    """Values of the successors, from values [N, T] (or [N, T, K]) and those of the B boundaries `edge` [N, T]."""
    following = torch.zeros_like(value)
    following[:, :-1] = value[:, 1:]
    following[edge] = edge_values
    return following.masked_fill_(terminated.view(*terminated.shape, *(1,) * (value.dim() - 2)), 0.0)


def evaluate_head(
    head: Head,
    outputs: Tensor,
    log_std: Tensor | None,
    hidden: Tensor | None,
    decisions: Decisions,
    needs: frozenset[str],
    probes: Mapping[str, Probe],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The evaluated columns and probes that follow from an actor's outputs; `hidden` is for features and probes."""
    density = head.distribution(outputs, log_std)
    columns: dict[str, Tensor] = {}
    if "log_prob" in needs:
        columns["log_prob"] = density.log_prob(decisions.action)
    if "entropy" in needs:
        entropy = density.entropy()
        columns["entropy"] = entropy if entropy.shape == decisions.mask.shape else entropy.expand(decisions.mask.shape)
    if "outputs" in needs:
        columns["outputs"] = outputs
    if "features" in needs and hidden is not None:
        columns["features"] = hidden
    found: dict[str, Tensor] = {}
    for need in needs:
        if not need.startswith("probe:"):
            continue
        name = need.removeprefix("probe:")
        if name in probes and hidden is not None:
            found[name] = probes[name](outputs, hidden, decisions.action)
        elif name in ("kl_reference", "reverse_kl_reference"):
            reference: Density = head.from_parameters(decisions.column("reference_distribution", f"probe {name!r}"))
            forward = name == "kl_reference"
            found[name] = density.kl(reference) if forward else reference.kl(density)  # type: ignore[arg-type]
        else:
            known = sorted({*probes, "kl_reference", "reverse_kl_reference"})
            raise ValueError(f"probe {name!r} is unknown to this policy; it knows {', '.join(known)}.")
    return columns, found
