"""metrics.jsonl: one line a step, complete after a kill, continued without doubles."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ascent.training.loop import Loop, System
from ascent.training.program import Phase
from ascent.training.recorder import METRICS, Recorder, read


def loop_at(step: int) -> Loop:
    loop = Loop(System({}, {}, (Phase("train", (), 5),), consumed=lambda: 8 * step))
    loop.step, loop.updates = step, 2 * step
    return loop


def recorded(folder: Path, steps: range, **more: int) -> None:
    recorder = Recorder(folder, tensorboard=False, **more)
    for step in steps:
        recorder.stepped(loop_at(step), {"reward": step / 10})
        recorder.evaluated(loop_at(step), {"pass@1": 0.5})
    recorder.close()


def test_a_line_a_step_and_one_an_evaluation(tmp_path: Path) -> None:
    recorded(tmp_path, range(1, 3))
    lines = read(tmp_path / METRICS)
    assert [(line["step"], line["updates"], line["consumed"]) for line in lines] == [(1, 2, 8)] * 2 + [(2, 4, 16)] * 2
    assert lines[2]["reward"] == 0.2
    assert lines[3]["held_out/pass@1"] == 0.5
    assert all(line["seconds"] >= 0 and line["processor_seconds"] >= 0 for line in lines)


def test_lines_are_there_before_the_file_is_closed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, tensorboard=False)
    recorder.stepped(loop_at(1), {"reward": 1.0})
    assert len(read(tmp_path / METRICS)) == 1
    recorder.close()


def test_a_resumed_run_writes_later_steps_again(tmp_path: Path) -> None:
    recorded(tmp_path, range(1, 5))
    path = tmp_path / METRICS
    earlier = [{**line, "seconds": 50.0, "processor_seconds": 40.0} for line in read(path)]
    path.write_text("".join(json.dumps(line) + "\n" for line in earlier))
    recorded(tmp_path, range(3, 6), since=2)
    lines = read(tmp_path / METRICS)
    assert [line["step"] for line in lines] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for clock, before in (("seconds", 50.0), ("processor_seconds", 40.0)):
        assert all(line[clock] >= before for line in lines[4:]), f"{clock} go on, they do not start anew"


def test_processor_seconds_are_of_this_run_and_not_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 101.5, 103.0])
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    recorded(tmp_path, range(1, 2))
    assert [line["processor_seconds"] for line in read(tmp_path / METRICS)] == [1.5, 3.0]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    recorded(tmp_path, range(1, 3))
    path = tmp_path / METRICS
    path.write_text(path.read_text()[:-10])
    assert len(read(path)) == 3
    recorded(tmp_path, range(3, 4), since=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 1, 2, 3, 3]


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, tensorboard=False)
    recorder.stepped(loop_at(1), {"loss": math.inf, "reward": math.nan})
    recorder.close()
    (line,) = read(tmp_path / METRICS)
    assert line["loss"] == math.inf
    assert math.isnan(line["reward"])


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recorder = Recorder(tmp_path)
    recorder.stepped(loop_at(1), {"reward": 0.25})
    recorder.evaluated(loop_at(1), {"pass@1": 0.5})
    recorder.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward")] == [(1, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("held_out/pass@1")] == [(1, 0.5)]
