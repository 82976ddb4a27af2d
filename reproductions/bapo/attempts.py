"""The task: put signs between numbers so that they add up to a target.

`3,5,6>2:` may be answered `3+5=8+6=14;3+5=8-6=2`. Every attempt takes the numbers in order and writes each
partial sum, none below 0. Who misses tries again behind `;`, three times in all; the last attempt counts. So failures
are longer than successes, the paper's first cause of imbalance, and at the signs entropy is worth keeping.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ascent.core.random import key
from ascent.worlds.text.task import Example, Prompt, digits_changed, reserved

NUMBERS, LARGEST, ATTEMPTS = 3, 7, 3
STEP = re.compile(r"([-+])(\d)=(\d+)")


def attempt(numbers: Sequence[int], signs: Sequence[int]) -> tuple[str, int] | None:
    """What is written and reached; None where a partial sum falls below 0."""
    text, total = str(numbers[0]), numbers[0]
    for number, sign in zip(numbers[1:], signs, strict=True):
        total += sign * number
        if total < 0:
            return None
        text += f"{'+' if sign > 0 else '-'}{number}={total}"
    return text, total


def reaches(numbers: Sequence[int], target: int, written: str) -> bool:
    """Whether an attempt is right in every step and ends in the target."""
    total, place = numbers[0], 1
    if not written.startswith(str(numbers[0])):
        return False
    for number in numbers[1:]:
        match = STEP.match(written, place)
        if match is None or int(match[2]) != number:
            return False
        total += number if match[1] == "+" else -number
        if total != int(match[3]):
            return False
        place = match.end()
    return place == len(written) and total == target


@dataclass(frozen=True)
class Attempts:
    """Three digits and a target that some choice of signs reaches."""

    seed: int = 0
    name: str = "attempts"
    alphabet: str = "0123456789,>:+-=;"

    @property
    def max_new_tokens(self) -> int:
        return ATTEMPTS * (1 + 5 * (NUMBERS - 1) + 1)

    def _draw(self, rng: random.Random) -> tuple[tuple[int, ...], int]:
        while True:
            numbers = tuple(rng.randint(1, LARGEST) for _ in range(NUMBERS))
            found = attempt(numbers, [rng.choice((1, -1)) for _ in numbers[1:]])
            if found is not None:
                return numbers, found[1]

    def _problem(self, index: int) -> tuple[tuple[int, ...], int]:
        rng = random.Random(key(self.seed, self.name, index))
        while True:
            numbers, target = self._draw(rng)
            if not reserved(self._prompt(numbers, target)):
                return numbers, target

    @staticmethod
    def _prompt(numbers: Sequence[int], target: int) -> str:
        return f"{','.join(map(str, numbers))}>{target}:"

    def _example(self, numbers: Sequence[int], target: int) -> Example:
        return Example(self._prompt(numbers, target), str(target), {"numbers": list(numbers), "target": target})

    def example(self, index: int) -> Example:
        return self._example(*self._problem(index))

    def held_out(self, count: int) -> list[Example]:
        rng = random.Random(key(self.seed, self.name, "held out"))
        found: dict[tuple[tuple[int, ...], int], None] = {}
        for _ in range(200 * count + 1000):
            numbers, target = self._draw(rng)
            if len(found) < count and reserved(self._prompt(numbers, target)):
                found[numbers, target] = None
        if len(found) < count:
            raise ValueError(f"count must be <= {len(found)} held-out problems; got {count}.")
        return [self._example(*problem) for problem in found]

    def demonstration(self, index: int) -> str:
        """Attempts with signs drawn at random, as many as it takes, at most three: most end in failure."""
        numbers, target = self._problem(index)
        rng, texts = random.Random(key(self.seed, "attempts", index)), []
        while len(texts) < ATTEMPTS:
            found = attempt(numbers, [rng.choice((1, -1)) for _ in numbers[1:]])
            if found is not None:
                texts.append(found[0])
                if found[1] == target:
                    break
        return ";".join(texts)

    def corrupt(self, solution: str, rng: random.Random) -> str:
        """One digit is another."""
        return digits_changed(solution, rng)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """1 where one of the first three attempts is the last and reaches the target, else 0."""
        rows = zip(completions, columns["numbers"], columns["target"], strict=True)
        return [
            float(completion.count(";") < ATTEMPTS and reaches(numbers, target, completion.rsplit(";", 1)[-1]))
            for completion, numbers, target in rows
        ]
