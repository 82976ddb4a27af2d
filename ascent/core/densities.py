"""Light probability distributions over actions, equal to torch.distributions and several times cheaper to build.

Batch shapes are [...]; where actions are vectors, the last dimension is the event and its parts are independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

HALF_LOG_TAU = 0.5 * math.log(2.0 * math.pi)


class Density(Protocol):
    """What every density can do; `kl(other)` is KL(self, other) with the other of the same class."""

    def log_prob(self, action: Tensor) -> Tensor: ...
    def entropy(self) -> Tensor: ...
    def kl(self, other: Self) -> Tensor: ...
    def mode(self) -> Tensor: ...
    def parameters(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True, eq=False)
class Categorical:
    """One of K actions.

    Attributes:
        logits: [..., K], any real numbers; -inf forbids an action.
        guarded: whether logits may be -inf; without the guard `entropy` is cheaper, and NaN where they are.
    """

    logits: Tensor
    guarded: bool = True

    @cached_property
    def log_probs(self) -> Tensor:
        """[..., K] normalised log-probabilities."""
        return self.logits.log_softmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] of `action` [...] int64 in [0, K)."""
        return self.log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...] nats; forbidden actions contribute 0."""
        return -self._mean(self.log_probs)

    def kl(self, other: Categorical) -> Tensor:
        """[...] nats; finite where `other` forbids nothing that self allows."""
        lowest = torch.finfo(self.logits.dtype).min
        return self._mean(self.log_probs.clamp(min=lowest) - other.log_probs.clamp(min=lowest))

    def _mean(self, numbers: Tensor) -> Tensor:
        # 0 * -inf would be NaN; the lowest finite number times 0 is 0.
        finite = numbers.clamp(min=torch.finfo(numbers.dtype).min) if self.guarded else numbers
        return (self.log_probs.exp() * finite).sum(-1)

    def mode(self) -> Tensor:
        """[...] int64, the most probable action."""
        return self.logits.argmax(-1)

    def parameters(self) -> dict[str, Tensor]:
        """What rebuilds the density."""
        return {"logits": self.logits}


@dataclass(frozen=True, eq=False)
class MultiCategorical:
    """Several independent choices, of K_1, ..., K_D actions.

    Attributes:
        logits: [..., K_1 + ... + K_D].
        sizes: (K_1, ..., K_D).
    """

    logits: Tensor
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.sizes) != self.logits.shape[-1]:
            raise ValueError(f"sizes must add up to the last dimension {self.logits.shape[-1]}; got {self.sizes}.")

    @cached_property
    def choices(self) -> tuple[Categorical, ...]:
        """The D choices."""
        return tuple(Categorical(part) for part in torch.split(self.logits, list(self.sizes), dim=-1))

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] of `action` [..., D] int64."""
        parts = zip(self.choices, action.unbind(-1), strict=True)
        return torch.stack([choice.log_prob(part) for choice, part in parts]).sum(0)

    def entropy(self) -> Tensor:
        """[...] nats."""
        return torch.stack([choice.entropy() for choice in self.choices]).sum(0)

    def kl(self, other: MultiCategorical) -> Tensor:
        """[...] nats."""
        parts = zip(self.choices, other.choices, strict=True)
        return torch.stack([choice.kl(part) for choice, part in parts]).sum(0)

    def mode(self) -> Tensor:
        """[..., D] int64, the most probable action."""
        return torch.stack([choice.mode() for choice in self.choices], dim=-1)

    def parameters(self) -> dict[str, Tensor]:
        """What rebuilds the density, with `sizes`."""
        return {"logits": self.logits}


