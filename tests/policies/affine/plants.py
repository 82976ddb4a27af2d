"""The linear models that the paper prints, and controllers of them."""

from __future__ import annotations

from functools import cache

import numpy as np

from ascent.policies.affine.linear import riccati
from ascent.policies.affine.predictive import Program, program
from ascent.policies.affine.regions import PiecewiseAffine, explicit

PENDULUM = np.array([[1.0188, 0.0503], [0.7547, 1.0188]]), np.array([[0.0038], [0.1509]])
REACTOR = (
    np.array(
        [[0.9506, 0.0, 0.0, 0.0], [-0.0484, 0.9943, 0.0, 0.0], [0.0, 0.0, 0.9909, 0.0], [0.6970, 0.0678, 0.0, 1.0030]]
    ),
    np.array([[0.0], [0.0], [0.0], [-0.0007]]),
)
STATE_COST, CONTROL_COST = np.diag([1.0, 0.1]), np.array([[0.001]])
BOX = np.array([-2.0, -8.0]), np.array([2.0, 8.0])
FORCE = np.array([-2.0]), np.array([2.0])
VALUE = riccati(*PENDULUM, STATE_COST, CONTROL_COST)


@cache
def pendulum(steps: int = 2) -> tuple[Program, PiecewiseAffine]:
    """The clipped pendulum's controller."""
    problem = program(*PENDULUM, STATE_COST, CONTROL_COST, steps, FORCE, BOX)
    return problem, explicit(problem)


@cache
def masses() -> tuple[Program, PiecewiseAffine]:
    """Two coupled inputs on two states."""
    a, b = np.array([[1.1, 0.3], [-0.2, 0.95]]), np.array([[1.0, 0.2], [0.1, 0.7]])
    problem = program(
        a,
        b,
        np.eye(2),
        np.diag([0.5, 0.2]),
        2,
        (np.array([-0.4, -0.6]), np.array([0.5, 0.3])),
        (-np.ones(2), np.ones(2)),
    )
    return problem, explicit(problem)


def states(count: int, low: np.ndarray, high: np.ndarray, seed: int = 0) -> np.ndarray:
    """Uniform in a box."""
    return np.random.default_rng(seed).uniform(low, high, (count, len(low)))
