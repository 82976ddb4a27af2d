"""The explicit solution of a parametric quadratic program: polytopes of states, an affine law in each.

For an active set a of constraints, stationarity and G_a U = W_a + S_a theta give

    lambda(theta) = -D^-1 ((S_a + G_a (2H)^-1 Z) theta + W_a)        D = G_a (2H)^-1 G_a'
    U(theta)      = -(2H)^-1 (Z theta + G_a' lambda(theta))

and its region is where lambda >= 0 and the other constraints hold. Dimensions: p regions, n states, m inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from ascent.policies.affine.linear import Matrix
from ascent.policies.affine.predictive import Program

Outside = Literal["zero", "nearest"]
SLACK = 1e-9
"""How far outside of a region's facets (rows of length 1) a state still counts as in it: no cracks by rounding."""
THIN = 1e-8
"""Regions whose largest ball has at most this radius are no regions."""


@dataclass(frozen=True)
class Region:
    """{theta : rows theta <= limits}, and the law u = gain theta + offset in it.

    Attributes:
        rows, limits: E [j, n] of length 1 each, f [j].
        gain, offset: K [m, n], r [m].
        active: rows of G that hold with equality.
    """

    rows: Matrix
    limits: Matrix
    gain: Matrix
    offset: Matrix
    active: tuple[int, ...] = ()


@dataclass(frozen=True)
class PiecewiseAffine:
    """u(theta): the law of the first region that contains theta.

    Attributes:
        regions: p of them; where several contain a state, the first counts.
        outside: of all regions, u is "zero" or the law of the "nearest" region (least violated).
    """

    regions: tuple[Region, ...]
    outside: Outside = "zero"
    _rows: Matrix = field(init=False, repr=False, compare=False)
    _limits: Matrix = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.regions:
            raise ValueError("regions must be at least one.")
        if self.outside not in ("zero", "nearest"):
            raise ValueError(f"outside must be 'zero' or 'nearest'; got {self.outside!r}.")
        most = max(len(region.limits) for region in self.regions)
        rows = np.zeros((len(self.regions), most, self.regions[0].rows.shape[1]))
        limits = np.full((len(self.regions), most), np.inf)
        for place, region in enumerate(self.regions):
            rows[place, : len(region.limits)], limits[place, : len(region.limits)] = region.rows, region.limits
        object.__setattr__(self, "_rows", rows)
        object.__setattr__(self, "_limits", limits)

    @property
    def gains(self) -> Matrix:
        """K [p, m, n]."""
        return np.stack([region.gain for region in self.regions])

    @property
    def offsets(self) -> Matrix:
        """r [p, m]."""
        return np.stack([region.offset for region in self.regions])

    def violation(self, state: Matrix) -> Matrix:
        """How far outside each region [..., p] states [..., n] are: the largest E theta - f, negative inside."""
        found: Matrix = (np.einsum("pjn,...n->...pj", self._rows, state) - self._limits).max(-1)
        return found

    def index(self, state: Matrix) -> NDArray[np.int64]:
        """Number of the region that decides [...]; -1 outside of all where that gives zero."""
        violation = self.violation(state)
        within = violation <= SLACK
        other = -1 if self.outside == "zero" else violation.argmin(-1)
        return np.where(within.any(-1), within.argmax(-1), other)

    def contains(self, state: Matrix) -> NDArray[np.bool_]:
        """Whether states [..., n] lie in any region."""
        found: NDArray[np.bool_] = (self.violation(state) <= SLACK).any(-1)
        return found

    def evaluate(self, state: Matrix) -> Matrix:
        """u [..., m] of states [..., n]."""
        index = self.index(state)
        law = np.einsum("...mn,...n->...m", self.gains[index], state) + self.offsets[index]
        return np.where((index >= 0)[..., None], law, 0.0)


