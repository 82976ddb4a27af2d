"""Rows of a growing record, which checkpoints write once: each saves what was added since the one before.

A segment is a file of consecutive rows inside the checkpoint's folder. The next checkpoint links the segments that
still matter into its own folder and writes one more, so every folder is complete, a deleted one takes nothing from
another, and a row costs the disk once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Read = Callable[[int, int], Mapping[str, Tensor]]
"""(first, last) -> the columns of rows [first, last)."""


@dataclass(frozen=True)
class Segment:
    """A file that holds rows [first, last), with its digest."""

    file: str
    first: int
    last: int
    digest: str


@dataclass(frozen=True)
class Saved:
    """Where rows are on disk already: segments, in order, in a folder."""

    folder: Path | None = None
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Rows:
    """A leaf of a state: the rows [first, last) that still matter, of a record that only grows.

    Attributes:
        first, last: numbers of rows since the record began.
        read: gives any of them.
        saved: what earlier checkpoints wrote.
        note: is told what is saved once a checkpoint is complete.
    """

    first: int
    last: int
    read: Read
    saved: Saved = Saved()
    note: Callable[[Saved], None] = lambda saved: None


def digest(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def write(rows: Rows, folder: Path, name: str) -> tuple[Segment, ...]:
    """Put all segments of `rows` into `folder`: linked where they are saved already, the rest written as one more."""
    kept = [segment for segment in rows.saved.segments if segment.last > rows.first]
    try:
        for segment in kept:
            assert rows.saved.folder is not None
            _link(rows.saved.folder / segment.file, folder / segment.file)
    except FileNotFoundError:  # the folder was removed: every row is written anew
        for segment in kept:
            (folder / segment.file).unlink(missing_ok=True)
        kept = []
    first = max(kept[-1].last if kept else rows.first, rows.first)
    if first < rows.last:
        path = folder / f"{name}-{first:012d}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in rows.read(first, rows.last).items()}, path)
        sync(path)
        kept.append(Segment(path.name, first, rows.last, digest(path)))
    return tuple(kept)


def read(folder: Path, first: int, last: int, segments: Sequence[Segment]) -> Rows:
    """The rows of a checkpoint's folder.

    Raises:
        ValueError: a segment is absent, altered, or leaves a gap.
    """
    parts: list[dict[str, Tensor]] = []
    reached = first
    for segment in segments:
        path = folder / segment.file
        if not path.is_file() or digest(path) != segment.digest:
            raise ValueError(f"{path} is absent or does not match its digest")
        if segment.first > reached:
            raise ValueError(f"{path} begins at row {segment.first}, and rows from {reached} are needed")
        begin = max(reached - segment.first, 0)
        parts.append({name: tensor[begin:] for name, tensor in load_file(path).items()})
        reached = segment.last
    if reached != last:
        raise ValueError(f"the segments in {folder} end at row {reached}, and the record at {last}")
    columns = {name: torch.cat([part[name] for part in parts]) for name in (parts[0] if parts else ())}

    def cut(start: int, end: int) -> dict[str, Tensor]:
        return {name: tensor[start - first : end - first] for name, tensor in columns.items()}

    return Rows(first, last, cut, Saved(folder, tuple(segments)))


def described(first: int, last: int, segments: Sequence[Segment]) -> dict[str, Any]:
    """Plain values for a checkpoint's JSON; `restored` reads them."""
    return {"first": first, "last": last, "segments": [[s.file, s.first, s.last, s.digest] for s in segments]}


def restored(folder: Path, values: Mapping[str, Any]) -> Rows:
    """The inverse of `described`, with the rows of `folder`."""
    return read(folder, values["first"], values["last"], [Segment(*fields) for fields in values["segments"]])


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(source: Path, target: Path) -> None:
    """A second name of the same file, or a copy where the file system has no such names."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
        sync(target)
