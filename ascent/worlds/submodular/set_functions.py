"""Monotone set functions and what one more element adds to them.

    gain(v | A) = F(A + v) - F(A),      submodular: gain(v | A) >= gain(v | B) for A inside B, v outside B

Elements are numbered 0 .. V-1. Every function says its value on bitmaps of any batch shape, and begins a `Running`
that follows one growing set at the cost of one element a visit. F(empty) = 0 throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bitmap = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Running(Protocol):
    """The value of a set that grows by one element at a time."""

    def gain(self, element: int) -> float:
        """What `element` would add now."""

    def add(self, element: int) -> float:
        """Add `element`; returns what it added."""


class SetFunction(Protocol):
    """A function of subsets of `elements` elements."""

    @property
    def elements(self) -> int: ...

    def value(self, members: Bitmap) -> Floats:
        """F of sets given as bitmaps [..., V]: [...]."""

    def begin(self) -> Running:
        """A running value, of the empty set."""


def gains(function: SetFunction, members: Bitmap) -> Floats:
    """What each element would add to the set `members` [V]: [V], 0 for those that are in it."""
    grown = members | np.eye(function.elements, dtype=bool)
    found: Floats = function.value(grown) - function.value(members)
    return found


class _Units:
    """Runs over covered units: an element's gain is the weight of those that it is first to cover."""

    def __init__(self, covers: Bitmap, weight: Floats) -> None:
        self._units = [np.flatnonzero(row) for row in covers]
        self._weight = weight.copy()  # of what is not covered yet

    def gain(self, element: int) -> float:
        return float(self._weight[self._units[element]].sum())

    def add(self, element: int) -> float:
        gained = self.gain(element)
        self._weight[self._units[element]] = 0.0
        return gained


@dataclass(frozen=True, eq=False)
class Coverage:
    """Weight of the units that at least one element covers.

    Attributes:
        covers: [V, U] bool, the units of each element.
        weight: [U] >= 0.
    """

    covers: Bitmap
    weight: Floats

    def __post_init__(self) -> None:
        if self.weight.shape != self.covers.shape[1:] or not (self.weight >= 0).all():
            raise ValueError(f"weight must be [{self.covers.shape[1]}] numbers >= 0, one a unit; got {self.weight!r}.")

    @property
    def elements(self) -> int:
        return len(self.covers)

    def value(self, members: Bitmap) -> Floats:
        covered = (members.astype(np.float64) @ self.covers.astype(np.float64)) > 0
        found: Floats = covered @ self.weight
        return found

    def begin(self) -> Running:
        return _Units(self.covers, self.weight)


class _Counts:
    def __init__(self, groups: Bitmap, limits: NDArray[np.int64]) -> None:
        self._groups = [np.flatnonzero(column).tolist() for column in groups.T]
        self._open = limits.tolist()
        self._seen: set[int] = set()

    def gain(self, element: int) -> float:
        return 0.0 if element in self._seen else float(sum(self._open[group] > 0 for group in self._groups[element]))

    def add(self, element: int) -> float:
        gained = self.gain(element)
        if element not in self._seen:
            self._seen.add(element)
            for group in self._groups[element]:
                self._open[group] -= 1
        return gained


@dataclass(frozen=True, eq=False)
class Collected:
    """Items of several groups, each counted up to its limit: sum_g min(|A in g|, limit_g) (Steiner covering).

    Attributes:
        groups: [G, V] bool, the elements of each group.
        limits: [G] int >= 0.
    """

    groups: Bitmap
    limits: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.limits.shape != self.groups.shape[:1] or not (self.limits >= 0).all():
            raise ValueError(f"limits must be [{len(self.groups)}] integers >= 0, one a group; got {self.limits!r}.")

    @property
    def elements(self) -> int:
        return self.groups.shape[1]

    def value(self, members: Bitmap) -> Floats:
        counted = members.astype(np.int64) @ self.groups.T.astype(np.int64)
        found: Floats = np.minimum(counted, self.limits).sum(-1).astype(np.float64)
        return found

    def begin(self) -> Running:
        return _Counts(self.groups, self.limits)


class _Nearest:
    def __init__(self, similarity: Floats) -> None:
        self._similarity = similarity
        self._best = np.zeros(similarity.shape[1])

    def gain(self, element: int) -> float:
        return float(np.maximum(self._similarity[element] - self._best, 0.0).sum())

    def add(self, element: int) -> float:
        gained = self.gain(element)
        self._best = np.maximum(self._best, self._similarity[element])
        return gained


