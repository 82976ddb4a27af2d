"""What the loop reports, when it evaluates, and that a restored one goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from ascent.training.loop import Loop, System
from ascent.training.processes import Processes
from ascent.training.program import Phase


class Stage:
    """Two updates a round, each with a metric."""

    name = "stage"

    def run(self, loop: Loop, round_: int) -> None:
        for number in range(2):
            loop.record({"metric": torch.tensor(10.0 * round_ + number)})
            loop.updated()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Watch:
    def __init__(self, end_at: int = -1) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.end_at = end_at

    def updated(self, loop: Loop) -> None:
        if loop.updates == self.end_at:
            raise KeyboardInterrupt

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        self.seen.append(("step", loop.step, dict(metrics)))

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        self.seen.append(("held out", loop.step, dict(scores)))


def loop(watch: Watch, every: int = 0, rounds: int = 3, processes: Processes | None = None) -> Loop:
    phases = (Phase("first", (Stage(),), 1), Phase("second", (Stage(),), rounds - 1))
    return Loop(System({}, {}, phases, lambda step: {"score": float(step)}), [watch], processes, every)


def test_a_step_reports_the_mean_of_its_metrics() -> None:
    watch = Watch()
    loop(watch).run()
    assert watch.seen == [
        ("step", 1, {"metric": 0.5}),
        ("step", 2, {"metric": 0.5}),
        ("step", 3, {"metric": 10.5}),
    ]


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [0, 1, 2, 3]), (2, [0, 2, 3]), (5, [0, 3])])
def test_it_evaluates_before_the_first_and_after_the_last(every: int, steps: list[int]) -> None:
    watch = Watch()
    loop(watch, every).run()
    assert [step for kind, step, _ in watch.seen if kind == "held out"] == steps


def test_only_the_main_process_evaluates() -> None:
    watch, other = Watch(), Processes()
    other.rank = 1
    loop(watch, 1, processes=other).run()
    assert all(kind == "step" for kind, *_ in watch.seen)


@pytest.mark.parametrize("end_at", range(1, 7))
def test_a_restored_loop_reports_what_is_left_and_evaluates_no_step_twice(end_at: int) -> None:
    straight, before, after = Watch(), Watch(end_at), Watch()
    loop(straight, 1).run()
    first = loop(before, 1)
    # A checkpoint belongs to an update, and a stage of this test knows no middle: only whole rounds resume.
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = loop(after, 1)
    second.load_state_dict(first.state_dict())
    second.run()
    counted = [(kind, step) for kind, step, _ in straight.seen]
    assert [(kind, step) for kind, step, _ in before.seen + after.seen] == counted


def test_metrics_of_an_unfinished_step_travel() -> None:
    watch = Watch(4)
    first = loop(watch)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert first.state_dict()["recorded"] == {"metric": [0.0, 1.0]}
    second = loop(Watch())
    second.load_state_dict(first.state_dict())
    assert [float(x) for x in second.recorded["metric"]] == [0.0, 1.0]
    assert (second.step, second.updates) == (1, 4)


def test_progress_is_the_share_of_rounds() -> None:
    shares: list[float] = []

    class Share(Watch):
        def updated(self, loop: Loop) -> None:
            shares.append(loop.progress)

    loop(Share()).run()
    assert shares == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert Loop(System({}, {}, ())).progress == 0
