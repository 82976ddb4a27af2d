"""Running mean and variance of observations and returns, kept in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Exchange = Callable[[NDArray[Any]], NDArray[Any]]
"""The rows [E, ...] of this process -> those of all processes, under one another in order of rank."""


def alone(rows: NDArray[Any]) -> NDArray[Any]:
    """The exchange of one process."""
    return rows


class RunningStatistics:
    """Mean and variance of all vectors seen, merged batch by batch (Chan, Golub and LeVeque 1979).

    Args:
        size: length of a vector.
        clip: normalised numbers are clipped to [-clip, clip].
        eps: added to the variance before its root.
    """

    def __init__(self, size: int, clip: float = 10.0, eps: float = 1e-8) -> None:
        self.mean: NDArray[np.float64] = np.zeros(size)
        self.squares: NDArray[np.float64] = np.zeros(size)
        self.count = 0.0
        self.clip = clip
        self.eps = eps
        self._scale: NDArray[np.float64] = np.ones(size)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Population variance [size]; 1 before anything was seen."""
        return self.squares / self.count if self.count else np.ones_like(self.mean)

    def update(self, batch: NDArray[Any]) -> None:
        """Take in `batch` [B, size]."""
        number = len(batch)
        mean = batch.sum(0, dtype=np.float64) / number
        centred = batch - mean
        self._merge(number, mean, (centred * centred).sum(0))

    def _merge(self, number: float, mean: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        total = self.count + number
        shift = mean - self.mean
        self.mean = self.mean + shift * (number / total)
        self.squares = self.squares + squares + shift * shift * (self.count * number / total)
        self.count = total
        self._scale = 1.0 / np.sqrt(self.squares / total + self.eps)

    def merge(self, other: RunningStatistics) -> None:
        """Take in everything that `other` has seen (statistics of another process)."""
        if other.count:
            self._merge(other.count, other.mean, other.squares)

    def normalise(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(batch - mean) / std of `batch` [..., size], clipped, float32; unchanged before anything was seen."""
        scaled = (batch - self.mean) * self._scale if self.count else np.asarray(batch)
        return np.minimum(np.maximum(scaled, -self.clip), self.clip).astype(np.float32)

    def scale(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """batch / std, not centred, clipped: for rewards, whose sign must stay."""
        return np.minimum(np.maximum(batch * self._scale, -self.clip), self.clip).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists; float64 round-trips exactly."""
        return {"mean": self.mean.tolist(), "squares": self.squares.tolist(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if len(state["mean"]) != len(self.mean):
            raise ValueError(f"statistics of {len(state['mean'])} numbers do not fit observations of {len(self.mean)}.")
        self.mean, self.squares = np.asarray(state["mean"]), np.asarray(state["squares"])
        self.count = float(state["count"])
        if self.count:
            self._scale = 1.0 / np.sqrt(self.squares / self.count + self.eps)


class RewardScale:
    """Divides rewards by the running standard deviation of the discounted return (as Gymnasium's NormalizeReward).

    Args:
        environments: E streams.
        discount: of the running return, in [0, 1).
        clip: scaled rewards are clipped to [-clip, clip].
        exchange: with the processes that share the statistics.
    """

    def __init__(
        self, environments: int, discount: float = 0.99, clip: float = 10.0, exchange: Exchange = alone
    ) -> None:
        self.discount = discount
        self.exchange = exchange
        self.returns: NDArray[np.float64] = np.zeros(environments)
        self.statistics = RunningStatistics(1, clip)

    def __call__(
        self, reward: NDArray[np.float64], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Scaled rewards [E] of one step; the running return of an ended episode starts anew."""
        self.returns = self.returns * self.discount + reward
        self.statistics.update(self.exchange(self.returns[:, None]))
        scaled = self.statistics.scale(reward)
        self.returns = np.where(terminated | truncated, 0.0, self.returns)
        return scaled

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {"returns": self.returns.tolist(), "statistics": self.statistics.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.returns = np.asarray(state["returns"])
        self.statistics.load_state_dict(state["statistics"])