def explicit(problem: Program, outside: Outside = "zero", most: int = 100_000) -> PiecewiseAffine:
    """Every critical region, by enumerating active sets by their size; small programs only.

    Supersets of an active set that is infeasible, or whose rows depend on each other, are never looked at.

    Args:
        problem: with a positive definite Hessian.
        outside: see `PiecewiseAffine`.
        most: active sets that may be looked at, >= 1.

    Raises:
        ValueError: the program has too many active sets, or no region.
    """
    refused: list[frozenset[int]] = []
    found: list[Region] = []
    looked = 0
    for size in range(len(problem.hessian) + 1):
        for active in combinations(range(len(problem.limits)), size):
            chosen = frozenset(active)
            if any(bad <= chosen for bad in refused):
                continue
            looked += 1
            if looked > most:
                raise ValueError(
                    f"the program has more than {most} candidate active sets; take a shorter horizon or fewer limits."
                )
            rows = problem.rows[list(active)]
            if (size and np.linalg.matrix_rank(rows) < size) or not feasible(problem, active):
                refused.append(chosen)
                continue
            region = critical(problem, active)
            if region is not None:
                found.append(region)
    if not found:
        raise ValueError("no state admits a plan within the limits; widen domain or controls.")
    return PiecewiseAffine(tuple(found), outside)


def feasible(problem: Program, active: Sequence[int]) -> bool:
    """Whether some state and plan satisfy every constraint, those of `active` with equality."""
    chosen = list(active)
    size, states = problem.rows.shape[1], problem.domain_rows.shape[1]
    both = np.hstack((problem.rows, -problem.slopes))
    domain = np.hstack((np.zeros((len(problem.domain_limits), size)), problem.domain_rows))
    answer = linprog(
        np.zeros(size + states),
        A_ub=np.vstack((both, domain)),
        b_ub=np.concatenate((problem.limits, problem.domain_limits)),
        A_eq=both[chosen] if chosen else None,
        b_eq=problem.limits[chosen] if chosen else None,
        bounds=(None, None),
    )
    return bool(answer.status == 0)


def critical(problem: Program, active: Sequence[int]) -> Region | None:
    """The region in which exactly `active` binds; None where it has no interior."""
    chosen = list(active)
    rest = [row for row in range(len(problem.limits)) if row not in chosen]
    rows, limits, slopes = problem.rows[chosen], problem.limits[chosen], problem.slopes[chosen]
    inverse = np.linalg.inv(2.0 * problem.hessian)
    middle = np.linalg.inv(rows @ inverse @ rows.T)
    # Multipliers and plan as affine functions of the state: (slope, constant).
    price = -middle @ (slopes + rows @ inverse @ problem.cross), -middle @ limits
    plan = -inverse @ (problem.cross + rows.T @ price[0]), -inverse @ rows.T @ price[1]
    others = problem.rows[rest]
    bounded = (
        np.vstack((-price[0], others @ plan[0] - problem.slopes[rest], problem.domain_rows)),
        np.concatenate((price[1], problem.limits[rest] - others @ plan[1], problem.domain_limits)),
    )
    kept = irredundant(*bounded)
    if kept is None:
        return None
    first = problem.inputs
    return Region(*kept, plan[0][:first], plan[1][:first], tuple(chosen))


def irredundant(rows: Matrix, limits: Matrix) -> tuple[Matrix, Matrix] | None:
    """The facets of {rows x <= limits}, each row of length 1; None where the set has no interior."""
    length = np.linalg.norm(rows, axis=1)
    flat = length < 1e-10
    if (limits[flat] < -SLACK).any():
        return None
    rows, limits = rows[~flat] / length[~flat, None], limits[~flat] / length[~flat]
    if radius(rows, limits) <= THIN:
        return None
    keep = np.ones(len(rows), bool)
    for place in range(len(rows)):
        keep[place] = False
        others = keep.nonzero()[0]
        # The furthest that the row can be driven by the others, with itself let out by 1 so that the answer is finite.
        answer = linprog(
            -rows[place],
            A_ub=np.vstack((rows[others], rows[place])),
            b_ub=np.append(limits[others], limits[place] + 1.0),
            bounds=(None, None),
        )
        keep[place] = answer.status != 0 or -answer.fun > limits[place] + SLACK
    return rows[keep], limits[keep]


def radius(rows: Matrix, limits: Matrix) -> float:
    """Of the largest ball in {rows x <= limits}, rows of length 1; negative where the set is empty."""
    size = rows.shape[1]
    answer = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.hstack((rows, np.ones((len(rows), 1)))),
        b_ub=limits,
        bounds=[(None, None)] * size + [(None, 1.0)],
    )
    return -float(answer.fun) if answer.status == 0 else -1.0
