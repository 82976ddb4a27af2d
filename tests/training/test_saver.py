"""When checkpoints are written, what a full disk does, and how an interruption ends a run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ascent.training import checkpoint
from ascent.training.loop import Loop, System
from ascent.training.saver import Interrupted, Saver


class Ticks:
    """A stage of two updates a round that counts itself."""

    name = "ticks"

    def __init__(self, at: dict[int, object] | None = None) -> None:
        self.done, self.at = 0, dict(at or {})

    def run(self, loop: Loop, round_: int) -> None:
        for _ in range(2):
            self.done += 1
            if self.done in self.at:
                self.at[self.done]()
            loop.updated()

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done = state["done"]


def looped(saver: Saver, at: dict[int, object] | None = None, rounds: int = 3) -> Loop:
    from ascent.training.program import Phase

    return Loop(System({}, {}, (Phase("train", (Ticks(at),), rounds),)), [saver])


def names(folder: Path) -> list[int]:
    return [int(path.name.split("-")[1]) for path in checkpoint.available(folder)]


@pytest.mark.parametrize(("every", "expected"), [(1, [6, 5, 4, 3, 2, 1]), (2, [6, 4, 2]), (4, [4]), (0, [])])
def test_it_saves_every_so_many_updates(tmp_path: Path, every: int, expected: list[int]) -> None:
    looped(Saver(tmp_path, every, 10, pytest.fail)).run()
    assert names(tmp_path) == expected


def test_a_full_disk_is_a_warning_on_the_way_and_an_error_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    saver = Saver(tmp_path, 1, 10, said.append)
    written = checkpoint.save_file

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    at = {
        3: lambda: monkeypatch.setattr(checkpoint, "save_file", full),
        5: lambda: monkeypatch.setattr(checkpoint, "save_file", written),
    }
    loop = looped(saver, at)
    loop.run()
    assert loop.updates == 6, "the run goes on"
    assert names(tmp_path) == [6, 5, 2, 1]
    assert len(said) == 2
    assert all("warning" in text and "No space left" in text for text in said)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(checkpoint.SaveFailed):
        saver.save(loop)
    assert names(tmp_path) == [6, 5, 2, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_after_the_update_in_progress(tmp_path: Path, number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with Saver(tmp_path, 0, 10, said.append) as saver:
        loop = looped(saver, {3: lambda: os.kill(os.getpid(), number)})
        with pytest.raises(Interrupted):
            loop.run()
    assert names(tmp_path) == [3]
    assert "stopping after this update" in said[0]
    assert signal.getsignal(number) is before, "handlers are put back"
    resumed = looped(Saver(tmp_path, 0, 10, pytest.fail))
    resumed.load_state_dict(checkpoint.newest(tmp_path, pytest.fail)[1])
    resumed.run()
    assert resumed.updates == 7, "the stage of this test knows no middle: its round is done again"


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with Saver(tmp_path, 0, 10, lambda text: None) as saver, pytest.raises(KeyboardInterrupt) as caught:
        looped(saver, {3: twice}).run()
    assert not isinstance(caught.value, Interrupted)
    assert names(tmp_path) == []


def test_an_interruption_with_a_full_disk_says_that_nothing_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with Saver(tmp_path, 0, 10, lambda text: None) as saver, pytest.raises(checkpoint.SaveFailed):
        looped(saver, {1: lambda: os.kill(os.getpid(), signal.SIGINT)}).run()
