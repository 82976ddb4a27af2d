"""An interval is read the same way in every verdict."""

from __future__ import annotations

import pytest

from ascent.evaluation.verdict import judged, shown


def test_a_number_is_shown_with_its_interval() -> None:
    assert shown({"mean": 0.12345, "low": -0.1, "high": 2.0}) == "0.123 [-0.100, 2.000]"
    assert shown({"mean": 1.0, "low": 0.5, "high": 1.5}, 1) == "1.0 [0.5, 1.5]"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.3, "confirmed"), (-0.3, -0.1, "refuted"), (-0.1, 0.1, "not confirmed at this scale")],
)
def test_only_an_interval_on_one_side_decides(low: float, high: float, said: str) -> None:
    assert judged(low > 0, high < 0) == said
