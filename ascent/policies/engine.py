"""A second engine: the same policy as another machine executes it, in numbers of lower precision.

Training and inference engines give the same weights different log-probs. Here that is simulated: the engine holds a
copy of the policy whose weights, and perhaps activations, are rounded, and whose routers may be noisy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ascent.policies.causal import CausalPolicy

Precision = Literal["float32", "bfloat16", "float8", "int8"]
LARGEST = {"float8": 448.0, "int8": 127.0}
"""The largest number of each format (float8 is e4m3fn)."""


def rounded(tensor: Tensor, precision: Precision) -> Tensor:
    """`tensor` [..., K] as the format holds it, in its own dtype.

    "float8" (e4m3fn) and "int8" have one scale for each last dimension, such that its largest entry is the format's.
    """
    if precision == "float32":
        return tensor
    if precision == "bfloat16":
        return tensor.to(torch.bfloat16).to(tensor.dtype)
    largest = tensor.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest / LARGEST[precision], 1.0)
    units = tensor / scale
    held = units.to(torch.float8_e4m3fn).to(tensor.dtype) if precision == "float8" else units.round()
    return held * scale


class Engine:
    """An inference engine of a policy.

    "bfloat16" rounds every weight. "float8" and "int8" round linear layers and experts, one scale an output channel;
    embeddings, head, norms and routers stay in bfloat16.

    Args:
        policy: who is copied; its weights are read at every `refresh`.
        precision: of the copy's weights; "float32" leaves them as they are.
        activations: also round what linear layers and experts read, one scale a position.

    Attributes:
        policy: the copy, without gradients.

    Raises:
        ValueError: the precision is unknown.
    """

    def __init__(self, policy: CausalPolicy, precision: Precision = "float8", activations: bool = False) -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}.")
        self.source, self.precision = policy, precision
        self.policy = copy.deepcopy(policy).requires_grad_(False)
        self.products = {name for name, module in policy.base.named_modules() if _multiplies(policy, module)}
        if activations and precision != "float32":
            for name, module in self.policy.base.named_modules():
                if name in self.products:
                    module.register_forward_pre_hook(_rounding(precision))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the present weights, rounded."""
        own = dict(self.policy.base.named_parameters())
        for name, parameter in self.source.base.named_parameters():
            product = name.rpartition(".")[0] in self.products and parameter.dim() > 1
            coarse = self.precision in LARGEST and not product
            own[name].copy_(rounded(parameter, "bfloat16" if coarse else self.precision))


def _multiplies(policy: CausalPolicy, module: nn.Module) -> bool:
    """Whether a module is a linear layer (not the head) or holds the stacked weights of experts."""
    if isinstance(module, nn.Linear):
        return module is not policy.base.get_output_embeddings()
    return any(parameter.dim() == 3 for parameter in module.parameters(recurse=False))


def _rounding(precision: Precision) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda module, inputs: (rounded(inputs[0], precision), *inputs[1:])
