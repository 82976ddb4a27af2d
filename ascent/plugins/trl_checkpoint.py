"""What `AscentTrainer` adds to TRL's checkpoints: the state of a method's parts, and a half-used generation.

`ascent.json` holds counters, `ascent.safetensors` the state and the credited rows, `ascent_buffer_<rank>.safetensors`
each process's micro-batches. Nothing is pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.part import MethodState
from ascent.plugins.trl_rows import Kept

COUNTS, STATE = "ascent.json", "ascent.safetensors"


def plain(buffered: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Tensor]] | None:
    """The micro-batches where they hold tensors only; None where there are none, or images' rows among them.

    Without them a resumed run generates anew, as TRL does.
    """
    if not buffered or not all(isinstance(column, Tensor) for part in buffered for column in part.values()):
        return None
    return list(buffered)


def write(folder: Path, counts: Mapping[str, Any], state: MethodState, kept: Kept) -> None:
    """State, counters, and the collections of the coming updates."""
    tensors = {f"state/{path}/{name}": x for path, part in state.parts.items() for name, x in part.items()}
    for first, rows in kept.parts:
        tensors |= {f"rows/{first}/{name}": column for name, column in rows.to_tensors().items()}
    _save(tensors, folder / STATE)
    (folder / COUNTS).write_text(json.dumps(dict(counts), indent=2))


def read(folder: Path, method: Method, device: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]], Kept]:
    """Counters, the state of each part, and the collections.

    Raises:
        ValueError: the checkpoint is of another trainer or method.
    """
    if not (folder / COUNTS).exists():
        raise ValueError(
            f"{folder} was not saved by AscentTrainer: it has no {COUNTS}. Resume it with its own trainer."
        )
    counts = json.loads((folder / COUNTS).read_text())
    if counts["method"] != method.slug:
        raise ValueError(f"{folder} was saved by method {counts['method']!r}, and this trainer has {method.slug!r}.")
    parts: dict[str, dict[str, Tensor]] = {path: {} for path in method.parts}
    rows: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / STATE, device=device).items():
        room, place, column = name.split("/", 2)
        if room == "state":
            parts[place][column] = tensor
        else:
            rows.setdefault(int(place), {})[column] = tensor
    kept = Kept()
    for first in sorted(rows):
        kept.add(first, Decisions.from_tensors(rows[first]))
    return counts, parts, kept


def write_buffer(folder: Path, rank: int, parts: Sequence[Mapping[str, Tensor]]) -> None:
    """The micro-batches of one process."""
    tensors = {f"{place}/{name}": column for place, part in enumerate(parts) for name, column in part.items()}
    _save(tensors, folder / _buffer(rank))


def read_buffer(folder: Path, rank: int, count: int, device: str) -> list[dict[str, Tensor]] | None:
    """The inverse of `write_buffer`; None where nothing was half used."""
    if not (folder / _buffer(rank)).exists():
        return None
    parts: list[dict[str, Tensor]] = [{} for _ in range(count)]
    for name, tensor in load_file(folder / _buffer(rank), device=device).items():
        place, column = name.split("/", 1)
        parts[int(place)][column] = tensor
    return parts


def _buffer(rank: int) -> str:
    return f"ascent_buffer_{rank}.safetensors"


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
