"""Diagnostics of the entropy mechanism (Cui et al. 2025, arXiv 2505.22617): covariances, and the law R = b - a exp(H).

Pure tensor functions; a run's entropies and rewards come from its `metrics.jsonl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.pairs import deviation, group_cells, row_sum

SHARES = (2e-4, 2e-3, 2e-2, 0.2, 0.5)
"""The shares of tokens whose mean covariance the paper prints."""


@dataclass(frozen=True)
class Law:
    """R = b - a exp(H), H in nats.

    Attributes:
        a, b: the two coefficients of a model and its data; b - a is the ceiling at H = 0.
        error: root mean squared residual of the points that were fitted.
        explained: R^2 of the fit, at most 1.
    """

    a: float
    b: float
    error: float
    explained: float

    def reward(self, entropy: Tensor) -> Tensor:
        """The reward that the law predicts, same shape."""
        return self.b - self.a * entropy.exp()

    @property
    def ceiling(self) -> float:
        """The reward that is left when no entropy is."""
        return self.b - self.a


def line(x: Tensor, y: Tensor, name: str) -> tuple[float, float]:
    """Slope and intercept of the least-squares line through [M] points."""
    if x.shape != y.shape or x.dim() != 1 or len(x) < 2 or not bool((x != x[0]).any()):
        raise ValueError(
            f"{name} needs two or more points of different abscissa; got {list(x.shape)}, {list(y.shape)}."
        )
    centred = x - x.mean()
    slope = (centred * (y - y.mean())).sum() / centred.square().sum()
    return float(slope), float(y.mean() - slope * x.mean())


def fit_law(entropy: Tensor, reward: Tensor) -> Law:
    """Least squares of reward [M] on exp(entropy) [M].

    Raises:
        ValueError: fewer than two points, or all entropies equal.
    """
    entropy, reward = entropy.double(), reward.double()
    slope, intercept = line(entropy.exp(), reward, "fit_law")
    residual = reward - (intercept + slope * entropy.exp())
    spread = (reward - reward.mean()).square().sum()
    explained = 1.0 - float(residual.square().sum() / spread) if float(spread) > 0 else 1.0
    return Law(-slope, intercept, float(residual.square().mean().sqrt()), explained)


def early_prediction(entropy: Tensor, reward: Tensor, share: float = 0.15) -> tuple[Law, float]:
    """The law of the first `share` of the points of a run, and its root mean squared error on the rest.

    Args:
        entropy, reward: [M] in the order of training.
        share: in (0, 1); 0.15 in the paper.
    """
    first = round(share * len(entropy))
    if not 2 <= first < len(entropy):
        raise ValueError(
            f"share must leave two points to fit and one to predict; got share={share} of {len(entropy)} points."
        )
    law = fit_law(entropy[:first], reward[:first])
    gap = law.reward(entropy[first:].double()) - reward[first:].double()
    return law, float(gap.square().mean().sqrt())


def fit_sizes(parameters: Tensor, coefficient: Tensor) -> tuple[float, float]:
    """Slope and intercept of a law's coefficient [M] on the logarithm of the model size [M] (the paper's)."""
    return line(parameters.double().log(), coefficient.double(), "fit_sizes")


def top_means(covariance: Tensor, mask: Tensor, shares: Sequence[float] = SHARES) -> dict[float, float]:
    """Mean covariance of the greatest `share` of the decisions (at least one), for each share.

    Args:
        covariance, mask: [N, T].
    """
    ordered = covariance[mask].sort(descending=True).values
    if not len(ordered):
        return dict.fromkeys(shares, 0.0)
    return {share: float(ordered[: max(int(share * len(ordered) + 1e-9), 1)].mean()) for share in shares}


def response_covariance(log_prob: Tensor, decisions: Decisions) -> tuple[Tensor, Tensor]:
    """Per response, its part of the group's covariance of (mean token log-prob, advantage), and the group's accuracy.

    Args:
        log_prob: [N, T] of the policy.
        decisions: with `group`, `advantage` (one number a response) and `reward`.

    Returns:
        [N] deviations multiplied, whose mean over a group is its covariance, and [N] the group's mean total reward.
    """
    cell, count, present = group_cells(decisions)
    length = decisions.mask.sum(1).clamp(min=1)
    mean_log_prob = row_sum(log_prob, decisions.mask) / length
    advantage = row_sum(decisions.advantage, decisions.mask) / length
    product = deviation(mean_log_prob, cell, count, present) * deviation(advantage, cell, count, present)
    score = row_sum(decisions.reward, decisions.mask)
    return product, score - deviation(score, cell, count, present)


def covariance_by_accuracy(
    log_prob: Tensor, decisions: Decisions, levels: Sequence[float] = (0.125, 0.5, 0.875)
) -> dict[float, float]:
    """Mean covariance of the groups whose accuracy is nearest to each level; levels without groups are left out."""
    product, accuracy = response_covariance(log_prob, decisions)
    present = decisions.mask.any(1)
    nearest = (accuracy[:, None] - accuracy.new_tensor(list(levels))).abs().argmin(1)
    chosen = {level: present & (nearest == place) for place, level in enumerate(levels)}
    return {level: float(product[rows].mean()) for level, rows in chosen.items() if bool(rows.any())}
