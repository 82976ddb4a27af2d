"""Steps: what moves a model's parameters, built from the method's specification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ascent.core.part import Clock
from ascent.core.plan import SGD, Adam, Step, at


class Stepper:
    """An optimiser over the trainable parameters of one model.

    Args:
        specification: the method's step.
        parameters: (name, parameter) pairs; those without `requires_grad` are left alone.
    """

    def __init__(self, specification: Step, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.specification = specification
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        if not named:
            raise ValueError("the model has no trainable parameter; set requires_grad on some of them.")
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.optimiser = _build(specification, self.parameters)

    def step(self, clock: Clock) -> dict[str, Tensor]:
        """Clip the gradient, move, clear. Returns `gradient_norm` (before clipping) and `learning_rate`."""
        specification = self.specification
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
        limit = specification.max_gradient_norm
        if limit is not None and gradients:
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))
        rate = at(specification.learning_rate, clock)
        if isinstance(specification, Adam) and specification.warmup:
            rate *= min(1.0, (clock.step + 1) / specification.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.clear()
        return {"gradient_norm": norm, "learning_rate": torch.tensor(rate)}

    def clear(self) -> None:
        """Forget the gradient."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Moments by parameter name."""
        return {
            name: dict(self.optimiser.state[parameter])
            for name, parameter in zip(self.names, self.parameters, strict=True)
            if parameter in self.optimiser.state
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """The inverse of `state_dict`."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if name in state:
                self.optimiser.state[parameter] = dict(state[name])


def _build(specification: Step, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if isinstance(specification, SGD):
        return torch.optim.SGD(parameters, lr=1.0, momentum=specification.momentum)
    kind = torch.optim.AdamW if specification.weight_decay else torch.optim.Adam
    return kind(
        parameters,
        lr=1.0,
        betas=specification.betas,
        eps=specification.eps,
        weight_decay=specification.weight_decay,
        fused=all(parameter.is_floating_point() for parameter in parameters),
    )
