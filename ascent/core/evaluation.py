"""What the policy says *now* about recorded decisions: a deterministic function of (parameters, decisions)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ascent.core.decisions import EMPTY, Column, Columns, Table


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Table):
    """Differentiable columns [N, T]; absent ones were not asked for (`method.needs`).

    Attributes:
        log_prob: [N, T] log pi(action | context), nats.
        entropy: [N, T] of the distribution at each decision, nats.
        value: [N, T] or [N, T, K] state values of K critics.
        outcome: [N, T] differentiable worth of the policy's own action: Q(s, a), a simulated reward; [N, T, K] of K
            judges.
        outputs: [N, T, K] function-space leaf (logits, means) whose gradient grows a tree.
        features: [N, T, H] hidden state before the head.
        probes: further columns computed on each chunk of the head, by name, [N, T] or [N, T, K].
    """

    EXTRAS = "probes"

    log_prob: Column = Column()
    entropy: Column = Column()
    value: Column = Column()
    outcome: Column = Column()
    outputs: Column = Column()
    features: Column = Column()
    probes: Columns = field(default_factory=lambda: EMPTY)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Evaluation:
        columns: dict[str, object] = {
            name: change(self.__dict__[name]) for name in EVALUATED if self.__dict__[name] is not None
        }
        columns["probes"] = {name: change(tensor) for name, tensor in self.probes.items()}
        return self._copy(columns)

    def detach(self) -> Evaluation:
        """The same numbers without gradient."""
        return self._map(lambda tensor: tensor.detach())

    def rows(self, index: Tensor | slice) -> Evaluation:
        """The rows `index`."""
        return self._map(lambda tensor: tensor[index])

    def cleaned(self, mask: Tensor) -> Evaluation:
        """0 where `mask` [N, T] is False: padding may hold NaN or infinity and must not reach a gradient."""

        def clean(tensor: Tensor) -> Tensor:
            if tensor.shape[:2] != mask.shape:
                wanted = f"[N, T, ...] = {list(mask.shape)}"
                raise ValueError(f"evaluation columns must be {wanted}; got {list(tensor.shape)}.")
            wide = mask.reshape(*mask.shape, *(1,) * (tensor.dim() - 2))
            return torch.where(wide, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))

        return self if bool(mask.all()) else self._map(clean)


EVALUATED: tuple[str, ...] = ("log_prob", "entropy", "value", "outcome", "outputs", "features")
"""Names in `method.needs` that a policy computes at evaluation; `probe:<name>` asks for a probe."""