@dataclass(frozen=True, eq=False)
class DiagonalGaussian:
    """Independent normal numbers.

    Attributes:
        mean: [..., A].
        log_std: broadcasts to [..., A], usually [A]; natural log of the standard deviation.
    """

    mean: Tensor
    log_std: Tensor

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] of `action` [..., A]."""
        distance = (action - self.mean) * (-self.log_std).exp()
        constant = self.log_std.sum(-1) + HALF_LOG_TAU * self.log_std.shape[-1]
        return -0.5 * distance.square().sum(-1) - constant

    def entropy(self) -> Tensor:
        """[...] nats."""
        width = self.log_std.shape[-1]
        return (self.log_std.sum(-1) + (0.5 + HALF_LOG_TAU) * width).expand(self.mean.shape[:-1])

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """[...] nats."""
        log_quotient = self.log_std - other.log_std
        distance = (self.mean - other.mean) * (-other.log_std).exp()
        return (0.5 * ((2.0 * log_quotient).exp() + distance.square() - 1.0) - log_quotient).sum(-1)

    def mode(self) -> Tensor:
        """[..., A], the mean."""
        return self.mean

    def parameters(self) -> dict[str, Tensor]:
        """What rebuilds the density."""
        return {"mean": self.mean, "log_std": self.log_std}


# Nodes and weights that integrate against a standard normal.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(32)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def _log_slope(before: Tensor) -> Tensor:
    """log d tanh(u) / du = log(1 - tanh(u)^2), stable for large u."""
    return 2.0 * (math.log(2.0) - before - softplus(-2.0 * before))


@dataclass(frozen=True, eq=False)
class SquashedGaussian:
    """tanh of independent normal numbers, actions in (-1, 1) (soft actor-critic, arXiv:1801.01290).

    Attributes:
        mean: [..., A], before tanh.
        log_std: broadcasts to [..., A], before tanh.
    """

    mean: Tensor
    log_std: Tensor

    @cached_property
    def before(self) -> DiagonalGaussian:
        """The normal density before tanh."""
        return DiagonalGaussian(self.mean, self.log_std)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] of `action` [..., A] in [-1, 1]; the ends are moved inwards by the dtype's resolution."""
        inside = 1.0 - torch.finfo(action.dtype).eps
        return self.log_prob_before(action.clamp(-inside, inside).atanh())

    def log_prob_before(self, before: Tensor) -> Tensor:
        """[...] of the action tanh(`before`), `before` [..., A]: exact where the number before tanh was kept."""
        return self.before.log_prob(before) - _log_slope(before).sum(-1)

    def drawn(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The action [..., A] that standard normal `noise` [..., A] picks, and its log-prob [...]; differentiable."""
        before = self.mean + self.log_std.exp() * noise
        # (before - mean) / std is the noise, and -log of tanh's slope is 2 (before + softplus(-2 before) - log 2).
        each = 2.0 * (before + softplus(-2.0 * before)) - self.log_std - 0.5 * noise.square()
        constant = (2.0 * math.log(2.0) + HALF_LOG_TAU) * noise.shape[-1]
        return before.tanh(), each.sum(-1) - constant

    def entropy(self) -> Tensor:
        """[...] nats: H of the normal + E[log slope], the expectation by 32-point Gauss-Hermite quadrature.

        There is no closed form. The quadrature is deterministic and differentiable; its error is below 1e-3 nats per
        dimension for standard deviations up to 2.
        """
        nodes = torch.as_tensor(_NODES, dtype=self.mean.dtype, device=self.mean.device)
        weights = torch.as_tensor(_WEIGHTS, dtype=self.mean.dtype, device=self.mean.device)
        points = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes
        return self.before.entropy() + (_log_slope(points) * weights).sum((-1, -2))

    def kl(self, other: SquashedGaussian) -> Tensor:
        """[...] nats: tanh is one-to-one, so it is that of the normals."""
        return self.before.kl(other.before)

    def mode(self) -> Tensor:
        """[..., A], tanh of the mean: the median, what deterministic evaluation plays; not the peak of the density."""
        return self.mean.tanh()

    def parameters(self) -> dict[str, Tensor]:
        """What rebuilds the density."""
        return {"mean": self.mean, "log_std": self.log_std}
