"""Critical regions found from each other: across every facet of a region lies another, or no plan, or no domain.

Next to a facet where one constraint alone changes, the active set of the other side is known: a multiplier that
reaches 0 leaves the set, a constraint that is reached joins it. Where the limits depend on each other, or coincide,
that set may be no region, or cover a part of the facet only. What is left of the facet is then looked at by a small
step across it and the quadratic program at that point, until all of the facet is covered (Tondel, Johansen and
Bemporad 2003; Spjotvold et al. 2006 on facets that several regions share).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ascent.policies.affine.critical import SLACK, THIN, ActiveSet, Region, ball, critical, independent
from ascent.policies.affine.linear import Matrix
from ascent.policies.affine.predictive import Program

STEP = 1e-6
"""How far across a facet the quadratic program is solved; a tenth of the facet's radius where that is less."""
TRIES = 5
"""Points that are tried beside the middle of a facet, each from it by up to half the radius and twice as deep."""


def neighbours(problem: Program, most: int) -> tuple[Region, ...]:
    """The critical regions that can be reached from one of them, by the size of their active sets.

    The states that admit a plan are convex, so every region is reached. With limits that do not depend on each other
    (G_a of full rank on every facet) these are exactly the regions of enumeration. Otherwise several active sets may
    say the same plan in overlapping regions: enumeration lists them all, this search as many as cover the states; the
    law is the same. A region that is thinner than `STEP` is found only where one constraint leads to it.

    Args:
        problem: with a positive definite Hessian; some plan must keep its limits with room to spare.
        most: active sets and points that may be looked at, >= 1.

    Raises:
        ValueError: more than `most` of them are needed, or no region is found.
    """
    search = _Search(problem, most)
    waiting = [region for region in [search.first()] if region is not None]
    while waiting:
        region = waiting.pop()
        for place, joined in enumerate(region.across):
            if joined is not None:
                waiting += search.across(region, place, joined)
    return tuple(sorted(search.found, key=lambda region: (len(region.active), region.active)))


class _Search:
    """Regions found so far, and active sets that were looked at."""

    def __init__(self, problem: Program, most: int) -> None:
        self.problem, self.most = problem, most
        self.looked: dict[ActiveSet, Region | None] = {}
        self.points = 0

    @property
    def found(self) -> list[Region]:
        return [region for region in self.looked.values() if region is not None]

    def count(self) -> None:
        """Refuse to look at more than `most`."""
        if len(self.looked) + self.points > self.most:
            raise ValueError(
                f"the search of neighbours looked at more than {self.most} active sets; take a shorter horizon, fewer "
                f"limits or a larger bound."
            )

    def region(self, active: ActiveSet) -> Region | None:
        """That of an active set, computed once; None where it has no interior or dependent rows."""
        if active not in self.looked:
            possible = len(active) <= len(self.problem.hessian) and independent(self.problem, active)
            self.looked[active] = critical(self.problem, active) if possible else None
            self.count()
        return self.looked[active]

    def first(self) -> Region | None:
        """A region at the middle of the states and plans that keep all limits."""
        problem = self.problem
        states, plans = problem.domain_rows.shape[1], problem.rows.shape[1]
        domain = np.hstack((problem.domain_rows, np.zeros((len(problem.domain_rows), plans))))
        rows = np.vstack((np.hstack((-problem.slopes, problem.rows)), domain))
        limits = np.concatenate((problem.limits, problem.domain_limits))
        length = np.linalg.norm(rows, axis=1)
        real = length > 0
        middle, size = ball(rows[real] / length[real, None], limits[real] / length[real])
        if size <= THIN or (limits[~real] < 0).any():
            return None
        return self.at(points(middle[:states], size, np.zeros(states), 0.0))

    def across(self, region: Region, place: int, joined: ActiveSet) -> list[Region]:
        """Regions on the other side of one facet that were not known before."""
        before = len(self.found)
        row, limit = region.rows[place], float(region.limits[place])
        others = np.arange(len(region.limits)) != place
        pieces = [(region.rows[others], region.limits[others])]
        while pieces:
            rows, limits = pieces.pop()
            middle, size = ball(rows, limits, (row, limit))
            if size <= THIN:
                continue
            self.points += 1
            self.count()
            other = self.region(joined)
            if other is None or other.violation(middle) > SLACK:
                other = self.at(points(middle, size, row, min(STEP, 0.1 * size)))
            if other is not None:
                pieces += left(rows, limits, row, other)
        return self.found[before:]

    def at(self, candidates: Iterator[Matrix]) -> Region | None:
        """The region of the first point that has one, known or new; None where no point has."""
        domain_rows, domain_limits = self.problem.domain_rows, self.problem.domain_limits
        for point in candidates:
            if (domain_rows @ point > domain_limits).any():
                continue
            for known in self.found:
                if known.violation(point) <= SLACK:
                    return known
            active = self.problem.binding(point)
            region = None if active is None else self.region(active)
            if region is not None and region.violation(point) <= SLACK:
                return region
        return None


def points(middle: Matrix, size: float, across: Matrix, step: float) -> Iterator[Matrix]:
    """`middle` and a few points about it in the ball of radius `size`, each moved along the direction `across`."""
    for turn in range(TRIES + 1):
        beside = np.sin(turn * np.arange(1.0, len(middle) + 1.0)) / np.sqrt(len(middle))
        beside -= (beside @ across) * across
        yield middle + 0.5 * size * beside + 2.0**turn * step * across


def left(rows: Matrix, limits: Matrix, across: Matrix, region: Region) -> list[tuple[Matrix, Matrix]]:
    """What a region next to a facet with normal `across` leaves of the piece {rows x <= limits} of it, in pieces."""
    pieces = []
    for row, limit in zip(region.rows, region.limits, strict=True):
        if np.linalg.norm(row - (row @ across) * across) < 1e-7:
            continue  # the facet itself, seen from the other side
        pieces.append((np.vstack((rows, -row)), np.append(limits, -limit - THIN)))
        rows, limits = np.vstack((rows, row)), np.append(limits, limit)
    return pieces
