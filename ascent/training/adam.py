"""Adam on lists of parameters: PyTorch's fused kernel, called without what `torch.optim` does around it.

For a small network that surrounding costs more than the arithmetic. The kernel, its order and its numbers are those
of `torch.optim.Adam(fused=True)` and `AdamW(fused=True)`, so the bits are too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ascent.core.plan import Adam
from ascent.training.native_adam import NativeAdam


class _Alike:
    """Moments of the parameters of one device and dtype, which one kernel moves.

    Attributes:
        counts: [P] float32, steps that each parameter has taken; `steps` are views of it, as the kernel wants them.
    """

    def __init__(self, specification: Adam, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.counts = torch.zeros(len(named), dtype=torch.float32, device=self.parameters[0].device)
        self.steps = list(self.counts.unbind())
        self.native = NativeAdam(specification, self.parameters, self.first, self.second, self.counts)


class FusedAdam:
    """The moments of named parameters. A parameter without gradient stays where it is and takes no step.

    Args:
        specification: decay rates, eps and weight decay; its learning rate and clipping are the caller's.
        named: (name, parameter) pairs. Their devices are read at the first step, so that a model may move before it.
    """

    def __init__(self, specification: Adam, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        self.specification = specification
        self.named = list(named)
        self._alike: list[_Alike] | None = None

    @property
    def alike(self) -> list[_Alike]:
        if self._alike is None:
            kinds: dict[tuple[torch.device, torch.dtype], list[tuple[str, nn.Parameter]]] = {}
            for name, parameter in self.named:
                kinds.setdefault((parameter.device, parameter.dtype), []).append((name, parameter))
            self._alike = [_Alike(self.specification, named) for named in kinds.values()]
        return self._alike

    @torch.no_grad()
    def clipped(self, gradients: Sequence[Tensor], rate: float) -> Tensor | None:
        """Clip the gradients of all parameters and move, in one call; their norm before.

        None, and nothing is done, where not every parameter has a gradient, or `native_adam.py` does not fit.
        """
        if len(gradients) != len(self.named) or len(self.alike) != 1:
            return None
        norm = self.alike[0].native.step(gradients, rate)
        return None if norm is None else torch.tensor(norm, dtype=gradients[0].dtype)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every parameter that has a gradient, at this learning rate."""
        for alike in self.alike:
            parameters, first, second, steps = alike.parameters, alike.first, alike.second, alike.steps
            gradients = [parameter.grad for parameter in parameters]
            places = [place for place, gradient in enumerate(gradients) if gradient is not None]
            if len(places) == len(gradients):
                alike.counts += 1
            elif places:
                parameters, first, second, steps = (
                    [several[place] for place in places] for several in (parameters, first, second, steps)
                )
                alike.counts[torch.tensor(places, device=alike.counts.device)] += 1
            else:
                continue
            self._move(
                parameters, [gradient for gradient in gradients if gradient is not None], first, second, steps, rate
            )

    def _move(
        self,
        parameters: list[nn.Parameter],
        gradients: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
        steps: list[Tensor],
        rate: float,
    ) -> None:
        specification = self.specification
        kernel = torch._fused_adamw_ if specification.weight_decay else torch._fused_adam_
        kernel(
            parameters,
            gradients,
            first,
            second,
            [],
            steps,
            lr=rate,
            beta1=specification.betas[0],
            beta2=specification.betas[1],
            weight_decay=specification.weight_decay,
            eps=specification.eps,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """`step`, `exp_avg`, `exp_avg_sq` (PyTorch's names) by parameter name, of those that have taken a step."""
        return {
            alike.names[place]: {
                "step": torch.tensor(count),
                "exp_avg": alike.first[place],
                "exp_avg_sq": alike.second[place],
            }
            for alike in self._alike or ()
            for place, count in enumerate(alike.counts.tolist())
            if count
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """The inverse of `state_dict`; a parameter that it does not name starts anew."""
        self._alike = None
        for alike in self.alike:
            for place, name in enumerate(alike.names):
                if name in state:
                    alike.first[place].copy_(state[name]["exp_avg"])
                    alike.second[place].copy_(state[name]["exp_avg_sq"])
                    alike.counts[place] = state[name]["step"]
