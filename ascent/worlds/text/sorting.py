"""Sorting by insertion: `4821>` is answered `4;48;248;1248`, the sorted part after each digit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ascent.core.random import key
from ascent.worlds.text.task import Example, Prompt, reserved


@dataclass(frozen=True)
class Sorting:
    """Sort `digits` digits in ascending order.

    Args:
        seed: of the stream of problems.
        digits: 3 to 12.
    """

    seed: int = 0
    digits: int = 6
    name: str = "sorting"
    alphabet: str = "0123456789>;"

    def __post_init__(self) -> None:
        if not 3 <= self.digits <= 12:
            raise ValueError(f"digits must be in [3, 12]; got {self.digits!r}.")

    @property
    def max_new_tokens(self) -> int:
        return self.digits * (self.digits + 3) // 2 + 1

    def _draw(self, rng: random.Random) -> str:
        return "".join(rng.choices("0123456789", k=self.digits))

    def example(self, index: int) -> Example:
        return self._example(self._problem(index))

    def _problem(self, index: int) -> str:
        rng = random.Random(key(self.seed, self.name, index))
        while reserved(problem := self._draw(rng)):
            pass
        return problem

    @staticmethod
    def _example(problem: str) -> Example:
        return Example(f"{problem}>", "".join(sorted(problem)))

    def held_out(self, count: int) -> list[Example]:
        """Raises ValueError where fewer than `count` held-out problems exist."""
        rng = random.Random(key(self.seed, self.name, "held out"))
        found: dict[str, None] = {}
        for _ in range(200 * count + 1000):
            if len(found) == count:
                break
            if reserved(problem := self._draw(rng)):
                found[problem] = None
        if len(found) < count:
            raise ValueError(f"count must be <= {len(found)} held-out problems of {self.digits} digits; got {count}.")
        return [self._example(problem) for problem in found]

    def demonstration(self, index: int) -> str:
        problem = self._problem(index)
        return ";".join("".join(sorted(problem[:length])) for length in range(1, self.digits + 1))

    def corrupt(self, solution: str, rng: random.Random) -> str:
        """From one step on a digit sits at a wrong place, or is another digit where all are equal."""
        steps = solution.split(";")
        start = rng.randrange(1, len(steps))
        digits: list[str] = []
        for number, step in enumerate(steps):
            added = list(step)
            for digit in digits:
                if digit in added:
                    added.remove(digit)
            new = added[0]
            place = sum(digit <= new for digit in digits)
            if number == start:
                others = [
                    spot for spot in range(len(digits) + 1) if [*digits[:spot], new, *digits[spot:]] != list(step)
                ]
                place = rng.choice(others) if others else place
            digits.insert(place, new)
            steps[number] = "".join(digits)
        if steps[-1] == solution.split(";")[-1]:
            steps[-1] = steps[-1][:-1] + str((int(steps[-1][-1]) + rng.randint(1, 9)) % 10)
        return ";".join(steps)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """1 where what follows the last `;` is the sorted number, else 0."""
        return [
            float(completion.rsplit(";", 1)[-1].strip() == answer)
            for completion, answer in zip(completions, columns["answer"], strict=True)
        ]
