"""The generalised Gaussian: one family from very heavy tails over Laplace (shape 1) and Gauss (shape 2) to uniform.

p(x) = beta / (2 alpha Gamma(1 / beta)) exp(-(|x| / alpha)^beta),      scale alpha > 0, shape beta > 0
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Form = Literal["power", "product"]
SMALLEST = 1e-8  # of |x|: below it |x|^beta has no derivative for beta < 1


def log_gamma_ratio(shape: Tensor, upper: float, lower: float) -> Tensor:
    """log Gamma(upper / beta) - log Gamma(lower / beta)."""
    return torch.lgamma(upper / shape) - torch.lgamma(lower / shape)


@dataclass(frozen=True)
class GeneralisedGaussian:
    """A zero-mean generalised Gaussian.

    Attributes:
        shape: beta > 0, any shape [...].
        scale: alpha > 0, a number or [...].
    """

    shape: Tensor
    scale: Tensor | float = 1.0

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density [...]."""
        scale = torch.as_tensor(self.scale, dtype=x.dtype, device=x.device)
        power = (x.abs() / scale).clamp(min=SMALLEST) ** self.shape
        return (self.shape / (2.0 * scale)).log() - torch.lgamma(1.0 / self.shape) - power

    @property
    def variance(self) -> Tensor:
        """alpha^2 Gamma(3 / beta) / Gamma(1 / beta): at equal scale it falls as the shape rises."""
        return log_gamma_ratio(self.shape, 3.0, 1.0).exp() * self.scale**2

    @property
    def kurtosis(self) -> Tensor:
        """Excess kurtosis: 0 at shape 2, 3 at shape 1."""
        return (log_gamma_ratio(self.shape, 5.0, 3.0) - log_gamma_ratio(self.shape, 3.0, 1.0)).exp() - 3.0

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw of each [...]: |x| = alpha g^(1 / beta) with g ~ Gamma(1 / beta, 1), and a random sign."""
        # torch.distributions.Gamma draws from the global generator; this is what it calls.
        gamma = torch._standard_gamma(1.0 / self.shape, generator=generator)
        sign = torch.randint(2, gamma.shape, generator=generator) * 2 - 1
        return self.scale * sign * gamma ** (1.0 / self.shape)


def negative_log_likelihood(error: Tensor, shape: Tensor, form: Form = "power") -> Tensor:
    """Of a zero-mean generalised Gaussian with scale 1, without its constant log 2 [...].

    Args:
        error: [...].
        shape: beta > 0 [...].
        form: "power" |x|^beta; "product" |x| beta, which the released code of arXiv:2408.02295 computes: no
            likelihood, equal to the power at beta = 1 only.
    """
    size = error.abs().clamp(min=SMALLEST)
    distance = size**shape if form == "power" else size * shape
    return distance - shape.log() + torch.lgamma(1.0 / shape)


def gaussian_negative_log_likelihood(error: Tensor, variance: Tensor) -> Tensor:
    """1/2 (log v + x^2 / v) [...], without its constant."""
    return 0.5 * (variance.log() + error.square() / variance)


def fitted(errors: Tensor, rounds: int = 60) -> GeneralisedGaussian:
    """Scale and shape of greatest likelihood for numbers [n], by bisection on the shape in [0.1, 20].

    With alpha^beta = beta mean |x|^beta the likelihood of the shape alone is stationary where
    1 + digamma(1/beta)/beta - mean(|x|^beta log |x|)/mean(|x|^beta) + log(beta mean |x|^beta)/beta = 0.

    Raises:
        ValueError: fewer than two numbers, or all of them 0.
    """
    size = errors.double().abs().flatten()
    if size.numel() < 2 or not float(size.max()) > 0:
        raise ValueError("errors must be two or more numbers, not all 0, to fit a distribution.")
    size = (size / size.mean()).clamp(min=SMALLEST)

    def slope(shape: float) -> float:
        power = size**shape
        mean = float(power.mean())
        first = float(torch.digamma(torch.tensor(1.0 / shape, dtype=torch.float64))) / shape
        return 1.0 + first - float((power * size.log()).mean()) / mean + math.log(shape * mean) / shape

    low, high = 0.1, 20.0
    for _ in range(rounds):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    shape = math.sqrt(low * high)
    scale = (shape * float((size**shape).mean())) ** (1.0 / shape) * float(errors.double().abs().mean())
    return GeneralisedGaussian(torch.tensor(shape, dtype=torch.float64), scale)
