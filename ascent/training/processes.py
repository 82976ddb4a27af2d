"""Several processes as one: every process holds the whole collection and works on its share of each update.

`torchrun --nproc-per-node 2 -m ascent.cli train ...` starts them, or `accelerate launch --multi_gpu
--num_processes 2 -m ascent.cli train ...`, which is torchrun too and needs no GPU here (`--cpu` would start one).
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ascent.core.decisions import Decisions, concatenate

Object = TypeVar("Object")


class Processes:
    """The processes of one run: Accelerate's, or this one alone."""

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        self.device = torch.device("cpu")

    @classmethod
    def launched(cls, device: str = "cpu") -> Processes:
        """Join the processes that a launcher started. Alone otherwise.

        Args:
            device: where models live; "cpu" joins by gloo, "cuda" by nccl, one GPU a process; "cuda:1" is for one
                process alone.
        """
        from accelerate import PartialState

        wanted = torch.device(device)
        state = PartialState(cpu=wanted.type == "cpu")
        joined = cls()
        joined.rank, joined.count = state.process_index, state.num_processes
        if joined.count > 1 and wanted.index is not None:
            raise ValueError(f"device {device!r} is one device for {joined.count} processes; take {wanted.type!r}.")
        if wanted.type != "cpu":
            joined.device = state.device if wanted.index is None else wanted
            torch.cuda.set_device(joined.device)
        if joined.count > 1:
            atexit.register(_leave)
        return joined

    @property
    def main(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def everyone(self, thing: Object) -> list[Object]:
        """What each process gives, in order of rank, on every process; its tensors are on this one's device."""
        things: list[Object] = [thing] * self.count
        if self.count > 1:
            # Through the CPU: a tensor names its device by number, which is another one in another process.
            dist.all_gather_object(things, _moved(thing, torch.device("cpu")))
        return [_moved(each, self.device) for each in things] if self.count > 1 else things

    def anyone(self, flag: bool) -> bool:
        """Whether any process says so: the same answer on every process."""
        return any(self.everyone(flag))

    def gather(self, part: Decisions) -> Decisions:
        """The rows of all processes, equal on every process and in the order that one process would give them."""
        if self.count == 1:
            return part
        whole = concatenate([Decisions.from_tensors(flat) for flat in self.everyone(part.to_tensors())])
        # Prompts are dealt round robin, environments in blocks: groups tell the order of the former.
        grouped = "group" in whole and whole.group.dim() == 1
        return whole.rows(torch.argsort(whole.group, stable=True)) if grouped else whole

    def gather_rows(self, columns: dict[str, Tensor], index: Tensor, rows: int) -> dict[str, Tensor]:
        """Put every process's rows `index` of `columns` in their places: [rows, ...] on every process."""
        whole: dict[str, Tensor] = {}
        for places, piece in self.everyone((index, columns)):
            for name, tensor in piece.items():
                if name not in whole:
                    whole[name] = tensor.new_zeros(rows, *tensor.shape[1:])
                whole[name][places] = tensor
        return whole

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up gradients; the loss's coefficients already count the whole update."""
        if self.count == 1:
            return
        moved = [parameter for parameter in parameters if parameter.requires_grad]
        # A parameter without gradient on every process has none: an optimiser leaves it alone.
        used = [any(flags) for flags in zip(*self.everyone([x.grad is not None for x in moved]), strict=True)]
        for parameter in (parameter for parameter, some in zip(moved, used, strict=True) if some):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def sum(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add up metrics, which are shares of the update's. A process without rows brings none."""
        if self.count == 1:
            return totals
        whole: dict[str, Tensor] = {}
        for part in self.everyone({name: metric.detach() for name, metric in totals.items()}):
            for name, metric in part.items():
                whole[name] = whole[name] + metric if name in whole else metric
        return whole

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


def _moved(thing: Any, device: torch.device) -> Any:
    """The same lists, tuples and mappings with their tensors on a device."""
    if isinstance(thing, Tensor):
        return thing.to(device)
    if isinstance(thing, dict):
        return {name: _moved(item, device) for name, item in thing.items()}
    return type(thing)(_moved(item, device) for item in thing) if type(thing) in (list, tuple) else thing


def _leave() -> None:
    """Close the connections before the interpreter goes: what still listens then may abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()
