"""What an experiment may say of its numbers."""

from __future__ import annotations

from collections.abc import Mapping


def shown(number: Mapping[str, float], digits: int = 3) -> str:
    """Mean and interval."""
    return f"{number['mean']:.{digits}f} [{number['low']:.{digits}f}, {number['high']:.{digits}f}]"


def judged(good: bool, bad: bool) -> str:
    """What an interval allows to be said."""
    return "confirmed" if good else "refuted" if bad else "not confirmed at this scale"
