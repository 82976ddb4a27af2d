"""What a method is made of: frozen parts that are pure when called, with optional hooks.

A part's state never hides inside it: `start` makes it, `annotate` and `prepare` turn it into columns that
the pure call reads, `after` returns the next one. So calling credit or loss twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import EMPTY, Columns, Decisions
from ascent.core.evaluation import Evaluation

State = Mapping[str, Tensor]
Together = Literal["row", "context", "group"]


@dataclass(frozen=True)
class Clock:
    """Where the run is; the loop writes it, schedules read it.

    Attributes:
        step: optimiser steps taken by this method so far, from 0.
        progress: fraction of the run's budget that is used, in [0, 1].
    """

    step: int = 0
    progress: float = 0.0


@dataclass(frozen=True)
class MethodState:
    """State of every part by its path in the method, and the clock."""

    parts: Mapping[str, State] = field(default_factory=dict)
    clock: Clock = Clock()


class Part:
    """Base of all parts: every hook has a neutral default.

    Properties (a part may turn them into class attributes or fields):
        needs: names of the columns that the part reads, of `Decisions`, of `Evaluation` or `probe:<name>`.
        recorded: those of them that are read from the decisions, where a name may also be an evaluated one (`value`).
        prepares: the evaluated columns that `prepare` reads; an empty set spares a forward pass.
        keep_together: rows that a micro-batch split must not separate.
        follows_advantage: where a row's advantages are all 0, its values and their gradient are 0 too, whatever
            the policy says; such a row needs no backward pass.
    """

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    @property
    def recorded(self) -> frozenset[str]:
        """Those of `needs` that must be in the decisions before an update; a name may be read on both sides."""
        return self.needs

    @property
    def prepares(self) -> frozenset[str]:
        return frozenset()

    @property
    def keep_together(self) -> Together:
        return "row"

    @property
    def follows_advantage(self) -> bool:
        return False

    @property
    def critics(self) -> int:
        """K of the values [N, T, K] that `Method.example` makes for this part; 0 where it reads [N, T]."""
        return 0

    @property
    def outputs_size(self) -> int:
        """K of the outputs [N, T, K] that `Method.example` makes for this part; 0 where any number will do."""
        return 0

    def start(self) -> State:
        """The state before the first collection."""
        return EMPTY

    def annotate(self, decisions: Decisions, state: State) -> Columns:
        """Columns written once per collection, before credit (running baselines, for example)."""
        return EMPTY

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        """Row-first columns computed on the whole update without gradient (quantiles, adaptive bounds)."""
        return EMPTY

    def after(self, decisions: Decisions, totals: Columns, state: State) -> State:
        """The state after an update, from the update's rows and its summed metrics."""
        return state

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """Per-decision diagnostics [N, T]; the method averages them over the update's decisions."""
        return EMPTY

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        """Valid random values for the columns that only this part knows."""
        return EMPTY


def walk(name: str, thing: object) -> Iterator[tuple[str, Part]]:
    """Every part inside `thing` (a part, a mapping or a sequence of parts) with its dotted path."""
    if isinstance(thing, Part):
        yield name, thing
    if isinstance(thing, Mapping):
        for key, inner in thing.items():
            yield from walk(f"{name}.{key}", inner)
    elif isinstance(thing, tuple | list):
        for place, inner in enumerate(thing):
            yield from walk(f"{name}.{place}", inner)
    elif is_dataclass(thing):
        for item in fields(thing):
            yield from walk(f"{name}.{item.name}", thing.__dict__[item.name])
