"""The explicit solution of a parametric quadratic program: polytopes of states, an affine law in each.

Dimensions: p regions, n states, m inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from ascent.policies.affine.critical import SLACK, Region, critical, independent
from ascent.policies.affine.linear import Matrix
from ascent.policies.affine.neighbours import neighbours
from ascent.policies.affine.predictive import Program

Outside = Literal["zero", "nearest"]
Search = Literal["auto", "enumeration", "neighbours"]


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


def explicit(
    problem: Program, outside: Outside = "zero", most: int = 100_000, search: Search = "auto"
) -> PiecewiseAffine:
    """Every critical region.

    Args:
        problem: with a positive definite Hessian.
        outside: see `PiecewiseAffine`.
        most: active sets that may be looked at, >= 1.
        search: "enumeration" of active sets by their size; "neighbours", from region to region across facets, for long
            horizons; "auto", the first where there are at most `most` candidates, the second where there are more.
            Their regions stand in one order, and are the same where limits do not depend on each other (`neighbours`).

    Raises:
        ValueError: the program has too many active sets, or no region.
    """
    if search not in ("auto", "enumeration", "neighbours"):
        raise ValueError(f"search must be 'auto', 'enumeration' or 'neighbours'; got {search!r}.")
    if search == "neighbours" or (search == "auto" and candidates(problem) > most):
        found = neighbours(problem, most)
    else:
        found = enumeration(problem, most)
    if not found:
        raise ValueError("no state admits a plan within the limits; widen domain or controls.")
    return PiecewiseAffine(found, outside)


def candidates(problem: Program) -> int:
    """Active sets that could be optimal somewhere: subsets of the constraints with at most as many rows as U."""
    return sum(comb(len(problem.limits), size) for size in range(len(problem.hessian) + 1))


def enumeration(problem: Program, most: int) -> tuple[Region, ...]:
    """Every critical region, by the size of its active set.

    Supersets of an active set that is infeasible, or whose rows depend on each other, are never looked at.

    Raises:
        ValueError: more than `most` sets would have to be looked at.
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
                    f"the program has more than {most} candidate active sets; take search='neighbours', a shorter "
                    f"horizon or fewer limits."
                )
            if not independent(problem, active) or not feasible(problem, active):
                refused.append(chosen)
                continue
            region = critical(problem, active)
            if region is not None:
                found.append(region)
    return tuple(found)


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
