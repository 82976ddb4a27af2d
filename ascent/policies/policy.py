"""What the loop asks of anyone who decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation

Probe = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits [M, V], hidden [M, H], action [M]) -> [M] or [M, K], called on each chunk of the head.

`logits` are already divided by the temperature. M is the size of the chunk, so a probe must treat its
rows one by one. Gradient flows through it where the evaluation is differentiated.
"""


class Policy(Protocol):
    """A module that can say what it thinks now of decisions that were recorded."""

    @property
    def splittable(self) -> bool:
        """Whether rows may be evaluated apart (False where rows are coupled, batch norm for example)."""
        ...

    def evaluate(self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] = ...) -> Evaluation:
        """The differentiable columns named in `needs`; only they are computed."""
        ...

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """Without gradient and in one forward: those of `old_log_prob`, `value`, `next_value` in `needs`."""
        ...
