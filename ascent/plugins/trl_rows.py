"""What TRL's generation leaves, as the rows of a collection; nothing here imports TRL.

All tensors are those of all processes, in order of rank, so that groups are whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ascent.core.decisions import Decisions, concatenate
from ascent.core.evaluation import EVALUATED, Evaluation
from ascent.core.method import Method
from ascent.core.part import MethodState, Part
from ascent.core.random import key, mix
from ascent.core.reductions import last

POLICY = frozenset({"old_log_prob", "behaviour_log_prob", "log_prob"})
"""Columns that the policy itself gives; TRL leaves the recorded ones out where sampling and training weights agree."""

OWN_FORWARD = frozenset({"features", "outputs"})
"""Evaluated columns that TRL's fused head does not return."""


@dataclass(frozen=True)
class Generated:
    """One generation of N rows.

    Attributes:
        action: [N, T] tokens; length: [N] of the responses; ended: [N] bool, with an end-of-sequence token.
        decided: [N, T] bool, False for tool output; kept: [N, T] bool, what TRL's own loss would count.
        rewards: [N, F] of each function, NaN where it does not apply; weights: [F]; names: of the functions.
        columns: further ones [N, T]: `old_log_prob`, `behaviour_log_prob`, `reference_log_prob`, a scorer's.
        correction: [N, T] or [N, 1], TRL's importance weights of another sampling engine, or None.
    """

    action: Tensor
    length: Tensor
    ended: Tensor
    decided: Tensor
    kept: Tensor
    rewards: Tensor
    weights: Tensor
    names: Sequence[str]
    columns: Mapping[str, Tensor]
    correction: Tensor | None = None


def collected(found: Generated, number: int, group_size: int, budget: int, seed: int, version: int) -> Decisions:
    """The rows as decisions, not credited yet.

    Args:
        found: what was generated.
        number: of the generation, from 0; ids of groups and rows go on from the one before.
        group_size: responses of a prompt, consecutive rows.
        budget: most tokens of a response.
        seed: of the rows' keys.
        version: optimiser steps that the policy had taken.
    """
    rows, width = found.action.shape
    device = found.action.device
    within = torch.arange(width, device=device) < found.length[:, None]
    scored = ~found.rewards.isnan().all(1)
    # A row that no reward function applies to says nothing, also not of its group.
    mask = within & found.decided & scored[:, None]
    total = (found.rewards * found.weights.to(device)).nansum(1)
    final = _final(mask)
    places = torch.arange(rows, device=device)
    columns = dict(found.columns)
    if "behaviour_log_prob" in columns:  # a sampler may not know the odds of some tokens
        own = columns.get("old_log_prob", torch.zeros_like(columns["behaviour_log_prob"]))
        columns["behaviour_log_prob"] = torch.where(
            columns["behaviour_log_prob"].isnan(), own, columns["behaviour_log_prob"]
        )
    named = {name: columns.pop(name) for name in list(columns) if name in SHAPED}
    extras = {"budget": torch.full((rows,), budget, device=device), **columns}
    if len(found.names) > 1:
        extras |= {f"reward:{name}": found.rewards[:, place].nan_to_num(0.0) for place, name in enumerate(found.names)}
    return Decisions(
        mask=mask,
        action=found.action,
        reward=torch.where(final, total[:, None], 0.0),
        terminated=final & found.ended[:, None],
        truncated=final & ~found.ended[:, None],
        group=number * rows + places // group_size,
        key=mix(torch.tensor(key(seed, "trl"), device=device), number, places),
        policy_version=torch.full((rows,), version, device=device),
        extras=extras,
        **named,
    )


SHAPED = ("old_log_prob", "behaviour_log_prob", "reference_log_prob")


def _final(mask: Tensor) -> Tensor:
    """[N, T] True on the last decision of each row."""
    return last(Decisions(mask=mask), "row")


def credited(method: Method, decisions: Decisions, found: Generated, state: MethodState) -> Decisions:
    """Refused rows masked out, credit, then what TRL does to the loss: truncated rows out, its correction on."""
    if method.accept is not None:
        accepted = method.accept(decisions)
        if bool(accepted.any()):  # TRL cannot refill; where nothing is informative the rows stay, as in our trainer
            decisions = decisions.replace(mask=decisions.mask & accepted[:, None])
    decisions = method.credit(decisions, state)
    decisions = decisions.replace(mask=decisions.mask & found.kept)
    if found.correction is not None and "behaviour_log_prob" not in method.needs and "advantage" in decisions:
        decisions = decisions.replace(advantage=decisions.advantage * found.correction)
    return decisions


def credit_reads_policy(method: Method) -> bool:
    """Whether credit or `accept` reads log-probs of the policy, so that they are needed before any update."""
    names = ("advantage", "value_target", "reject", "accept")
    parts = (part for path, part in method.parts.items() if path.partition(".")[0] in names)
    return any(part.needs & POLICY for part in parts)


def prepare_reads_policy(method: Method) -> bool:
    """Whether what is computed on a whole update depends on what the policy says of it.

    Then all micro-batches are looked at before the first gradient. Otherwise the old log-probs of the first pass are
    filled in when the loss is made, without a forward of their own.
    """
    early = (
        part
        for path, part in method.parts.items()
        if path.startswith("normalise") or ".keep" in path or type(part).prepare is not Part.prepare
    )
    return bool(method.prepares) or any(part.needs & POLICY for part in early)


def widened(now: Evaluation, width: int) -> Evaluation:
    """The same with T grown to `width` by zeros: processes and micro-batches pad to lengths of their own."""

    def grown(tensor: Tensor) -> Tensor:
        missing = width - tensor.shape[1]
        return pad(tensor, (*(0, 0) * (tensor.dim() - 2), 0, missing)) if missing else tensor

    return evaluation({name: grown(now.column(name)) for name in now})


def evaluation(columns: Mapping[str, Tensor]) -> Evaluation:
    """Columns by name; a name that is no field is a probe."""
    own = {name: column for name, column in columns.items() if name in EVALUATED}
    return Evaluation(**own, probes={name: column for name, column in columns.items() if name not in own})


class Kept:
    """The collections that the rows of coming updates are part of."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, Decisions]] = []

    def add(self, first: int, collection: Decisions) -> None:
        """Rows `first`, `first` + 1, ..."""
        self.parts.append((first, collection))

    def forget(self, needed: Tensor) -> None:
        """Collections that end before the lowest of the rows `needed`."""
        low = int(needed.min())
        self.parts = [(first, rows) for first, rows in self.parts if first + len(rows) > low]

    def rows(self, ids: Tensor) -> Decisions:
        """The rows with these numbers, in their order."""
        place, offset = torch.full_like(ids, -1), 0
        for first, rows in self.parts:
            inside = (ids >= first) & (ids < first + len(rows))
            place = torch.where(inside, ids - first + offset, place)
            offset += len(rows)
        return concatenate([rows for _, rows in self.parts]).rows(place)


def dealt_by_groups(rows: int, group_size: int) -> Tensor:
    """A permutation of rows that keeps every group's rows side by side; groups are dealt as TRL deals rows."""
    groups = torch.randperm(rows // group_size)
    return (groups[:, None] * group_size + torch.arange(group_size)).reshape(-1)
