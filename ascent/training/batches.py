"""Dealing a collection into updates, and an update into micro-batches and shares."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.part import Together
from ascent.core.plan import Plan
from ascent.core.random import generator


def updates(collection: Decisions, plan: Plan, seed: int, round_: int, pass_: int) -> list[Decisions]:
    """The rows of each update of one pass, dealt by `deal`.

    The collection is put in the pass's order once and then cut: cheaper than picking each update's rows out of every
    column.
    """
    places = deal(collection, plan, seed, round_, pass_)
    if places is None:
        return [collection]
    return collection.rows(torch.cat(places)).cut([len(part) for part in places])


def deal(collection: Decisions, plan: Plan, seed: int, round_: int, pass_: int) -> list[Tensor] | None:
    """Row indices of each update of one pass, shuffled by a hash of (seed, round, pass); None is all rows.

    A collection of fewer rows than minibatches (rows were refused) leaves the last updates empty.
    """
    if plan.minibatches == 1:
        return None
    draw = generator(seed, "deal", round_, pass_)
    if plan.unit == "group":
        group = collection.column("group", "unit='group'")
        if group.dim() != 1:
            raise ValueError("unit='group' deals whole rows, so `group` must be one number per row [N].")
        names, place = torch.unique(group, return_inverse=True)
        order = torch.randperm(len(names), generator=draw).to(place.device)
        return [torch.nonzero(torch.isin(place, part)).squeeze(1) for part in order.tensor_split(plan.minibatches)]
    return list(torch.randperm(len(collection), generator=draw).tensor_split(plan.minibatches))


def refuse_small(plan: Plan, rows: int, groups: int, decisions: int) -> None:
    """Raise ValueError where a whole collection cannot fill every update of a pass."""
    count = {"row": rows, "group": groups, "decision": decisions}[plan.unit]
    if count < plan.minibatches:
        raise ValueError(
            f"minibatches must be <= the {plan.unit}s of a collection; got minibatches={plan.minibatches} with {count} "
            f"{plan.unit}s. Collect more per step or deal fewer minibatches."
        )


def share(update: Decisions, together: Together, rank: int, processes: int) -> Tensor | None:
    """Row indices of this process's part of an update; None is all of them."""
    if processes == 1:
        return None
    units = _units(update, together)
    return torch.nonzero(units % processes == rank).squeeze(1)


def split(update: Decisions, together: Together, rows: int | None) -> Iterator[Decisions]:
    """Micro-batches of at most `rows` rows (more where rows must stay together); None is one micro-batch."""
    if rows is None or len(update) <= rows:
        yield update
        return
    units = _units(update, together)
    order = torch.argsort(units, stable=True)
    sizes = torch.bincount(units)
    start = end = 0
    for size in sizes[sizes > 0].tolist():
        if end > start and end + size - start > rows:
            yield update.rows(order[start:end])
            start = end
        end += size
    yield update.rows(order[start:end])


def _units(update: Decisions, together: Together) -> Tensor:
    """[N] number of the unit that each row belongs to, from 0."""
    if together == "row":
        return torch.arange(len(update))
    if together == "context":
        names = torch.arange(len(update)) if update.context_row is None else update.context_row
    else:
        names = update.column("group", "keep_together='group'")
    return torch.unique(names, return_inverse=True)[1]
