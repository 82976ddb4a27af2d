"""From network outputs to a distribution of actions: in torch for learning, in numpy for acting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ascent.core.densities import Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian
from ascent.core.random import uniform

Density = Categorical | MultiCategorical | DiagonalGaussian | SquashedGaussian
Kind = Literal["categorical", "multi_categorical", "gaussian", "squashed_gaussian"]


class Actions(Protocol):
    """What a head must know of an action space (`ascent.worlds.gym.ActionSpace` has it)."""

    @property
    def kind(self) -> Literal["discrete", "multi_discrete", "box"]: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...
    @property
    def dimensions(self) -> int: ...


class Acting(Protocol):
    """What stepping environments asks of a head: named noise, and numpy actions out of a network's outputs."""

    @property
    def outputs(self) -> int: ...
    def noise(self, keys: Tensor, index: Tensor) -> NDArray[np.float32]: ...
    def sample(
        self, outputs: NDArray[Any], log_std: NDArray[Any] | None, noise: NDArray[np.float32]
    ) -> NDArray[Any]: ...
    def mode(self, outputs: NDArray[Any]) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Head:
    """The family of an action distribution.

    Attributes:
        kind: its name.
        sizes: choices of each part of a discrete action; () otherwise.
        dimensions: numbers in a real action; 0 otherwise.
        tanh_mean: the mean of a Gaussian passes through tanh (PROPS does so).

    Parameters of a distribution are one vector [..., K]: logits, or mean and log-std one after the other.
    """

    kind: Kind
    sizes: tuple[int, ...] = ()
    dimensions: int = 0
    tanh_mean: bool = False

    @classmethod
    def of(cls, actions: Actions, squashed: bool = False, tanh_mean: bool = False) -> Head:
        """The usual head of an action space."""
        if actions.kind == "discrete":
            return cls("categorical", actions.sizes)
        if actions.kind == "multi_discrete":
            return cls("multi_categorical", actions.sizes)
        return cls("squashed_gaussian" if squashed else "gaussian", (), actions.dimensions, tanh_mean)

    @property
    def outputs(self) -> int:
        """Numbers that the network gives: logits or means."""
        return sum(self.sizes) if self.sizes else self.dimensions

    @property
    def continuous(self) -> bool:
        return not self.sizes

    def parameters(self, outputs: Tensor, log_std: Tensor | None) -> Tensor:
        """[..., K] parameters from network outputs [..., outputs] and the log-std [dimensions]."""
        if log_std is None:
            return outputs
        mean = torch.tanh(outputs) if self.tanh_mean else outputs
        return torch.cat([mean, log_std.expand_as(mean)], dim=-1)

    def distribution(self, outputs: Tensor, log_std: Tensor | None) -> Density:
        """The distribution for network outputs [..., outputs]; batch shape [...]."""
        if log_std is None:
            # A network's own outputs are finite: nothing forbids an action.
            return self._discrete(outputs, guarded=False)
        mean = torch.tanh(outputs) if self.tanh_mean else outputs
        return SquashedGaussian(mean, log_std) if self.kind == "squashed_gaussian" else DiagonalGaussian(mean, log_std)

    def from_parameters(self, parameters: Tensor) -> Density:
        """The distribution with recorded `parameters` [..., K]."""
        if self.sizes:
            return self._discrete(parameters)
        mean, log_std = parameters.chunk(2, dim=-1)
        return SquashedGaussian(mean, log_std) if self.kind == "squashed_gaussian" else DiagonalGaussian(mean, log_std)

    def _discrete(self, logits: Tensor, guarded: bool = True) -> Density:
        single = self.kind == "categorical"
        return Categorical(logits, guarded) if single else MultiCategorical(logits, self.sizes)

    def noise(self, keys: Tensor, index: Tensor) -> NDArray[np.float32]:
        """Noise [..., outputs] for the draws named by `keys` and `index` (int64, broadcast to [...]).

        Gumbel noise for discrete actions (the largest of logits + noise is a sample), normal noise else.
        """
        draws = uniform(keys[..., None], index[..., None], torch.arange(self.outputs)).clamp_(min=2.0**-54)
        noise = torch.special.ndtri(draws) if self.continuous else -torch.log(-torch.log(draws))
        numbers: NDArray[np.float32] = noise.float().numpy()
        return numbers

    def sample(self, outputs: NDArray[Any], log_std: NDArray[Any] | None, noise: NDArray[np.float32]) -> NDArray[Any]:
        """Actions [E] or [E, P] from network outputs [E, outputs] and noise of the same shape."""
        if log_std is None:
            return self._largest(outputs + noise)
        mean = np.tanh(outputs) if self.tanh_mean else outputs
        action = mean + np.exp(log_std) * noise
        return np.asarray(np.tanh(action) if self.kind == "squashed_gaussian" else action)

    def mode(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The most likely action (tanh of the mean where squashed)."""
        if self.sizes:
            return self._largest(outputs)
        mean = np.tanh(outputs) if self.tanh_mean else outputs
        return np.asarray(np.tanh(mean) if self.kind == "squashed_gaussian" else mean)

    def _largest(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        if self.kind == "categorical":
            best: NDArray[np.int64] = scores.argmax(1)
            return best
        ends = np.cumsum(self.sizes)
        return np.stack(
            [scores[:, end - size : end].argmax(1) for end, size in zip(ends, self.sizes, strict=True)], axis=1
        )
