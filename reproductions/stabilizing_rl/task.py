"""Addition of one or two digits: answers of 8 to 20 tokens, so that dividing by the length is not a mere scale."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ascent.worlds.text.arithmetic import Arithmetic
from ascent.worlds.text.task import Example, Prompt

SHORT, LONG = Arithmetic(digits=1), Arithmetic(digits=2)


@dataclass(frozen=True)
class Mixed:
    """Every other problem has two digits."""

    name: str = "mixed"
    alphabet: str = LONG.alphabet
    max_new_tokens: int = 24

    def example(self, index: int) -> Example:
        return (LONG if index % 2 else SHORT).example(index)

    def held_out(self, count: int) -> list[Example]:
        short = SHORT.held_out(min(count // 2, 4))
        return [*short, *LONG.held_out(count - len(short))]

    def demonstration(self, index: int) -> str:
        return (LONG if index % 2 else SHORT).demonstration(index)

    def corrupt(self, solution: str, rng: random.Random) -> str:
        return (LONG if solution.count(";") > 1 else SHORT).corrupt(solution, rng)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        return LONG.score(prompts, completions, **columns)
