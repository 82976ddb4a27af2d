"""A piecewise-affine function written into five layers of a network, every weight assigned, none trained.

    1  step(F - E theta)                    is each facet's inequality kept?                       [q]
    2  relu(C h1 + 1 - j)                   1 where all j of a region's are                        [p]
    3  relu(T h2)                           of several regions, only the first                     [p]
    4  relu(+-(K theta + r) + M h3 - M)     the active region's law by its sign, 0 for the others  [2pm]
    5  sum                                  u                                                      [m]

Dimensions: p regions with q facets in all, n states, m outputs.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from ascent.policies.affine.critical import SLACK
from ascent.policies.affine.linear import Matrix
from ascent.policies.affine.regions import PiecewiseAffine


class AffineNetwork(nn.Module):
    """The literal layers; float64, because a large M takes digits. `PiecewiseAffine.evaluate` is the fast form.

    Args:
        law: the function; its value outside of all regions is 0 here, whatever it says itself.
        domain: (low, high) of the states, [n] each, that may be asked for, in or outside of the regions; M covers it.
        large: M; the least that suffices on the domain when not given.

    Raises:
        ValueError: M is too small, so that suppressed laws would show.
    """

    def __init__(self, law: PiecewiseAffine, domain: tuple[Matrix, Matrix], large: float | None = None) -> None:
        super().__init__()
        least = smallest_large(law, domain)
        if large is not None and large < least:
            raise ValueError(f"large must be at least {least:.6g}, the largest law on the domain; got {large!r}.")
        self.large = least if large is None else float(large)
        regions = law.regions
        counts = [len(region.limits) for region in regions]
        gather = np.zeros((len(regions), sum(counts)))
        for place, (end, count) in enumerate(zip(np.cumsum(counts), counts, strict=True)):
            gather[place, end - count : end] = 1.0
        constants = {
            "facets": np.vstack([region.rows for region in regions]),
            "limits": np.concatenate([region.limits for region in regions]) + SLACK,
            "gather": gather,
            "needed": 1.0 - np.array(counts, float),
            "priority": np.eye(len(regions)) - np.tril(np.ones((len(regions),) * 2), -1),
            "gain": law.gains,
            "offset": law.offsets,
        }
        for name, numbers in constants.items():
            self.register_buffer(name, torch.from_numpy(numbers))

    def layers(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What each layer gives for states [..., n]: [..., q], [..., p], [..., p], [..., 2, p, m], [..., m]."""
        kept = (self.limits - state @ self.facets.T >= 0).to(state.dtype)
        within = torch.relu(kept @ self.gather.T + self.needed)
        first = torch.relu(within @ self.priority.T)
        law = torch.einsum("pmn,...n->...pm", self.gain, state) + self.offset
        both = torch.stack((law, -law), dim=-3)
        signed = torch.relu(both + self.large * first[..., None, :, None] - self.large)
        return kept, within, first, signed, (signed[..., 0, :, :] - signed[..., 1, :, :]).sum(-2)

    def forward(self, state: Tensor) -> Tensor:
        return self.layers(state)[-1]


def smallest_large(law: PiecewiseAffine, domain: tuple[Matrix, Matrix]) -> float:
    """The largest |K theta + r| of any region on a box: its corners decide."""
    corners = np.array(list(product(*zip(*domain, strict=True))))
    laws = np.einsum("pmn,cn->cpm", law.gains, corners) + law.offsets
    return float(np.abs(laws).max())
