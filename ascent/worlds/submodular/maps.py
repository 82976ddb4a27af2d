"""Maps on which a walker collects: where it may go, what it finds, and the named ones of the experiments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from ascent.worlds.submodular import fields
from ascent.worlds.submodular.set_functions import (
    Bitmap,
    Collected,
    Coverage,
    FacilityLocation,
    InformationGain,
    Modular,
    SetFunction,
)

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # stay, right, down, left, up as (row, column)
ACTIONS = ("stay", "right", "down", "left", "up")


@dataclass(frozen=True, eq=False)
class Map:
    """A walk on a grid and the worth of what it passes.

    Attributes:
        rows, columns: cells.
        start: (row, column) of every walk.
        horizon: moves of a walk, >= 1.
        objective: the set function of the visited cells, V = rows * columns elements.
        walls: [V] bool, cells that cannot be entered; none when not given.
        picture: [V] numbers that a drawing shows as the ground.
    """

    rows: int
    columns: int
    start: tuple[int, int]
    horizon: int
    objective: SetFunction
    walls: Bitmap | None = None
    picture: fields.Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if self.objective.elements != self.cells:
            raise ValueError(f"objective must have {self.cells} elements, one a cell; got {self.objective.elements}.")
        row, column = self.start
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            raise ValueError(f"start must be a cell of the {self.rows} x {self.columns} map; got {self.start!r}.")
        if self.walls is not None and self.walls[self.first]:
            raise ValueError(f"start must not be a wall; got {self.start!r}.")
        if self.horizon < 1:
            raise ValueError(f"horizon must be an integer >= 1; got {self.horizon!r}.")

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    @property
    def first(self) -> int:
        """The start's number."""
        return self.start[0] * self.columns + self.start[1]

    def moved(self, cell: int, action: int) -> int:
        """Where `action` leads from `cell`; a move off the map or into a wall stays."""
        row, column = divmod(cell, self.columns)
        down, right = MOVES[action]
        row, column = row + down, column + right
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            return cell
        target = row * self.columns + column
        return cell if self.walls is not None and self.walls[target] else target

    def worth(self, path: list[int]) -> float:
        """F of the visited cells."""
        members = np.zeros(self.cells, bool)
        members[path] = True
        return float(self.objective.value(members))


def _weighted(rows: int, columns: int, weight: fields.Floats, start: tuple[int, int], horizon: int) -> Map:
    return Map(rows, columns, start, horizon, Coverage(fields.seen_from(rows, columns), weight), picture=weight)


def coverage() -> Map:
    """10 x 10, two hills of weight, 20 moves: the small experiment's map."""
    return _weighted(10, 10, fields.bumps(10, 10, ((2.5, 7.0), (7.5, 3.0)), 1.6), (1, 1), 20)


def constant() -> Map:
    """30 x 30, every cell weighs 1, 79 moves."""
    return _weighted(30, 30, np.ones(900), (1, 4), 79)


def bimodal() -> Map:
    """30 x 30, two opposite corners weigh more, 39 moves."""
    return _weighted(30, 30, fields.bimodal(30, 30), (1, 4), 39)


def process() -> Map:
    """30 x 30, weights drawn from a Gaussian process, 39 moves."""
    return _weighted(30, 30, fields.drawn(30, 30), (1, 4), 39)


def items() -> Map:
    """7 x 15, six groups of items each wanted up to a number, 39 moves; at most 21 count (start as in the release)."""
    groups = fields.items(7, 15, (18, 14, 13, 16, 18, 14), seed=1)
    kinds = np.where(groups.any(0), groups.argmax(0) + 1.0, 0.0)
    return Map(7, 15, (2, 4), 39, Collected(groups, np.array((3, 2, 3, 4, 6, 3))), picture=kinds)


def design() -> Map:
    """10 x 10, informative path planning: measurements of a Gaussian process along 20 moves."""
    return Map(10, 10, (1, 1), 20, InformationGain(fields.matern(10, 10, 2.0), noise=0.5), picture=np.zeros(100))


def biodiversity() -> Map:
    """10 x 10, twelve species of different range, seen best in their habitat, 20 moves."""
    seen = fields.sightings(10, 10)
    return Map(10, 10, (1, 1), 20, FacilityLocation(seen), picture=seen.sum(-1))


def rooms() -> Map:
    """7 x 14, two rooms joined by one door; both are to be explored, 40 moves, so a walker must come back."""
    walls = np.zeros((7, 14), bool)
    walls[:, 7] = True
    walls[3, 7] = False
    weight = (~walls).astype(np.float64).reshape(-1)
    reach = fields.seen_from(7, 14) & ~walls.reshape(-1)[None]
    return Map(7, 14, (3, 6), 40, Coverage(reach, weight), walls.reshape(-1), picture=weight)


def trap() -> Map:
    """3 x 14, small gains at once on the left, large ones behind six empty columns on the right, 30 moves.

    Who looks one step ahead goes left and never sees a reason to cross.
    """
    weight = np.zeros((3, 14))
    weight[:, :4] = 0.1
    weight[:, 11:] = 2.0
    return Map(3, 14, (1, 4), 30, Coverage(np.eye(42, dtype=bool), weight.reshape(-1)), picture=weight.reshape(-1))


MAPS: Mapping[str, Callable[[], Map]] = MappingProxyType(
    {
        "Coverage": coverage,
        "ConstantCoverage": constant,
        "BimodalCoverage": bimodal,
        "ProcessCoverage": process,
        "ItemCollection": items,
        "InformativePath": design,
        "Biodiversity": biodiversity,
        "TwoRooms": rooms,
        "GreedyTrap": trap,
    }
)
"""The registered maps; "ascent/<name>-v0" is the environment."""


def additive(ground: Map) -> SetFunction:
    """What ModPO is paid by on this map: F({v}) at every visit."""
    return Modular.of(ground.objective)
