"""Every batch that a sampler could draw from a tree, with its probability; or a seeded sample of them.

A batch is `groups` independent groups; a group is a question, drawn by `prompt_probability`, and `group_size`
independent trajectories for it. No method may depend on the order of rows, so batches that differ in order only
are listed once, with their joint probability.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ascent.core.random import generator
from ascent.evaluation.exact.tree import Tree

Accept = Callable[[Tensor], Tensor]
"""Rows of one group [k] -> [k] bool: those that the method takes; a group without any is drawn anew."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of a tree by group, and the batch's probability."""

    groups: tuple[Tensor, ...]
    probability: float


def _orders(things: Iterable[Hashable]) -> float:
    """In how many orders a multiset can be drawn."""
    counts = Counter(things).values()
    return math.factorial(sum(counts)) / math.prod(math.factorial(count) for count in counts)


def count(tree: Tree, group_size: int, groups: int) -> int:
    """How many batches `every` lists."""
    sizes = torch.bincount(tree.prompt).tolist()
    single = sum(math.comb(size + group_size - 1, group_size) for size in sizes)
    return math.comb(single + groups - 1, groups)


def _single(tree: Tree, log_probability: Tensor, group_size: int, accept: Accept | None) -> list[Batch]:
    """Every group, normalised over the accepted ones."""
    found = []
    for question, share in enumerate(tree.prompt_probability.tolist()):
        rows = torch.nonzero(tree.prompt == question)[:, 0].tolist()
        for chosen in itertools.combinations_with_replacement(rows, group_size):
            index = torch.tensor(chosen)
            weight = share * _orders(chosen) * float(log_probability[index].sum().exp())
            if accept is not None:
                index = index[accept(index)]
            if len(index) and weight > 0.0:
                found.append(Batch((index,), weight))
    total = sum(batch.probability for batch in found)
    if total <= 0.0:
        raise ValueError(f"no group of {group_size} from {tree.name!r} is accepted; use a larger group.")
    return [Batch(batch.groups, batch.probability / total) for batch in found]


def every(
    tree: Tree, log_probability: Tensor, group_size: int, groups: int, accept: Accept | None = None
) -> Iterator[Batch]:
    """All batches; their probabilities sum to 1.

    Args:
        tree: the problem.
        log_probability: [M] of each trajectory given its question, under whoever samples.
        group_size: trajectories per group, >= 1.
        groups: groups per batch, >= 1.
        accept: rows that a method refuses are left out, a group left empty is drawn anew.
    """
    single = _single(tree, log_probability, group_size, accept)
    for places in itertools.combinations_with_replacement(range(len(single)), groups):
        probability = _orders(places) * math.prod(single[place].probability for place in places)
        yield Batch(tuple(single[place].groups[0] for place in places), probability)


def sample(
    tree: Tree,
    log_probability: Tensor,
    group_size: int,
    groups: int,
    samples: int,
    seed: int,
    accept: Accept | None = None,
    refills: int = 10_000,
) -> Iterator[Batch]:
    """`samples` independent batches of equal weight; the same seed gives the same batches.

    Raises:
        ValueError: a group was refused `refills` times in a row.
    """
    draw = generator(seed, "laboratory", tree.name)

    def group() -> Tensor:
        for _ in range(refills):
            question = int(torch.multinomial(tree.prompt_probability, 1, generator=draw))
            rows = torch.nonzero(tree.prompt == question)[:, 0]
            index = rows[torch.multinomial(log_probability[rows].exp(), group_size, replacement=True, generator=draw)]
            index = index if accept is None else index[accept(index)]
            if len(index):
                return index
        raise ValueError(f"{refills} groups of {group_size} from {tree.name!r} were refused; use a larger group.")

    for _ in range(samples):
        yield Batch(tuple(group() for _ in range(groups)), 1.0 / samples)
