"""Valid random inputs for any method, from the columns that it needs."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ascent.core.decisions import SHAPES, Decisions
from ascent.core.evaluation import EVALUATED, Evaluation
from ascent.core.part import Part
from ascent.core.random import generator
from ascent.core.reductions import last

PER_CRITIC = frozenset({"value_spread", "predicted_value"})
"""Probes that say a number of each critic."""


def example(
    needs: frozenset[str], parts: Iterable[Part], rows: int, columns: int, seed: int, dtype: torch.dtype
) -> tuple[Evaluation, Decisions]:
    """Rows of uneven length, groups of 4 (or 2), rewards on the last decision, log-probs near one another.

    Args:
        needs: columns wanted, of `Decisions`, `Evaluation` or `probe:<name>`.
        parts: parts that bring columns of their own through `Part.example`.
        rows: N >= 1. For methods that compare rows of a group, a multiple of 2.
        columns: T >= 1.
        seed: of every draw.
        dtype: of the float columns, float32 or float64.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows and columns must be >= 1; got rows={rows}, columns={columns}.")
    draw = generator(seed, "example")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    parts = tuple(parts)
    several = max((part.critics for part in parts), default=0)
    wide = (several,) if several else ()
    size = max((part.outputs_size for part in parts), default=0) or 3
    lengths = torch.randint(1, columns + 1, (rows, 1), generator=draw)
    mask = torch.arange(columns) < lengths
    log_prob = -normal(rows, columns).abs() - 0.1
    group_size = next(size for size in (4, 2, 1) if rows % size == 0)
    bare = Decisions(mask=mask, action=torch.randint(0, 5, (rows, columns), generator=draw))
    final = last(bare, "row")
    ends = torch.rand(rows, 1, generator=draw) < 0.5
    made: dict[str, Tensor] = {
        "behaviour_log_prob": log_prob + 0.1 * normal(rows, columns),
        "old_log_prob": log_prob + 0.1 * normal(rows, columns),
        "reference_log_prob": log_prob + 0.3 * normal(rows, columns),
        "reward": torch.where(final, normal(rows, columns), torch.zeros((), dtype=dtype)),
        "terminated": final & ends,
        "truncated": final & ~ends,
        "value": normal(rows, columns, *wide),
        "next_value": torch.where(
            (final & ends).view(rows, columns, *(1 for _ in wide)),
            torch.zeros((), dtype=dtype),
            normal(rows, columns, *wide),
        ),
        "value_target": normal(rows, columns, *wide),
        "group": torch.arange(rows) // group_size,
        "trajectory": torch.arange(rows),
        "turn": torch.arange(columns).expand(rows, columns) // 3,
        "segment": torch.arange(columns).expand(rows, columns) // 2,
        "key": torch.arange(rows),
        "index": torch.arange(rows),
        "policy_version": torch.zeros(rows, dtype=torch.int64),
    }
    wanted = {name: made[name] for name in needs if name in SHAPES and name in made and name != "value_target"}
    decisions = bare.replace(**wanted)
    others = (name for name in sorted(needs) if name.endswith("_log_prob") and name not in SHAPES)
    scorers = {name: log_prob + 0.2 * normal(rows, columns) for name in others}
    decisions = decisions.with_extras(scorers)
    for part in parts:
        decisions = decisions.with_extras(part.example(decisions, draw))

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.clone().requires_grad_()

    evaluated = {
        "log_prob": log_prob,
        "entropy": normal(rows, columns).abs() + 0.5,
        "value": normal(rows, columns, *wide),
        "outcome": normal(rows, columns, *wide),
        "outputs": normal(rows, columns, size),
        "features": normal(rows, columns, 4),
    }
    asked = [name.removeprefix("probe:") for name in sorted(needs) if name.startswith("probe:")]
    probes = {name: leaf(normal(rows, columns, *(wide if name in PER_CRITIC else ())).abs()) for name in asked}
    present = {name: leaf(evaluated[name]) for name in EVALUATED if name in needs or name == "log_prob"}
    return Evaluation(**present, probes=probes), decisions
