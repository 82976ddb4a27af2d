"""Steps: what moves a model's parameters, built from the method's specification."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ascent.core.part import Clock
from ascent.core.plan import SGD, Adam, AppendTree, Step, at
from ascent.policies.trees.policy import TreeActorCritic
from ascent.training.adam import FusedAdam


class Steps(Protocol):
    """What moves a model after each update."""

    parameters: list[nn.Parameter]

    def step(self, clock: Clock) -> dict[str, Tensor]: ...
    def clear(self) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def stepper_for(specification: Step, model: nn.Module) -> Steps:
    """What moves this model as its method specifies.

    Raises:
        TypeError: trees are to be appended to a model that is no ensemble of trees, or moved by an optimiser.
    """
    if isinstance(specification, AppendTree) != isinstance(model, TreeActorCritic):
        raise TypeError(
            f"the step {type(specification).__name__} does not move a {type(model).__name__}: AppendTree and "
            "TreeActorCritic belong together. In a configuration, set policy to trees."
        )
    if isinstance(specification, AppendTree):
        assert isinstance(model, TreeActorCritic)
        return TreeStepper(specification, model)
    return Stepper(specification, model.named_parameters())


class Stepper:
    """An optimiser over the trainable parameters of one model.

    Args:
        specification: the method's step.
        parameters: (name, parameter) pairs; those without `requires_grad` are left alone.
    """

    def __init__(self, specification: Adam | SGD, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.specification = specification
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        if not named:
            raise ValueError("the model has no trainable parameter; set requires_grad on some of them.")
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.optimiser = _build(specification, named)
        self._told, self._rate = 0.0, torch.tensor(0.0)

    def step(self, clock: Clock) -> dict[str, Tensor]:
        """Clip the gradient, move, clear. Returns `gradient_norm` (before clipping) and `learning_rate`."""
        specification = self.specification
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        rate = at(specification.learning_rate, clock)
        if isinstance(specification, Adam) and specification.warmup:
            rate *= min(1.0, (clock.step + 1) / specification.warmup)
        norm = self.optimiser.clipped(gradients, rate) if isinstance(self.optimiser, FusedAdam) else None
        if norm is None:
            norm = total_norm(gradients) if gradients else torch.zeros(())
            limit = specification.max_gradient_norm
            if limit is not None and gradients:
                torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
            self.optimiser.step(rate)
        self.clear()
        if rate != self._told:
            self._told, self._rate = rate, torch.tensor(rate)
        return {"gradient_norm": norm, "learning_rate": self._rate}

    def clear(self) -> None:
        """Forget the gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Moments by parameter name."""
        return self.optimiser.state_dict()

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """The inverse of `state_dict`."""
        self.optimiser.load_state_dict(state)


class TreeStepper:
    """Appends a tree to an ensemble; what the policy has beside trees, a network for the value or the log standard
    deviation of its actions, moves by optimisers of its own."""

    def __init__(self, specification: AppendTree, model: TreeActorCritic) -> None:
        self.specification, self.model = specification, model
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        of_critic = [pair for pair in named if pair[0].startswith("critic.")]
        others = [pair for pair in named if not pair[0].startswith("critic.")]
        self.others = Stepper(specification.others, others) if others else None
        self.critic: Stepper | None = None
        if of_critic:
            if specification.critic is None:
                raise ValueError("the value is a network, and AppendTree.critic is None; say how it moves: Adam(3e-4).")
            self.critic = Stepper(specification.critic, of_critic)

    def step(self, clock: Clock) -> dict[str, Tensor]:
        """Grow and append. `gradient_norm` is that of the loss by the function's values, before clipping.

        Where the value is a network, its weights count with the function's values.
        """
        step = self.specification
        rate = at(step.learning_rate, clock)
        norm = self.model.grow(step, rate, at(step.value_learning_rate, clock))
        if self.others is not None:
            self.others.step(clock)
        told = {"learning_rate": torch.tensor(rate), "trees": torch.tensor(float(self.model.trees))}
        if self.critic is not None:
            told["critic_gradient_norm"] = self.critic.step(clock)["gradient_norm"]
            norm = math.hypot(norm, float(told["critic_gradient_norm"]))
        return {"gradient_norm": torch.tensor(norm), **told}

    def clear(self) -> None:
        """Forget the gradient."""
        self.model.clear()
        for stepper in self._steppers:
            stepper.clear()

    def state_dict(self) -> dict[str, Any]:
        """Moments of the other parameters; the trees are the model's."""
        return {name: state for stepper in self._steppers for name, state in stepper.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for stepper in self._steppers:
            stepper.load_state_dict(state)

    @property
    def _steppers(self) -> list[Stepper]:
        return [stepper for stepper in (self.others, self.critic) if stepper is not None]


class Momentum:
    """PyTorch's SGD, with its momentum by parameter name."""

    def __init__(self, specification: SGD, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        self.named = list(named)
        self.optimiser = torch.optim.SGD([parameter for _, parameter in named], lr=1.0, momentum=specification.momentum)

    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient, at this learning rate."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """Momentum by parameter name."""
        state = self.optimiser.state
        return {name: dict(state[parameter]) for name, parameter in self.named if parameter in state}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """The inverse of `state_dict`."""
        for name, parameter in self.named:
            if name in state:
                self.optimiser.state[parameter] = dict(state[name])


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, as `torch.nn.utils.get_total_norm` gives it, bit for bit."""
    # Of one kind, there is nothing to sort by device and dtype, which costs more than the norms of a small network.
    if len({(gradient.device, gradient.dtype) for gradient in gradients}) == 1:
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return torch.nn.utils.get_total_norm(gradients)


def _build(specification: Adam | SGD, named: Sequence[tuple[str, nn.Parameter]]) -> FusedAdam | Momentum:
    return Momentum(specification, named) if isinstance(specification, SGD) else FusedAdam(specification, named)
