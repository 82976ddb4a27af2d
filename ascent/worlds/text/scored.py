"""Recorded responses with scores: the data of offline methods (copg, dpo, ipo).

One JSON object a line:

    {"prompt": "...", "completions": ["...", "..."], "scores": [0.3, -1.0], "ended": [true, false]}

`scores` are any finite numbers, larger is better; for human preferences write 1 and 0. `ended` is optional: false for a
response that was cut off, whose last token is then no end of text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascent.worlds.text.data import read
from ascent.worlds.text.task import Prompt


@dataclass(frozen=True)
class Scored:
    """Responses to one prompt.

    Attributes:
        prompt: a string, or a list of role/content messages.
        completions: two or more, sampled apart from one another.
        scores: one finite number each.
        ended: whether each is complete (an end-of-text token is then counted as its last decision).
    """

    prompt: Prompt
    completions: tuple[str, ...]
    scores: tuple[float, ...]
    ended: tuple[bool, ...]

    def __post_init__(self) -> None:
        count = len(self.completions)
        if count < 2:
            raise ValueError(f"completions must hold at least 2 responses to compare; got {count}.")
        for name, numbers in (("scores", self.scores), ("ended", self.ended)):
            if len(numbers) != count:
                raise ValueError(f"{name} must hold one entry per completion, {count}; got {len(numbers)}.")
        for score in self.scores:
            if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
                raise ValueError(f"scores must be finite numbers; got {score!r}.")
        if not all(isinstance(text, str) for text in self.completions):
            raise ValueError(f"completions must be strings; got {self.completions!r}.")


def read_scored(path: str | Path) -> list[Scored]:
    """The rows of a .jsonl or .json file, or of a folder written by `datasets`.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a row is no group of scored responses; its number is named.
    """
    found = []
    for number, row in enumerate(read(path), 1):
        try:
            found.append(_scored(row))
        except ValueError as error:
            raise ValueError(f"{path} row {number}: {error}") from error
    return found


def _scored(row: Mapping[str, Any]) -> Scored:
    for name in ("completions", "scores"):
        if not isinstance(row.get(name), Sequence) or isinstance(row[name], str):
            raise ValueError(f"{name} must be a list; got {row.get(name)!r}. Write one list entry per response.")
    completions = tuple(row["completions"])
    ended = row.get("ended")
    whole = (True,) * len(completions) if ended is None else tuple(bool(end) for end in ended)
    return Scored(row["prompt"], completions, tuple(row["scores"]), whole)
