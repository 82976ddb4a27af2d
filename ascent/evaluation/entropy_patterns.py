"""Where a policy hesitates: entropies by token, by percentile, and how much of the pattern training leaves.

All inputs are columns [N, T] of the same responses: `mask` says which positions count. Entropies are nats of the whole
distribution at a position, at the temperature of the policy (Wang et al. 2025, arXiv 2506.01939).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PERCENTILES = (0, 20, 40, 60, 80, 90, 95, 100)


@dataclass(frozen=True)
class TokenEntropy:
    """A token of the vocabulary: how often it was written, and the mean entropy where it was."""

    token: int
    count: int
    entropy: float


def token_entropies(action: Tensor, entropy: Tensor, mask: Tensor, least: int = 100) -> list[TokenEntropy]:
    """Every token written more than `least` times, the most uncertain first (the paper's least is 100)."""
    written, number = action[mask], entropy[mask].double()
    tokens, place, count = torch.unique(written, return_inverse=True, return_counts=True)
    total = torch.zeros(len(tokens), dtype=torch.float64, device=number.device).index_add_(0, place, number)
    rows = zip(tokens.tolist(), count.tolist(), (total / count).tolist(), strict=True)
    found = [TokenEntropy(token, times, mean) for token, times, mean in rows if times > least]
    return sorted(found, key=lambda item: -item.entropy)


def percentiles(entropy: Tensor, mask: Tensor, levels: Sequence[float] = PERCENTILES) -> list[float]:
    """Entropies below which `levels` percent of the positions lie: the sorted number at that rank, nothing between."""
    ordered = entropy[mask].sort().values
    if not len(ordered):
        raise ValueError("mask must keep at least one position; got none.")
    return [float(ordered[min(int(level / 100 * len(ordered)), len(ordered) - 1)]) for level in levels]


def top_positions(entropy: Tensor, mask: Tensor, rho: float = 0.2) -> Tensor:
    """[N, T] bool, the ceil(rho n) positions of greatest entropy; of equal ones the earlier."""
    if not 0.0 < rho <= 1.0:
        raise ValueError(f"rho must be in (0, 1]; got {rho!r}.")
    number = entropy[mask]
    chosen = torch.zeros_like(number, dtype=torch.bool)
    chosen[number.argsort(descending=True, stable=True)[: int(-(-rho * len(number) // 1))]] = True
    return torch.zeros_like(mask).masked_scatter(mask, chosen)


def overlap(first: Tensor, second: Tensor, mask: Tensor, rho: float = 0.2) -> float:
    """Share of the top-`rho` positions of one policy that are top positions of another, on the same responses.

    Independent patterns overlap in about `rho` of them.
    """
    one, other = top_positions(first, mask, rho), top_positions(second, mask, rho)
    return float((one & other).sum() / one.sum().clamp(min=1))


def change_by_percentile(base: Tensor, trained: Tensor, mask: Tensor, width: float = 0.05) -> list[float]:
    """Mean change of entropy from `base` to `trained` in each bin of the base's percentiles, lowest bin first.

    Args:
        base, trained, mask: [N, T].
        width: of a bin, as a share in (0, 1]; 0.05 gives the paper's twenty.
    """
    if not 0.0 < width <= 1.0:
        raise ValueError(f"width must be in (0, 1]; got {width!r}.")
    order = base[mask].argsort(stable=True)
    change = (trained - base)[mask].double()[order]
    return [float(part.mean()) for part in change.tensor_split(round(1 / width)) if len(part)]
