"""The entropy-clip rule: how one clipped policy-gradient step at one state changes the entropy of a softmax policy.

    dz(y) = eta pi(y) [A(y) X(y) + C],   C = -E_{y' ~ pi}[A X],   X(y) = 1 where the clip leaves the gradient
    dH    = -Cov_{y ~ pi}(log pi(y), dz(y)) + O(eta^2)

BAPO (arXiv 2510.18927, eq. 6) prints the bracket alone, which is the step of a natural gradient; the plain gradient has
pi(y) before it. Of an unclipped token: likely and good, or unlikely and bad, lowers entropy; the other two raise it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unclipped(advantage: Tensor, ratio: Tensor, low: float, high: float) -> Tensor:
    """X [V]: whether a token keeps its gradient under the bounds `low` < 1 < `high` on the ratio."""
    return ((advantage > 0) & (ratio < high)) | ((advantage < 0) & (ratio > low))


def step(logits: Tensor, advantage: Tensor, kept: Tensor, rate: float) -> Tensor:
    """The exact change of the logits [V] by one gradient step on the expected clipped surrogate, on policy."""
    policy = logits.softmax(-1)
    gain = advantage * kept
    return rate * policy * (gain - (policy * gain).sum())


def entropy_change(logits: Tensor, advantage: Tensor, kept: Tensor, rate: float) -> Tensor:
    """dH to first order in `rate`, nats.

    Args:
        logits, advantage: [V] of one state.
        kept: [V] bool, of `unclipped`.
        rate: eta.
    """
    log_policy = logits.log_softmax(-1)
    policy, change = log_policy.exp(), step(logits, advantage, kept, rate)
    centred = log_policy - (policy * log_policy).sum()
    return -(policy * centred * change).sum()


def contributions(logits: Tensor, advantage: Tensor, kept: Tensor, rate: float) -> Tensor:
    """[V] each token's part of `entropy_change`: they add up to it."""
    log_policy = logits.log_softmax(-1)
    policy = log_policy.exp()
    centred = log_policy - (policy * log_policy).sum()
    gain = torch.where(kept, advantage, 0.0)
    # dz spreads a token's gain over all logits; seen from the token, its own logit minus the mean's share of it.
    return -rate * policy * gain * (policy * centred - (policy**2 * centred).sum())
