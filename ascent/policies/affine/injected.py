"""Networks that are added to something known: exactly 0 for every input at first, and yet they learn.

Two tanh layers and a sum. One layer begins with zeros, the other small and random: the zero layer receives a gradient
at once, the other one as soon as the first has moved. The paper's construction draws half of the first layer's nodes
as the negative of the other half and adds the two inside of the activation, which is a zero first layer.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ZeroLayer = Literal["first", "second"]


class Injected(nn.Module):
    """`count` networks side by side, N_i(x) = sum over k of tanh(W2_i tanh(W1_i x + b1_i) + b2_i)_k.

    Args:
        count: p networks.
        inputs: numbers in x.
        outputs: m; each has units of its own in the second layer.
        width: h of both layers, for each output of the second.
        bound: of the random weights, uniform in [-bound, bound], >= 0.
        zero: the layer that begins with zeros, "first" or "second". The second layer's biases are zero either way.
        draw: source of the random weights.
    """

    def __init__(
        self,
        count: int,
        inputs: int,
        outputs: int,
        width: int,
        bound: float,
        draw: torch.Generator,
        zero: ZeroLayer = "first",
    ) -> None:
        super().__init__()
        if zero not in ("first", "second"):
            raise ValueError(f"zero must be 'first' or 'second'; got {zero!r}.")
        self.outputs, self.width = outputs, width

        def small(*shape: int) -> Tensor:
            return bound * (2.0 * torch.rand(*shape, generator=draw) - 1.0)

        first = small(count, inputs, width), small(count, 1, width)
        second = small(count, width, outputs * width)
        if zero == "first":
            first = torch.zeros_like(first[0]), torch.zeros_like(first[1])
        else:
            second = torch.zeros_like(second)
        self.first_weight, self.first_bias = (nn.Parameter(tensor) for tensor in first)
        self.second_weight = nn.Parameter(second)
        self.second_bias = nn.Parameter(torch.zeros(count, 1, outputs * width))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """[p, B, m] of inputs [B, n]; `frozen` weights are constants."""
        weights = (self.first_weight, self.first_bias, self.second_weight, self.second_bias)
        one, bias, two, other = (tensor.detach() for tensor in weights) if frozen else weights
        hidden = torch.baddbmm(bias, x.expand(len(one), *x.shape), one).tanh()
        units = torch.baddbmm(other, hidden, two).tanh()
        return units.unflatten(-1, (self.outputs, self.width)).sum(-1)

    def numpy(self) -> Any:
        """The function of states [E, n] and their networks' numbers [E], on views of the present weights."""
        one, bias, two, other = (
            tensor.detach().numpy()
            for tensor in (self.first_weight, self.first_bias, self.second_weight, self.second_bias)
        )

        def forward(x: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
            hidden = np.tanh(np.einsum("en,enh->eh", x, one[index]) + bias[index, 0])
            units = np.tanh(np.einsum("eh,ehk->ek", hidden, two[index]) + other[index, 0])
            return units.reshape(len(x), self.outputs, self.width).sum(-1)

        return forward
