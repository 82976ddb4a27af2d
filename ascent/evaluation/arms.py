"""What a comparison compares: arms, each run with several seeds on the same budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Curve = list[tuple[float, float]]
"""(budget used, score) in order: steps, prompts or environment steps against the held-out score."""


@dataclass(frozen=True)
class Seed:
    """One run.

    Attributes:
        seed: shared by the runs of other arms that it is paired with.
        curve: (budget used, score) in order of budget; may be empty.
        final: the score that the table compares.
        measures: what else was measured on the way, (budget used, number) by name; a method without a clip has no
            `clip_fraction`.
    """

    seed: int
    curve: Curve
    final: float
    measures: Mapping[str, Curve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.final):
            raise ValueError(
                f"final of seed {self.seed} must be finite; got {self.final}. Leave failed runs out and say so."
            )


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a name and its runs, each with a seed of its own."""

    name: str
    seeds: list[Seed]

    def __post_init__(self) -> None:
        numbers = [run.seed for run in self.seeds]
        if not numbers or len(set(numbers)) < len(numbers):
            raise ValueError(f"seeds of arm {self.name!r} must be different and at least one; got {numbers}.")

    @property
    def finals(self) -> dict[int, float]:
        """Final score by seed."""
        return {run.seed: run.final for run in self.seeds}


def check(arms: Sequence[Arm]) -> None:
    """Raise ValueError unless there is an arm and every name is its own."""
    names = [arm.name for arm in arms]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"arms must have different names and be at least one; got {names}.")
