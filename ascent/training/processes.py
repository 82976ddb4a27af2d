"""Several processes as one: every process holds the whole collection and works on its share of each update."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ascent.core.decisions import Decisions, concatenate


class Processes:
    """The processes of one run: Accelerate's, or this one alone."""

    def __init__(self) -> None:
        self.rank, self.count = 0, 1

    @classmethod
    def launched(cls) -> Processes:
        """Join the processes that `accelerate launch` (or torchrun) started; alone otherwise."""
        from accelerate import PartialState

        state = PartialState()
        joined = cls()
        joined.rank, joined.count = state.process_index, state.num_processes
        return joined

    @property
    def main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def gather(self, part: Decisions) -> Decisions:
        """The rows of all processes, equal on every process and in the order that one process would give them."""
        if self.count == 1:
            return part
        parts: list[dict[str, Tensor]] = [{}] * self.count
        dist.all_gather_object(parts, part.to_tensors())
        whole = concatenate([Decisions.from_tensors(flat) for flat in parts])
        # Prompts are dealt round robin, environments in blocks: groups tell the order of the former.
        grouped = "group" in whole and whole.group.dim() == 1
        return whole.rows(torch.argsort(whole.group, stable=True)) if grouped else whole

    def gather_rows(self, columns: dict[str, Tensor], index: Tensor, rows: int) -> dict[str, Tensor]:
        """Put every process's rows `index` of `columns` in their places: [rows, ...] on every process."""
        pieces: list[tuple[Tensor, dict[str, Tensor]]] = [(index, columns)] * self.count
        dist.all_gather_object(pieces, (index, columns))
        whole: dict[str, Tensor] = {}
        for places, piece in pieces:
            for name, tensor in piece.items():
                if name not in whole:
                    whole[name] = tensor.new_zeros(rows, *tensor.shape[1:])
                whole[name][places] = tensor
        return whole

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up gradients; the loss's coefficients already count the whole update."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def sum(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add up metrics, which are shares of the update's."""
        if self.count > 1:
            for name in sorted(totals):
                totals[name] = totals[name].clone()
                dist.all_reduce(totals[name])
        return totals

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()
