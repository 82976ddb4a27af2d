"""Losses of models that predict the next state, of what a value function says of their errors.

Dimensions: N rows, T decisions, E members of an ensemble, n numbers of a state, V value functions. An error is
`f(s, a) - s'` [N, T, E, n], a slope the gradient of a value function at the observed next state [N, T, V, n].
Every loss is [N, T, E]; no gradient is taken with respect to a slope.
"""

from __future__ import annotations

import torch
from torch import Tensor


def members(outputs: Tensor, size: int) -> Tensor:
    """[N, T, E * size] flat outputs as [N, T, E, size]."""
    if outputs.shape[-1] % size:
        raise ValueError(f"outputs must hold {size} numbers for each member; got {outputs.shape[-1]} in all.")
    return outputs.reshape(*outputs.shape[:-1], -1, size)


def squared(error: Tensor) -> Tensor:
    """`sum_k e_k^2`."""
    return error.square().sum(-1)


def gaussian(error: Tensor, log_variance: Tensor) -> Tensor:
    """Negative log-likelihood of independent Gaussians, `1/2 sum_k (e_k^2 / var_k + log var_k)`, no constant."""
    return 0.5 * (error.square() * torch.exp(-log_variance) + log_variance).sum(-1)


def value_difference(predicted: Tensor, observed: Tensor) -> Tensor:
    """`mean_v (V_v(f(s, a)) - V_v(s'))^2` of predicted values [N, T, E, V] and observed ones [N, T, V]: IterVAML."""
    return (predicted - observed.unsqueeze(-2)).square().mean(-1)


def expanded(error: Tensor, slope: Tensor) -> Tensor:
    """`mean_v (g_v . e)^2`: the value difference to first order around s'."""
    return (error @ slope.mT).square().mean(-1)


def weighted(error: Tensor, slope: Tensor) -> Tensor:
    """`mean_v sum_k (g_vk e_k)^2`: the diagonal of `expanded`, of which n times this is an upper bound."""
    return (error.square() * slope.square().mean(-2, keepdim=True)).sum(-1)


def cumulative(slope: Tensor) -> Tensor:
    """The v-th slope replaced by the sum of the first v: what gradients accumulate to where nobody clears them."""
    return slope.cumsum(-2)


def clipped(slope: Tensor, mask: Tensor, quantile: float) -> Tensor:
    """Slopes whose norm is at most the quantile, over the decided entries, of the same value function's norms.

    Args:
        slope: [N, T, V, n].
        mask: [N, T] bool.
        quantile: in (0, 1]; 1 clips nothing. Where the quantile is 0 the slopes stay.
    """
    if quantile >= 1.0 or not bool(mask.any()):
        return slope
    norm = slope.norm(dim=-1)
    limit = torch.quantile(norm[mask], quantile, dim=0)
    return torch.where(norm > limit, limit / norm.clamp(min=1e-30), 1.0).where(limit > 0, 1.0).unsqueeze(-1) * slope
