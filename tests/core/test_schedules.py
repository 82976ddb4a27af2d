"""Numbers that move with the run: by step, by progress, at once."""

from __future__ import annotations

import pytest

from ascent.core.part import Clock
from ascent.core.plan import Falling, Linear, Switch, at


def test_every_schedule() -> None:
    clocks = [Clock(step, step / 10) for step in (0, 4, 5, 10)]
    assert [at(0.3, clock) for clock in clocks] == [0.3] * 4
    assert [at(Linear(1.0, 0.0), clock) for clock in clocks] == pytest.approx([1.0, 0.6, 0.5, 0.0])
    assert [at(Falling(1.0, 0.15, 0.2), clock) for clock in clocks] == pytest.approx([1.0, 0.4, 0.25, 0.2])
    assert [at(Switch(2.0, 3.0), clock) for clock in clocks] == [2.0, 2.0, 3.0, 3.0]
