"""PopArt: where the scale of a critic's targets moves, its last layer moves against it, so that no value changes.

    value = u deviation + mean,   u = w h + b:   w <- w d / d',   b <- (b d + m - m') / d'

Van Hasselt et al. 2016, arXiv 1602.07714, equations 8 and 9. The running moments are those of a `ScaledValueLoss`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ascent.core.method import Method
from ascent.core.part import MethodState
from ascent.core.value_scale import ScaledValueLoss, moments


class PopArt:
    """Called with a method's state before and after an update, it corrects the layers that say u.

    Args:
        layers: the last one of every critic of these targets.
        method: with one `ScaledValueLoss` among its parts.
    """

    def __init__(self, layers: Sequence[nn.Linear], method: Method) -> None:
        found = [path for path, part in method.parts.items() if isinstance(part, ScaledValueLoss)]
        if len(found) != 1:
            raise ValueError(
                f"method must have one ScaledValueLoss, whose moments correct the layers; got {len(found)}."
            )
        self.layers, self.path = tuple(layers), found[0]

    @torch.no_grad()
    def __call__(self, before: MethodState, after: MethodState) -> None:
        (mean, deviation), (new_mean, new_deviation) = (moments(state.parts[self.path]) for state in (before, after))
        for layer in self.layers:
            layer.weight.mul_((deviation / new_deviation).to(layer.weight))
            layer.bias.mul_(deviation.to(layer.bias)).add_((mean - new_mean).to(layer.bias))
            layer.bias.div_(new_deviation.to(layer.bias))
