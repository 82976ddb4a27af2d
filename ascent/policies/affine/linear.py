"""Linear models of a plant, s+ = A s + B u, and their optimal linear-quadratic control.

Dimensions: n states, m inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import expm, solve_discrete_are
from torch import Tensor

Matrix = NDArray[np.float64]


def linearise(rates: Callable[[Tensor, Tensor], Tensor], state: Matrix, control: Matrix) -> tuple[Matrix, Matrix]:
    """Jacobians of ds/dt = rates(s, u) at a point.

    Args:
        rates: of float64 tensors [n] and [m] to [n], differentiable.
        state, control: the point, [n] and [m].

    Returns:
        d rates / d s [n, n] and d rates / d u [n, m].
    """
    point = (torch.as_tensor(state, dtype=torch.float64), torch.as_tensor(control, dtype=torch.float64))
    by_state, by_control = torch.autograd.functional.jacobian(rates, point)
    return by_state.numpy(), by_control.numpy()


def discretise(rate: Matrix, inlet: Matrix, seconds: float) -> tuple[Matrix, Matrix]:
    """ds/dt = rate s + inlet u under an input that is held for `seconds`: exactly s+ = A s + B u.

    Args:
        rate: [n, n].
        inlet: [n, m].
        seconds: of a step, > 0.
    """
    size, inputs = inlet.shape
    block = np.zeros((size + inputs, size + inputs))
    block[:size, :size], block[:size, size:] = rate, inlet
    whole = expm(block * seconds)
    return whole[:size, :size], whole[:size, size:]


def riccati(a: Matrix, b: Matrix, state_cost: Matrix, control_cost: Matrix, discount: float = 1.0) -> Matrix:
    """P with s'Ps the least discounted sum of s'Qs + u'Ru from s on.

    A discount g is the undiscounted problem of sqrt(g) A and sqrt(g) B.

    Args:
        a, b: [n, n], [n, m], stabilisable.
        state_cost, control_cost: Q [n, n] and R [m, m].
        discount: in (0, 1].
    """
    root = np.sqrt(discount)
    found: Matrix = solve_discrete_are(root * a, root * b, state_cost, control_cost)
    return found


def gain(a: Matrix, b: Matrix, control_cost: Matrix, value: Matrix) -> Matrix:
    """K [m, n] of the optimal law u = -K s, for P `value` of `riccati` without discount."""
    found: Matrix = np.linalg.solve(control_cost + b.T @ value @ b, b.T @ value @ a)
    return found


def quality(
    a: Matrix, b: Matrix, state_cost: Matrix, control_cost: Matrix, value: Matrix, discount: float
) -> tuple[Matrix, Matrix, Matrix]:
    """Q1 [n, n], Q2 [n, m], Q3 [m, m] of the cost s'Q1 s + s'Q2 u + u'Q3 u: of u now, then of a cost s'Ps."""
    return (
        state_cost + discount * a.T @ value @ a,
        2.0 * discount * a.T @ value @ b,
        control_cost + discount * b.T @ value @ b,
    )
