"""Checkpoints: a folder with one safetensors file and one JSON file, written aside and renamed.

The JSON holds the tree of the state with `{"$tensor": name}` in place of tensors (`{"$device": name}` where they were
on a GPU, so that they return to the one of the resumed run), and a digest of the tensor file, so that a torn or
altered checkpoint is found out before it is used. Nothing is unpickled. Rows of a growing record (`rows.py`) stand in
files of their own, of which a checkpoint writes only what was added since the one before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ascent.training import rows
from ascent.training.rows import Rows, Saved
from ascent.training.rows import digest as _digest
from ascent.training.rows import sync as _sync

CPU = torch.device("cpu")
TENSORS, TREE = "tensors.safetensors", "state.json"
_NAME = re.compile(r"(\.old-)?update-(\d{9})")


class CorruptCheckpoint(ValueError):
    """A checkpoint cannot be read back."""


class SaveFailed(OSError):
    """A checkpoint could not be written; the earlier ones are untouched."""


def _strip(
    tree: Any, path: str, tensors: dict[str, Tensor], seen: dict[tuple[int, ...], str], grown: dict[str, Rows]
) -> Any:
    if isinstance(tree, Rows):
        grown[path] = tree
        return {"$rows": path}
    if isinstance(tree, Tensor):
        mark = "$tensor" if tree.device.type == "cpu" else "$device"
        identity = (tree.data_ptr(), *tree.shape, *tree.stride())
        if tree.numel() and identity in seen and tensors[seen[identity]].dtype == tree.dtype:
            return {mark: seen[identity]}
        seen[identity] = path
        tensors[path] = tree.detach().cpu().contiguous()
        return {mark: path}
    if isinstance(tree, Mapping):
        return {str(name): _strip(item, f"{path}/{name}", tensors, seen, grown) for name, item in tree.items()}
    if isinstance(tree, list | tuple):
        return [_strip(item, f"{path}/{place}", tensors, seen, grown) for place, item in enumerate(tree)]
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(f"state at {path} must be tensors, numbers, strings, lists or mappings; got {type(tree).__name__}.")


def _fill(tree: Any, tensors: Mapping[str, Tensor], grown: Mapping[str, Rows], device: torch.device) -> Any:
    if isinstance(tree, dict):
        if set(tree) == {"$tensor"}:
            return tensors[tree["$tensor"]]
        if set(tree) == {"$device"}:
            return tensors[tree["$device"]].to(device)
        if set(tree) == {"$rows"}:
            return grown[tree["$rows"]]
        return {name: _fill(item, tensors, grown, device) for name, item in tree.items()}
    return [_fill(item, tensors, grown, device) for item in tree] if isinstance(tree, list) else tree


def save(folder: Path, update: int, state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `folder/update-<update>` atomically and remove all but the newest `keep`.

    Raises:
        SaveFailed: the disk is full or not writable; nothing that existed is lost.
    """
    final = folder / f"update-{update:09d}"
    aside = folder / f".writing-{update:09d}-{os.getpid()}"
    replaced = folder / f".old-{final.name}"
    try:
        for torn in folder.glob(".writing-*"):  # of a process that was killed while it wrote
            shutil.rmtree(torn, ignore_errors=True)
        aside.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        grown: dict[str, Rows] = {}
        tree = _strip(state, "state", tensors, {}, grown)
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, aside / TENSORS)
        written = {path: rows.write(record, aside, f"rows{n}") for n, (path, record) in enumerate(grown.items())}
        lists = {path: rows.described(grown[path].first, grown[path].last, found) for path, found in written.items()}
        content = {"update": update, "digest": _digest(aside / TENSORS), "tree": tree, "rows": lists}
        (aside / TREE).write_text(json.dumps(content))
        for path in (aside / TENSORS, aside / TREE, aside):
            _sync(path)
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        aside.rename(final)
        _sync(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
        raise SaveFailed(
            f"checkpoint {final} could not be written ({error}); {free / 2**20:.0f} MiB are free there. "
            "Earlier checkpoints are untouched: free some space or choose another run folder."
        ) from error
    for place, found in written.items():
        grown[place].note(Saved(final, found))
    for old in available(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def available(folder: Path) -> list[Path]:
    """Finished checkpoints, newest first; one that was about to be replaced comes after its replacement."""
    found = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("*update-*")]
    named = [(int(name[2]), name[1] is None, path) for path, name in found if name is not None]
    return [path for *_, path in sorted(named, reverse=True)]


def load(path: Path, device: torch.device = CPU) -> dict[str, Any]:
    """The state of one checkpoint; what was on a GPU goes to `device`.

    Raises:
        CorruptCheckpoint: which says what is wrong with it.
    """
    try:
        content = json.loads((path / TREE).read_text())
        if _digest(path / TENSORS) != content["digest"]:
            raise CorruptCheckpoint(f"{path / TENSORS} does not match its digest")
        grown = {place: rows.restored(path, values) for place, values in content.get("rows", {}).items()}
        state: dict[str, Any] = _fill(content["tree"], load_file(path / TENSORS), grown, device)
        return state
    except CorruptCheckpoint:
        raise
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as error:
        raise CorruptCheckpoint(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def newest(folder: Path, say: Callable[[str], None], device: torch.device = CPU) -> tuple[Path, dict[str, Any]]:
    """The newest readable checkpoint and its state; `say` hears of each one that was passed over.

    Raises:
        CorruptCheckpoint: none is readable.
    """
    candidates = available(folder)
    if not candidates:
        raise CorruptCheckpoint(f"{folder} holds no checkpoint; remove the run folder and run `ascent train` again.")
    for path in candidates:
        try:
            return path, load(path, device)
        except CorruptCheckpoint as error:
            say(f"checkpoint passed over: {error}; falling back to the one before it")
    raise CorruptCheckpoint(f"none of the {len(candidates)} checkpoints in {folder} is readable.")
