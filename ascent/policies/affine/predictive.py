"""Linear model predictive control as one quadratic program whose parameter is the present state.

    J(theta) = min_U  U'HU + U'Z theta + theta'M theta     s.t.  G U <= W + S theta,   CR_A theta <= CR_b

U = (u_0 .. u_{N-1}); theta [n] is the state now. Dimensions: n states, m inputs, N steps, c rows of G.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag, solve_triangular
from scipy.optimize import nnls

from ascent.policies.affine.linear import Matrix, riccati


@dataclass(frozen=True)
class Program:
    """The multi-parametric quadratic program above.

    Attributes:
        hessian, cross, constant: H [Nm, Nm] without a half in front, Z [Nm, n], M [n, n].
        rows, limits, slopes: G [c, Nm], W [c], S [c, n].
        domain_rows, domain_limits: CR_A, CR_b of the states that are considered.
        inputs: m; the law is the first m numbers of U.
    """

    hessian: Matrix
    cross: Matrix
    constant: Matrix
    rows: Matrix
    limits: Matrix
    slopes: Matrix
    domain_rows: Matrix
    domain_limits: Matrix
    inputs: int

    def cost(self, plan: Matrix, state: Matrix) -> float:
        """J of a plan U [Nm] from a state [n]."""
        return float(plan @ self.hessian @ plan + plan @ self.cross @ state + state @ self.constant @ state)

    def solve(self, state: Matrix) -> Matrix | None:
        """The optimal plan U [Nm] for one state [n]; None where no plan keeps the limits.

        With H = LL' it is the point of a polyhedron that is nearest to the origin, which non-negative least squares
        finds (Lawson and Hanson 1974, chapter 23). Nothing of the explicit solution is used.
        """
        solved = self._solved(state)
        return None if solved is None else solved[0]

    def binding(self, state: Matrix) -> tuple[int, ...] | None:
        """Rows of G whose multipliers are positive at one state's optimal plan, ascending; None where there is no plan.

        Non-negative least squares keeps them independent of each other.
        """
        solved = self._solved(state)
        return None if solved is None else tuple(np.flatnonzero(solved[1] > 0).tolist())

    def _solved(self, state: Matrix) -> tuple[Matrix, Matrix] | None:
        """The plan, and numbers [c] in proportion to the multipliers of rows of length 1."""
        root = np.linalg.cholesky(self.hessian)
        free = -0.5 * np.linalg.solve(self.hessian, self.cross @ state)
        mapped = -solve_triangular(root, self.rows.T, lower=True).T  # -G L^-T
        wanted = self.rows @ free - self.limits - self.slopes @ state
        scale = np.linalg.norm(mapped, axis=1)
        real = scale > 0
        if (wanted[~real] > 1e-9).any():
            return None
        mapped, wanted = mapped[real] / scale[real, None], wanted[real] / scale[real]
        system = np.vstack((mapped.T, wanted))
        goal = np.zeros(len(system))
        goal[-1] = 1.0
        weights, distance = nnls(system, goal, maxiter=100 * system.shape[1])
        if distance < 1e-9:
            return None
        rest = system @ weights - goal
        plan: Matrix = free + solve_triangular(root.T, -rest[:-1] / rest[-1], lower=False)
        prices = np.zeros(len(real))
        prices[real] = weights
        return plan, prices


def program(
    a: Matrix,
    b: Matrix,
    state_cost: Matrix,
    control_cost: Matrix,
    steps: int,
    controls: tuple[Matrix, Matrix],
    domain: tuple[Matrix, Matrix],
    path_limits: bool = True,
    value: Matrix | None = None,
) -> Program:
    """Predictive control over `steps`, all intermediate states substituted.

    Args:
        a, b: the model, [n, n] and [n, m].
        state_cost, control_cost: Q [n, n] and R [m, m], R positive definite.
        steps: N >= 1.
        controls: (low, high) of the inputs, [m] each; infinite ones bound nothing.
        domain: (low, high) of the present state, [n] each, finite.
        path_limits: the predicted states, the last one included, must stay in `domain` as well.
        value: P [n, n], cost s'Ps of the last state; the infinite-horizon one when not given.

    Raises:
        ValueError: a size or a bound is out of range.
    """
    if steps < 1:
        raise ValueError(f"steps must be an integer >= 1; got {steps!r}.")
    if not np.isfinite(domain).all() or not np.less(*domain).all():
        raise ValueError(f"domain must be finite bounds, low below high; got {domain}.")
    if not np.less(*controls).all():
        raise ValueError(f"controls must be bounds, low below high; got {controls}.")
    size, inputs = b.shape
    last = riccati(a, b, state_cost, control_cost) if value is None else value
    powers = [np.linalg.matrix_power(a, k) for k in range(steps + 1)]
    effects = [np.zeros((size, steps * inputs)) for _ in range(steps + 1)]
    for k in range(1, steps + 1):
        effects[k] = a @ effects[k - 1]
        effects[k][:, (k - 1) * inputs : k * inputs] = b
    costs = [state_cost] * steps + [last]
    hessian = block_diag(*[control_cost] * steps) + sum(x.T @ q @ x for x, q in zip(effects, costs, strict=True))
    cross = 2.0 * sum(x.T @ q @ p for x, q, p in zip(effects, costs, powers, strict=True))
    constant = sum(p.T @ q @ p for p, q in zip(powers, costs, strict=True))
    one, limit = box(*controls)
    rows = [np.kron(np.eye(steps), one)]
    limits, slopes = [np.tile(limit, steps)], [np.zeros((steps * len(limit), size))]
    present, bound = box(*domain)
    if path_limits:
        for k in range(1, steps + 1):
            rows.append(present @ effects[k])
            limits.append(bound)
            slopes.append(-present @ powers[k])
    return Program(
        (hessian + hessian.T) / 2,
        cross,
        constant,
        np.vstack(rows),
        np.concatenate(limits),
        np.vstack(slopes),
        present,
        bound,
        inputs,
    )


def box(low: Matrix, high: Matrix) -> tuple[Matrix, Matrix]:
    """Rows [r, d] and limits [r] of low <= x <= high; infinite bounds have no row."""
    eye = np.eye(len(low))
    rows, limits = np.vstack((eye, -eye)), np.concatenate((high, -np.asarray(low)))
    finite = np.isfinite(limits)
    return rows[finite], limits[finite]
