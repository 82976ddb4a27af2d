"""Checkpoints of a growing record: each writes what was added, every folder is complete, nothing is lost on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.training import checkpoint, rows
from ascent.training.memory import Every, Replay, Shared


def put(memory: Replay, first: int, count: int) -> None:
    reward = torch.arange(first, first + count, dtype=torch.float32)[None]
    memory.put(Decisions(mask=torch.ones_like(reward, dtype=torch.bool), reward=reward))


def saved(folder: Path, update: int, memory: Replay, keep: int = 2) -> Path:
    return checkpoint.save(folder, update, {"replay": memory.state_dict()}, keep)


def loaded(path: Path, capacity: int) -> Replay:
    memory = Replay(capacity, 4, 0)
    memory.load_state_dict(checkpoint.load(path)["replay"])
    return memory


def content(memory: Replay) -> list[float]:
    state = memory.state_dict()["rows"]
    return state.read(state.first, state.last)["column/reward"].flatten().tolist() if state.last else []


def segments(path: Path) -> dict[str, int]:
    """Rows in each file."""
    return {file.name: len(rows.load_file(file)["column/mask"]) for file in sorted(path.glob("rows*"))}


def test_a_checkpoint_writes_only_what_was_added(tmp_path: Path) -> None:
    memory = Replay(1000, 4, 0)
    put(memory, 0, 300)
    first = saved(tmp_path, 1, memory)
    put(memory, 300, 5)
    second = saved(tmp_path, 2, memory)
    assert list(segments(second).values()) == [300, 5]
    old = next(iter(segments(first)))
    assert (first / old).samefile(second / old), "what stands already is linked, not written"
    unchanged = saved(tmp_path, 3, memory)
    assert segments(unchanged) == segments(second)
    assert content(loaded(unchanged, 1000)) == [float(n) for n in range(305)]


def test_a_folder_is_complete_when_those_before_it_are_gone(tmp_path: Path) -> None:
    memory = Replay(100, 4, 0)
    for update in range(6):
        put(memory, 10 * update, 10)
        saved(tmp_path, update, memory, keep=1)
    assert [path.name for path in checkpoint.available(tmp_path)] == ["update-000000005"]
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "update-000000005", moved)
    assert content(loaded(moved, 100)) == [float(n) for n in range(60)]


def test_rows_that_left_the_ring_leave_the_disk(tmp_path: Path) -> None:
    memory = Replay(25, 4, 0)
    for update in range(12):
        put(memory, 10 * update, 10)
        path = saved(tmp_path, update, memory)
        kept = list(range(max(0, 10 * (update + 1) - 25), 10 * (update + 1)))
        assert content(loaded(path, 25)) == [float(n) for n in kept] == content(memory)
        assert sum(segments(path).values()) <= 25 + 10


def test_a_restored_memory_goes_on_as_the_one_that_was_saved(tmp_path: Path) -> None:
    memory = Replay(25, 4, 3)
    put(memory, 0, 33)
    again = loaded(saved(tmp_path, 1, memory), 25)
    again.seed = 3
    for each in (memory, again):
        put(each, 33, 4)
    assert torch.equal(memory.draw(7).reward, again.draw(7).reward)
    path = saved(tmp_path, 2, again)
    assert list(segments(path).values()) == [25, 4], "it knows what is on the disk"
    assert content(loaded(path, 25)) == content(memory)


def test_an_earlier_checkpoint_stays_true_when_the_record_went_on_differently(tmp_path: Path) -> None:
    """Resumed from the first, the rows after it are other ones: no file of the second is taken for them."""
    memory = Replay(100, 4, 0)
    put(memory, 0, 10)
    first = saved(tmp_path, 1, memory)
    put(memory, 10, 10)
    second = saved(tmp_path, 2, memory)
    other = loaded(first, 100)
    put(other, 500, 10)
    third = saved(tmp_path, 3, other, keep=3)
    assert content(loaded(second, 100)) == [float(n) for n in range(20)]
    assert content(loaded(third, 100)) == [float(n) for n in (*range(10), *range(500, 510))]


def test_everything_is_written_anew_when_the_earlier_folder_was_removed(tmp_path: Path) -> None:
    memory = Replay(100, 4, 0)
    put(memory, 0, 10)
    shutil.rmtree(saved(tmp_path, 1, memory))
    put(memory, 10, 5)
    path = saved(tmp_path, 2, memory)
    assert list(segments(path).values()) == [15]
    assert content(loaded(path, 100)) == [float(n) for n in range(15)]


@pytest.mark.parametrize("when", ["write", "save_file"])
def test_a_crash_while_writing_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    memory = Replay(100, 4, 0)
    put(memory, 0, 10)
    first = saved(tmp_path, 1, memory)
    put(memory, 10, 5)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rows, when, crash)
        with pytest.raises(KeyboardInterrupt):
            saved(tmp_path, 2, memory)
    assert checkpoint.available(tmp_path) == [first]
    assert content(loaded(first, 100)) == [float(n) for n in range(10)]
    assert content(loaded(saved(tmp_path, 2, memory), 100)) == [float(n) for n in range(15)]
    assert not list(tmp_path.glob(".writing-*"))


def test_without_links_segments_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(rows.os, "link", refuse)
    memory = Replay(100, 4, 0)
    put(memory, 0, 10)
    saved(tmp_path, 1, memory, keep=1)
    put(memory, 10, 5)
    path = saved(tmp_path, 2, memory, keep=1)
    assert list(segments(path).values()) == [10, 5]
    assert content(loaded(path, 100)) == [float(n) for n in range(15)]


@pytest.mark.parametrize("harm", ["altered", "absent"])
def test_a_harmed_segment_is_found_out(tmp_path: Path, harm: str) -> None:
    memory = Replay(100, 4, 0)
    put(memory, 0, 10)
    path = saved(tmp_path, 1, memory)
    file = next(path.glob("rows*"))
    if harm == "altered":
        harmed = bytearray(file.read_bytes())
        harmed[-1] ^= 1
        file.write_bytes(bytes(harmed))
    else:
        file.unlink()
    with pytest.raises(checkpoint.CorruptCheckpoint, match="digest"):
        checkpoint.load(path)


def test_the_ring_takes_memory_as_it_fills() -> None:
    memory = Replay(10**9, 4, 0)
    put(memory, 0, 3000)
    assert 3000 <= len(memory.ring["column/mask"]) < 10_000
    put(memory, 3000, 3000)
    assert content(memory) == [float(n) for n in range(6000)]


def test_a_shared_draw_is_annotated_once_and_its_notes_travel() -> None:
    memory = Replay(100, 4, 0)
    put(memory, 0, 50)
    calls = []

    def annotate(drawn: Decisions, round_: int) -> Decisions:
        calls.append(round_)
        return drawn.with_extras({"seen": drawn.reward + round_})

    shared = Shared(memory, annotate)
    with pytest.raises(RuntimeError, match="nothing is drawn"):
        shared.note({})
    first = shared.draw(3)
    assert torch.equal(first.column("seen"), first.reward + 3) and torch.equal(first.reward, memory.draw(3).reward)
    shared.note({"told": first.reward * 2})
    assert torch.equal(shared.draw(3).column("told"), first.reward * 2)
    assert calls == [3]
    again = Shared(memory, annotate)
    again.load_state_dict(shared.state_dict())
    assert torch.equal(again.draw(3).column("told"), first.reward * 2)
    assert "told" not in again.draw(4) and "told" not in again.draw(5)


def test_a_stage_of_every_third_round_draws_what_the_others_draw_then() -> None:
    memory = Replay(100, 4, 0)
    put(memory, 0, 50)
    assert torch.equal(Every(memory, 3).draw(0).reward, memory.draw(2).reward)
    assert torch.equal(Every(memory, 3).draw(4).reward, memory.draw(14).reward)