@dataclass(frozen=True, eq=False)
class FacilityLocation:
    """How well each unit is served by its best element: sum_u max_{v in A} similarity[v, u].

    Attributes:
        similarity: [V, U] >= 0. With one row a sighting and one column a species it is a measure of biodiversity.
    """

    similarity: Floats

    def __post_init__(self) -> None:
        if not (self.similarity >= 0).all():
            raise ValueError("similarity must be >= 0, else F of a larger set could be smaller.")

    @property
    def elements(self) -> int:
        return len(self.similarity)

    def value(self, members: Bitmap) -> Floats:
        served: Floats = np.where(members[..., None], self.similarity, 0.0).max(-2).sum(-1)
        return served

    def begin(self) -> Running:
        return _Nearest(self.similarity)


class _Posterior:
    """Grows a Cholesky factor of `I + K / noise^2` by one row a new element."""

    def __init__(self, kernel: Floats, noise: float) -> None:
        self._kernel = kernel / noise**2
        self._variance = self._kernel.diagonal().copy()  # posterior, in units of the noise
        self._rows: list[Floats] = []
        self._seen: set[int] = set()

    def gain(self, element: int) -> float:
        return 0.0 if element in self._seen else 0.5 * float(np.log1p(max(self._variance[element], 0.0)))

    def add(self, element: int) -> float:
        gained = self.gain(element)
        if element not in self._seen:
            self._seen.add(element)
            row = self._kernel[element].copy()
            for past in self._rows:
                row -= past[element] * past
            row /= np.sqrt(1.0 + self._variance[element])
            self._rows.append(row)
            self._variance -= row**2
        return gained


@dataclass(frozen=True, eq=False)
class InformationGain:
    """What noisy measurements of A say about a Gaussian process: 1/2 logdet(I + K_A / noise^2), nats.

    Attributes:
        kernel: [V, V] prior covariance, symmetric and positive semi-definite.
        noise: standard deviation of a measurement, > 0.

    An element measured twice counts once. Bayesian experiment design by D-optimality.
    """

    kernel: Floats
    noise: float = 1.0

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ValueError(f"noise must be > 0; got {self.noise!r}. Without noise one measurement says everything.")
        if not np.allclose(self.kernel, self.kernel.T):
            raise ValueError("kernel must be symmetric.")

    @property
    def elements(self) -> int:
        return len(self.kernel)

    def value(self, members: Bitmap) -> Floats:
        kept = members[..., :, None] & members[..., None, :]
        inner = np.where(kept, self.kernel / self.noise**2, 0.0) + np.eye(self.elements)
        found: Floats = 0.5 * np.linalg.slogdet(inner)[1]
        return found

    def begin(self) -> Running:
        return _Posterior(self.kernel, self.noise)


class _Sum:
    def __init__(self, worth: Floats, repeats: bool) -> None:
        self._worth = worth.copy()
        self._repeats = repeats

    def gain(self, element: int) -> float:
        return float(self._worth[element])

    def add(self, element: int) -> float:
        gained = self.gain(element)
        if not self._repeats:
            self._worth[element] = 0.0
        return gained


@dataclass(frozen=True, eq=False)
class Modular:
    """The sum of the elements' own worth.

    Attributes:
        worth: [V] >= 0.
        repeats: a running value pays every visit anew. That is the ordinary additive reward, no longer a function of
            the visited set; `value` still counts each element once.
    """

    worth: Floats
    repeats: bool = False

    @classmethod
    def of(cls, function: SetFunction) -> Modular:
        """The additive counterpart of `function`: F({v}) at every visit of v, seen before or not (ModPO's reward)."""
        return cls(function.value(np.eye(function.elements, dtype=bool)), repeats=True)

    @property
    def elements(self) -> int:
        return len(self.worth)

    def value(self, members: Bitmap) -> Floats:
        found: Floats = members @ self.worth
        return found

    def begin(self) -> Running:
        return _Sum(self.worth, self.repeats)


def curvature(function: SetFunction) -> float:
    """c = 1 - min_v gain(v | all others) / F({v}) over elements with F({v}) > 0: 0 is additive, 1 fully curved."""
    alone = np.eye(function.elements, dtype=bool)
    single = function.value(alone)
    added = function.value(np.ones(function.elements, dtype=bool)) - function.value(~alone)
    counts = single > 0
    return float(1.0 - (added[counts] / single[counts]).min()) if counts.any() else 0.0


def violations(function: SetFunction, draws: int = 200, seed: int = 0, tolerance: float = 1e-9) -> dict[str, int]:
    """How often random chains A inside B, v outside B break monotone, submodular and F(empty) = 0."""
    draw: Any = np.random.default_rng(seed)
    size = function.elements
    broken = {"monotone": 0, "submodular": 0, "empty": int(abs(function.value(np.zeros(size, bool))) > tolerance)}
    for _ in range(draws):
        large = draw.random(size) < draw.random()
        element = int(draw.integers(size))
        large[element] = False
        small = large & (draw.random(size) < draw.random())
        late, early = (gains(function, members)[element] for members in (large, small))
        broken["monotone"] += int(late < -tolerance)
        broken["submodular"] += int(early < late - tolerance)
    return broken
