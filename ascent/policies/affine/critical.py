"""One critical region of a parametric quadratic program: the polytope of states in which one active set is optimal.

For an active set a of constraints, stationarity and G_a U = W_a + S_a theta give

    lambda(theta) = -D^-1 ((S_a + G_a (2H)^-1 Z) theta + W_a)        D = G_a (2H)^-1 G_a'
    U(theta)      = -(2H)^-1 (Z theta + G_a' lambda(theta))

and its region is where lambda >= 0 and the other constraints hold. Dimensions: n states, m inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from ascent.policies.affine.linear import Matrix
from ascent.policies.affine.predictive import Program

SLACK = 1e-9
"""How far outside of a region's facets (rows of length 1) a state still counts as in it: no cracks by rounding."""
THIN = 1e-8
"""Regions whose largest ball has at most this radius are no regions."""

ActiveSet = tuple[int, ...]


@dataclass(frozen=True)
class Region:
    """{theta : rows theta <= limits}, and the law u = gain theta + offset in it.

    Attributes:
        rows, limits: E [j, n] of length 1 each, f [j].
        gain, offset: K [m, n], r [m].
        active: rows of G that hold with equality, ascending.
        across: for every facet the active set on its other side, if nothing but the facet's own constraint changes
            there; None on a facet of the domain. Empty where it is not known.
    """

    rows: Matrix
    limits: Matrix
    gain: Matrix
    offset: Matrix
    active: ActiveSet = ()
    across: tuple[ActiveSet | None, ...] = ()

    def violation(self, state: Matrix) -> float:
        """How far outside one state [n] is: the largest E theta - f, negative inside."""
        return float((self.rows @ state - self.limits).max())


def independent(problem: Program, active: Sequence[int]) -> bool:
    """Whether the rows of G that `active` names do not depend on each other."""
    return not active or bool(np.linalg.matrix_rank(problem.rows[list(active)]) == len(active))


def critical(problem: Program, active: Sequence[int]) -> Region | None:
    """The region in which exactly `active`, of independent rows, binds; None where it has no interior."""
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
    changed: list[ActiveSet | None] = [tuple(row for row in chosen if row != gone) for gone in chosen]
    changed += [tuple(sorted((*chosen, new))) for new in rest]
    changed += [None] * len(problem.domain_limits)
    first, places = problem.inputs, kept[2]
    across = tuple(changed[place] for place in places)
    return Region(*kept[:2], plan[0][:first], plan[1][:first], tuple(chosen), across)


def irredundant(rows: Matrix, limits: Matrix) -> tuple[Matrix, Matrix, list[int]] | None:
    """The facets of {rows x <= limits}, each row of length 1, and their places; None where the set has no interior."""
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
    return rows[keep], limits[keep], (~flat).nonzero()[0][keep].tolist()


def radius(rows: Matrix, limits: Matrix) -> float:
    """Of the largest ball in {rows x <= limits}, rows of length 1; negative where the set is empty."""
    return ball(rows, limits)[1]


def ball(rows: Matrix, limits: Matrix, flat: tuple[Matrix, float] | None = None) -> tuple[Matrix, float]:
    """Middle and radius (at most 1) of the largest ball in {rows x <= limits}, rows of length 1.

    Args:
        rows, limits: [r, d] and [r].
        flat: (row [d] of length 1, level) of a hyperplane row x = level in which the ball lies; none for all of space.

    Returns:
        The middle [d] and the radius; zeros and a negative number where the set is empty.
    """
    size = rows.shape[1]
    reach = np.ones(len(rows)) if flat is None else np.linalg.norm(rows - np.outer(rows @ flat[0], flat[0]), axis=1)
    answer = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.hstack((rows, reach[:, None])),
        b_ub=limits,
        A_eq=None if flat is None else np.append(flat[0], 0.0)[None],
        b_eq=None if flat is None else [flat[1]],
        bounds=[(None, None)] * size + [(None, 1.0)],
    )
    return (answer.x[:-1], -float(answer.fun)) if answer.status == 0 else (np.zeros(size), -1.0)
