"""Numbers that move with the run: by step, by progress, at once."""

from __future__ import annotations

import pytest

from ascent.core.part import Clock
from ascent.core.plan import Falling, Linear, Ramp, Switch, at


def test_every_schedule() -> None:
    clocks = [Clock(step, step / 10) for step in (0, 4, 5, 10)]
    assert [at(0.3, clock) for clock in clocks] == [0.3] * 4
    assert [at(Linear(1.0, 0.0), clock) for clock in clocks] == pytest.approx([1.0, 0.6, 0.5, 0.0])
    assert [at(Falling(1.0, 0.15, 0.2), clock) for clock in clocks] == pytest.approx([1.0, 0.4, 0.25, 0.2])
    assert [at(Switch(2.0, 3.0), clock) for clock in clocks] == [2.0, 2.0, 3.0, 3.0]


def test_a_ramp_waits_moves_and_stays() -> None:
    clocks = [Clock(0, progress) for progress in (0.0, 0.4, 0.5, 0.6, 0.7, 1.0)]
    assert [at(Ramp(1.0, 0.0, 0.4, 0.7), clock) for clock in clocks] == pytest.approx([1, 1, 2 / 3, 1 / 3, 0, 0])
    assert [at(Ramp(1.0, 0.0, 0.4, 0.7, 2), clock) for clock in clocks] == [1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    for wrong in ({"since": 0.7, "until": 0.7}, {"until": 1.1}, {"stairs": 0}):
        with pytest.raises(ValueError, match="must be"):
            Ramp(1.0, 0.0, **wrong)  # type: ignore[arg-type]
