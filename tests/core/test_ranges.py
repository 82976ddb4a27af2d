"""Checks of parameters: what passes, what does not, and what the error says."""

from __future__ import annotations

import math

import pytest

from ascent.core.plan import Linear
from ascent.core.ranges import one_of, whole, within


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", [0, 1, 0.5], [-1e-9, 1.0 + 1e-9]),
        ("(0, 1)", [1e-9, 0.5], [0, 1.0]),
        ("[0, inf)", [0, 1e300], [math.inf, -1]),
        ("(0, inf]", [math.inf, 1], [0.0, -math.inf]),
    ],
)
def test_brackets_close_and_open_an_interval(interval: str, inside: list[float], outside: list[float]) -> None:
    for value in inside:
        within("beta", value, interval, "Use less")
    for value in [*outside, math.nan, True, "1", None]:
        with pytest.raises(ValueError, match=r"^beta must be a number in .*; got .*\. Use less\.$"):
            within("beta", value, interval, "Use less")


def test_both_ends_of_a_schedule_are_checked() -> None:
    within("rate", Linear(1.0, 0.0), "[0, 1]", "Use less")
    with pytest.raises(ValueError, match=r"rate\.end must be .*; got -0\.1"):
        within("rate", Linear(1.0, -0.1), "[0, 1]", "Use less")
    with pytest.raises(ValueError, match=r"rate\.start must be .*; got 2\.0"):
        within("rate", Linear(2.0, 0.0), "[0, 1]", "Use less")


def test_whole_numbers() -> None:
    whole("passes", 1, 1, "Use 1")
    for value in (0, 1.0, True, "1", None):
        with pytest.raises(ValueError, match=r"passes must be an integer >= 1; got .*\. Use 1\."):
            whole("passes", value, 1, "Use 1")


def test_choices_suggest_the_nearest() -> None:
    one_of("scale", "group", ("group", "batch", None))
    one_of("scale", None, ("group", "batch", None))
    one_of("ddof", 0, (0, 1))
    with pytest.raises(
        ValueError, match=r"scale must be one of 'group', 'batch'; got 'groups'\. Did you mean 'group'\?"
    ):
        one_of("scale", "groups", ("group", "batch"))
    with pytest.raises(ValueError, match="ddof must be one of 0, 1; got False"):
        one_of("ddof", False, (0, 1))
