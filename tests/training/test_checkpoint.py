"""Checkpoints come back exactly, are written atomically, and are found out when torn."""

from __future__ import annotations

import errno
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascent.training import checkpoint
from ascent.training.checkpoint import CorruptCheckpoint, SaveFailed

leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def same(first: object, second: object) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return list(first) == list(second) and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first):
        return math.isnan(second)
    return type(first) is type(second) and first == second


@given(tree=trees)
@settings(deadline=None, max_examples=60)
def test_numbers_texts_and_their_nesting_come_back(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    folder = tmp_path_factory.mktemp("run")
    assert same(checkpoint.load(checkpoint.save(folder, 0, {"tree": tree}))["tree"], tree)


@pytest.mark.parametrize("number", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3)])
def test_tensors_come_back_bit_for_bit(tmp_path: Path, number: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(number)
    back = checkpoint.load(checkpoint.save(tmp_path, 0, {"x": [tensor]}))["x"][0]
    assert back.dtype == number
    assert back.shape == shape
    assert torch.equal(back, tensor)


def test_tied_views_and_transposed_tensors(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    state = {
        "embedding": weight,
        "head": weight,
        "transposed": weight.T,
        "part": weight[0],
        "as int": weight.view(torch.int32),
        "parameter": torch.nn.Parameter(weight.clone()),
        "not finite": torch.tensor([math.nan, math.inf, -math.inf]),
    }
    path = checkpoint.save(tmp_path, 0, state)
    back = checkpoint.load(path)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.allclose(back[name], tensor.detach(), equal_nan=True)
    content = json.loads((path / checkpoint.TREE).read_text())["tree"]
    assert content["head"] == content["embedding"], "a tied tensor is written once"


def test_what_cannot_be_saved_is_named_by_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state/model/1 must be tensors.*got set"):
        checkpoint.save(tmp_path, 0, {"model": [1, {2}]})
    assert checkpoint.available(tmp_path) == []


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for update in range(5):
        checkpoint.save(tmp_path, update, {"x": update}, keep=3)
    assert [path.name for path in checkpoint.available(tmp_path)] == [f"update-{n:09d}" for n in (4, 3, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"update-{n:09d}" for n in (2, 3, 4)]


def test_a_checkpoint_of_the_same_update_replaces_the_former(tmp_path: Path) -> None:
    for content in ("first", "second"):
        checkpoint.save(tmp_path, 7, {"x": content}, keep=1)
    assert checkpoint.load(checkpoint.available(tmp_path)[0])["x"] == "second"
    assert len(list(tmp_path.iterdir())) == 1


class Crash(BaseException):
    """The process ends here."""


def crash(*_: object, **__: object) -> None:
    raise Crash


@pytest.mark.parametrize("when", ["save_file", "_digest", "_sync"])
def test_a_crash_while_writing_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)}, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, when, crash)
        with pytest.raises(Crash):
            checkpoint.save(tmp_path, 2, {"x": torch.zeros(3)}, keep=1)
    path, state = checkpoint.newest(tmp_path, pytest.fail)
    assert path.name == "update-000000001"
    assert torch.equal(state["x"], torch.ones(3))
    checkpoint.save(tmp_path, 3, {"x": 3}, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["update-000000003"], "what the crash left is cleared away"


def test_a_crash_between_write_and_rename_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the only checkpoint is about to be replaced by one of the same update."""
    checkpoint.save(tmp_path, 1, {"x": "old"}, keep=1)
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        if path.name.startswith(".writing"):
            raise Crash
        return rename(path, target)

    for update in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", renamed)
            with pytest.raises(Crash):
                checkpoint.save(tmp_path, update, {"x": "new"}, keep=1)
        assert checkpoint.newest(tmp_path, pytest.fail)[1]["x"] == "old"
    checkpoint.save(tmp_path, 3, {"x": "newest"}, keep=1)
    assert checkpoint.newest(tmp_path, pytest.fail)[1]["x"] == "newest"


@pytest.mark.parametrize("where", ["save_file", "write_text", "rename"])
def test_a_full_disk_leaves_the_old_one_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint, "save_file") if where == "save_file" else (Path, where)), full)
        with pytest.raises(SaveFailed, match=r"No space left.*MiB are free there.*free some space"):
            checkpoint.save(tmp_path, 2, {"x": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["update-000000001"]
    assert torch.equal(checkpoint.newest(tmp_path, pytest.fail)[1]["x"], torch.ones(3))


def flipped(path: Path) -> None:
    content = bytearray((path / checkpoint.TENSORS).read_bytes())
    content[-1] ^= 1
    (path / checkpoint.TENSORS).write_bytes(bytes(content))


def shortened(path: Path) -> None:
    content = (path / checkpoint.TREE).read_text()
    (path / checkpoint.TREE).write_text(content[: len(content) // 2])


BREAKS = {
    "a flipped bit": flipped,
    "half a tree": shortened,
    "an empty tree": lambda path: (path / checkpoint.TREE).write_text("{}"),
    "another kind of tree": lambda path: (path / checkpoint.TREE).write_text("[1]"),
    "bytes": lambda path: (path / checkpoint.TREE).write_bytes(b"\xff\xfe\x00"),
    "no tensors": lambda path: (path / checkpoint.TENSORS).unlink(),
    "nothing": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_torn_checkpoint_is_passed_over_with_a_word(tmp_path: Path, name: str) -> None:
    for update in (1, 2):
        checkpoint.save(tmp_path, update, {"x": torch.full((3,), update)})
    BREAKS[name](tmp_path / "update-000000002")
    said: list[str] = []
    path, state = checkpoint.newest(tmp_path, said.append)
    assert path.name == "update-000000001"
    assert state["x"].tolist() == [1, 1, 1]
    assert len(said) == 1
    assert "update-000000002" in said[0]
    assert "falling back" in said[0]


def test_without_a_readable_checkpoint_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match="holds no checkpoint"):
        checkpoint.newest(tmp_path / "nowhere", pytest.fail)
    flipped(checkpoint.save(tmp_path, 1, {"x": torch.ones(2)}))
    with pytest.raises(CorruptCheckpoint, match="none of the 1 checkpoints"):
        checkpoint.newest(tmp_path, lambda text: None)
    shutil.rmtree(tmp_path / "update-000000001")


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"x": torch.ones(2)})
    assert {file.suffix for file in path.iterdir()} == {".json", ".safetensors"}
