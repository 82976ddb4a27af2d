"""Plans and schedules."""

from __future__ import annotations

import pytest

from ascent.core.part import Clock
from ascent.core.plan import Linear, Plan, at


def test_linear_follows_the_progress_and_stays_inside() -> None:
    schedule = Linear(3e-4, 1e-4)
    assert [at(schedule, Clock(progress=progress)) for progress in (-1.0, 0.0, 0.5, 1.0, 7.0)] == pytest.approx(
        [3e-4, 3e-4, 2e-4, 1e-4, 1e-4]
    )
    assert at(0.3, Clock(progress=0.5)) == 0.3


@pytest.mark.parametrize("name", ["passes", "minibatches"])
@pytest.mark.parametrize("number", [0, -1, 1.5])
def test_plans_need_whole_numbers(name: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1; got {number}"):
        Plan(**{name: number})
