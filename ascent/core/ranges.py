"""Checks of parameters: an error names the argument, its value, the accepted range and the mend."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

from ascent.core.plan import Linear


def within(name: str, value: object, interval: str, mend: str) -> None:
    """Raise ValueError unless the number, or both ends of a schedule, lies in an interval such as "[0, 1)".

    Args:
        name: of the argument.
        value: what was passed; booleans and NaN are refused.
        interval: two numbers with square (closed) or round (open) brackets.
        mend: what to do, a sentence without its full stop.
    """
    if isinstance(value, Linear):
        within(f"{name}.start", value.start, interval, mend)
        within(f"{name}.end", value.end, interval, mend)
        return
    low, high = (float(end) for end in interval[1:-1].split(","))
    good = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if good:
        assert isinstance(value, int | float)
        above = value >= low if interval[0] == "[" else value > low
        below = value <= high if interval[-1] == "]" else value < high
        good = above and below
    if not good:
        raise ValueError(f"{name} must be a number in {interval}; got {value!r}. {mend}.")


def whole(name: str, value: object, low: int, mend: str) -> None:
    """Raise ValueError unless `value` is an integer of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be an integer >= {low}; got {value!r}. {mend}.")


def one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ValueError, which suggests the nearest, unless `value` is one of `choices`."""
    known = tuple(choices)
    if not any(type(value) is type(choice) and value == choice for choice in known):
        near = difflib.get_close_matches(str(value), [str(choice) for choice in known], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}.{hint}")


def replay_sizes(batch: object, capacity: object, start: object, updates: object) -> None:
    """Raise ValueError where the sizes of learning from a replay memory do not fit together."""
    whole("batch", batch, 1, "Use 256")
    assert isinstance(batch, int)
    whole("capacity", capacity, batch, f"The memory must hold a batch, {batch} transitions")
    whole("start", start, batch, f"The first update draws {batch} transitions; collect at least as many before it")
    whole("updates", updates, 1, "Use 1")
