"""Forwards without gradient, over a collection or an update: in micro-batches, and in shares of several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import EVALUATED, Evaluation
from ascent.policies.policy import Policy
from ascent.training.processes import Processes

Scorer = Callable[[Decisions], Tensor]


def log_prob_of(policy: Policy) -> Scorer:
    """The log-probs [N, T] that a policy gives to the recorded actions."""
    return lambda decisions: policy.evaluate(decisions, frozenset({"log_prob"})).log_prob


@torch.no_grad()
def annotated(
    model: Policy,
    collection: Decisions,
    own: frozenset[str],
    scored: Mapping[str, Scorer],
    micro_rows: int | None,
    processes: Processes,
) -> Decisions:
    """The collection with the columns `own` of the model and those of the scorers."""

    def written(part: Decisions) -> Decisions:
        part = model.annotate(part, own) if own else part
        return part.with_extras({name: scorer(part) for name, scorer in scored.items()}) if scored else part

    index = torch.arange(processes.rank, len(collection), processes.count)
    if len(index) == len(collection) and (micro_rows is None or len(index) <= micro_rows):
        return written(collection)
    pieces = [written(collection.rows(places)) for places in index.split(micro_rows or max(len(index), 1))]
    columns = {name: torch.cat([piece.column(name) for piece in pieces]) for name in (*own, *scored) if len(index)}
    return collection.with_extras(processes.gather_rows(columns, index, len(collection)))


@torch.no_grad()
def looked(
    model: Policy,
    rows: Decisions,
    wanted: frozenset[str],
    mine: Tensor | None,
    micro_rows: int | None,
    processes: Processes,
) -> Evaluation:
    """What the model says of a whole update, of which this process evaluates the rows `mine` (None: all)."""
    index = torch.arange(len(rows)) if mine is None else mine
    nows = [model.evaluate(rows.rows(places), wanted) for places in index.split(micro_rows or max(len(index), 1))]
    columns = {name: torch.cat([now.column(name) for now in nows]) for name in (nows[0] if len(index) else ())}
    whole = processes.gather_rows(columns, index, len(rows))
    fields = {name: whole.pop(name) for name in EVALUATED if name in whole}
    return Evaluation(**fields, probes=whole)


def evaluated(model: Policy, rows: Decisions, wanted: frozenset[str], silent: Tensor | None) -> Evaluation:
    """What the model says of `rows`, without the gradient of those that are `silent` [N] bool, which would be 0.

    One row always goes with it, so that every parameter has a gradient, be it 0: an optimiser with momentum tells
    a gradient of 0 from none.
    """
    if silent is None or not model.splittable or len(rows) < 2 or not bool(silent.any()):
        return model.evaluate(rows, wanted)
    loud = ~silent
    loud[0] |= not bool(loud.any())
    heard, quiet = loud.nonzero()[:, 0], (~loud).nonzero()[:, 0]
    now = model.evaluate(rows.rows(heard), wanted)
    if not len(quiet):
        return now
    with torch.no_grad():
        rest = model.evaluate(rows.rows(quiet), wanted)
    places = torch.cat([heard, quiet]).argsort()
    columns = {name: torch.cat([now.column(name), rest.column(name)])[places] for name in now}
    fields = {name: columns.pop(name) for name in EVALUATED if name in columns}
    return Evaluation(**fields, probes=columns)
