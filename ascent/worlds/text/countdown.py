"""Countdown: reach a target with every number once. `3,5,7>26:` may be answered `3*7=21;21+5=26`."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ascent.core.random import key
from ascent.worlds.text.task import Example, Prompt, digits_changed, reserved

STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+)")


def result(first: int, operator: str, second: int) -> int:
    """The value of one step."""
    return {"+": first + second, "-": first - second, "*": first * second}[operator]


def solves(numbers: Sequence[int], target: int, solution: str) -> bool:
    """Whether each step is right, uses only what is left of `numbers` and of earlier results, and the last
    step leaves `target` alone."""
    left = Counter(numbers)
    for step in solution.strip().split(";"):
        match = STEP.fullmatch(step)
        if match is None:
            return False
        first, second, claimed = int(match[1]), int(match[3]), int(match[4])
        for number in (first, second):
            if left[number] == 0:
                return False
            left[number] -= 1
        if result(first, match[2], second) != claimed:
            return False
        left[claimed] += 1
    return +left == Counter([target])


@dataclass(frozen=True)
class Countdown:
    """Combine `count` numbers below 10 by +, - and * to a target in [1, 99].

    Args:
        seed: of the stream of problems.
        count: numbers of a problem, 2 to 5.
    """

    seed: int = 0
    count: int = 3
    name: str = "countdown"
    alphabet: str = "0123456789,>:+-*=;"

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 5:
            raise ValueError(f"count must be in [2, 5]; got {self.count!r}.")

    @property
    def max_new_tokens(self) -> int:
        return 10 * (self.count - 1) + 1

    def _draw(self, rng: random.Random) -> tuple[tuple[int, ...], int, str]:
        """Numbers in ascending order, target, and the steps that led to it."""
        while True:
            numbers = [rng.randint(1, 9) for _ in range(self.count)]
            steps, value = [], numbers[0]
            for number in numbers[1:]:
                operator = rng.choice("+-*")
                first, second = (value, number) if operator != "-" or value >= number else (number, value)
                steps.append(f"{first}{operator}{second}={result(first, operator, second)}")
                value = result(first, operator, second)
            if 1 <= value <= 99:
                return tuple(sorted(numbers)), value, ";".join(steps)

    @staticmethod
    def _prompt(numbers: Sequence[int], target: int) -> str:
        return f"{','.join(map(str, numbers))}>{target}:"

    def _problem(self, index: int) -> tuple[tuple[int, ...], int, str]:
        rng = random.Random(key(self.seed, self.name, index))
        while True:
            numbers, target, steps = self._draw(rng)
            if not reserved(self._prompt(numbers, target)):
                return numbers, target, steps

    def _example(self, numbers: Sequence[int], target: int) -> Example:
        return Example(self._prompt(numbers, target), str(target), {"numbers": list(numbers), "target": target})

    def example(self, index: int) -> Example:
        numbers, target, _ = self._problem(index)
        return self._example(numbers, target)

    def held_out(self, count: int) -> list[Example]:
        """Raises ValueError where fewer than `count` held-out problems exist."""
        rng = random.Random(key(self.seed, self.name, "held out"))
        found: dict[tuple[tuple[int, ...], int], None] = {}
        for _ in range(200 * count + 1000):
            if len(found) == count:
                break
            numbers, target, _ = self._draw(rng)
            if reserved(self._prompt(numbers, target)):
                found[numbers, target] = None
        if len(found) < count:
            raise ValueError(f"count must be <= {len(found)} held-out problems of {self.count} numbers; got {count}.")
        return [self._example(numbers, target) for numbers, target in found]

    def demonstration(self, index: int) -> str:
        return self._problem(index)[2]

    def corrupt(self, solution: str, rng: random.Random) -> str:
        """One digit is another: a wrong step, or a number that was not given."""
        return digits_changed(solution, rng)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """1 where the steps are right, use every number once and end in the target, else 0."""
        rows = zip(completions, columns["numbers"], columns["target"], strict=True)
        return [float(solves(numbers, target, completion)) for completion, numbers, target in rows]
