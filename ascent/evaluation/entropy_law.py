"""What the entropy mechanism (Cui et al. 2025, arXiv 2505.22617) says of a run: R = b - a exp(H), and its cause.

Pure functions of what a run logs in `metrics.jsonl`: `entropy`, `reward`, and the `covariance` of the method.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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


def decline_correlation(entropy: Tensor, covariance: Tensor, window: int = 1) -> float:
    """Pearson correlation over steps of the covariance with the fall of the entropy, which theory says are equal.

    The fall is from the mean of `window` steps to the mean of the next `window`, the covariance the mean of both:
    a step's entropy is an estimate from its own responses, so that the difference of two is mostly noise.

    Args:
        entropy, covariance: [M] logged means in the order of training.
        window: steps, >= 1.

    Returns:
        In [-1, 1]; NaN where one of the two does not vary.

    Raises:
        ValueError: fewer than two differences.
    """
    if window < 1 or len(entropy) < 2 * window + 1 or entropy.shape != covariance.shape or entropy.dim() != 1:
        raise ValueError(
            f"window must be >= 1 and leave two differences; got window={window} with entropy "
            f"{list(entropy.shape)} and covariance {list(covariance.shape)}."
        )
    level = entropy.double().unfold(0, window, 1).mean(1)
    fall = level[:-window] - level[window:]
    drive = covariance.double().unfold(0, 2 * window, 1).mean(1)
    return float(torch.corrcoef(torch.stack([fall, drive]))[0, 1])
