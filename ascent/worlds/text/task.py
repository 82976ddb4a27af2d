"""What a text task is: an endless, numbered stream of problems with a verifier."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ascent.core.random import key

Prompt = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Example:
    """One problem.

    Attributes:
        prompt: a plain string, or a list of chat messages.
        answer: the reference answer, "" where the data has none.
        columns: further columns, passed to reward functions by name.
    """

    prompt: Prompt
    answer: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)


class TextTask(Protocol):
    """A numbered stream of problems: the same index gives the same problem, in every process.

    Attributes:
        name: on the command line.
        max_new_tokens: enough for a complete answer.
        alphabet: every character of prompts and solutions, for the embedded model.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_new_tokens(self) -> int: ...
    @property
    def alphabet(self) -> str: ...

    def example(self, index: int) -> Example:
        """Training problem number `index` >= 0; the stream never ends."""
        ...

    def held_out(self, count: int) -> list[Example]:
        """`count` distinct problems that the training stream never shows."""
        ...

    def demonstration(self, index: int) -> str:
        """A correct solution of training problem `index`, with written steps."""
        ...

    def corrupt(self, solution: str, rng: random.Random) -> str:
        """A wrong solution that looks like `solution`."""
        ...

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """One score a completion; `columns` holds `answer` and the examples' columns, as lists."""
        ...


def reserved(problem: str) -> bool:
    """Whether a problem belongs to the held-out tenth: decided by a hash of the problem itself."""
    return key("held out", problem) % 10 == 0


def digits_changed(text: str, rng: random.Random) -> str:
    """`text` with one of its digits replaced by another; unchanged where it holds none."""
    places = [place for place, letter in enumerate(text) if letter.isdigit()]
    if not places:
        return text
    place = rng.choice(places)
    other = rng.choice([digit for digit in "0123456789" if digit != text[place]])
    return text[:place] + other + text[place + 1 :]
