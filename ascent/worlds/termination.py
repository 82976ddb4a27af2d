"""When known worlds end, as functions of the successor: what a learned model need not learn.

Each reads the observation that the environment gives by default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Termination = Callable[[Tensor], Tensor]


def never(successor: Tensor) -> Tensor:
    """Only the time limit ends an episode."""
    return torch.zeros(successor.shape[:-1], dtype=torch.bool)


def hopper(successor: Tensor) -> Tensor:
    """Fallen: height at most 0.7, |angle| at least 0.2, or another number beyond 100."""
    healthy = (successor[..., 0] > 0.7) & (successor[..., 1].abs() < 0.2)
    return ~(healthy & (successor[..., 1:].abs() < 100.0).all(-1))


def walker(successor: Tensor) -> Tensor:
    """Fallen: height outside (0.8, 2) or |angle| at least 1."""
    height = successor[..., 0]
    return ~((height > 0.8) & (height < 2.0) & (successor[..., 1].abs() < 1.0))


def ant(successor: Tensor) -> Tensor:
    """Fallen: height outside [0.2, 1]."""
    height = successor[..., 0]
    return (height < 0.2) | (height > 1.0)


def inverted_pendulum(successor: Tensor) -> Tensor:
    """|angle| above 0.2."""
    return successor[..., 1].abs() > 0.2


def mountain_car(successor: Tensor) -> Tensor:
    """At the flag with no speed backwards."""
    return (successor[..., 0] >= 0.45) & (successor[..., 1] >= 0.0)


KNOWN: Mapping[str, tuple[int, Termination]] = {
    "Pendulum": (3, never),
    "HalfCheetah": (17, never),
    "Swimmer": (8, never),
    "Reacher": (10, never),
    "Hopper": (11, hopper),
    "Walker2d": (17, walker),
    "Ant": (105, ant),
    "InvertedPendulum": (4, inverted_pendulum),
    "MountainCarContinuous": (2, mountain_car),
}
"""By an environment's name without its version: the numbers that are read at least, and the function."""


def termination(environment: str) -> Termination:
    """The termination of a Gymnasium id, on observations that begin with the environment's own.

    Raises:
        ValueError: it is not known here.
    """
    name = re.sub(r"-v\d+$", "", environment.rsplit(":", 1)[-1])
    if name not in KNOWN:
        raise ValueError(f"when {environment!r} ends is not known; known are {', '.join(KNOWN)}.")
    size, ends = KNOWN[name]
    return lambda successor: ends(successor[..., :size])
