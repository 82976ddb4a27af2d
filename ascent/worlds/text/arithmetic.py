"""Addition with written carries: `47+85=` is answered `7+5=12;4+8+1=13;132`.

The digits are added from the right, one step each, with the carry as a third summand; the sum comes last.
A response is about twenty decisions, and every digit is a place to go wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ascent.core.random import key
from ascent.worlds.text.task import Example, Prompt, reserved


def written(first: int, second: int, digits: int, wrong: int | None = None, shift: int = 1) -> str:
    """The addition in steps. `wrong` is the step whose last digit is off by `shift`; the error is carried on."""
    carry, total, steps = 0, "", []
    for place in range(digits):
        a, b = first // 10**place % 10, second // 10**place % 10
        result = a + b + carry
        if place == wrong:
            result = result // 10 * 10 + (result + shift) % 10
        steps.append(f"{a}+{b}" + (f"+{carry}" if carry else "") + f"={result}")
        carry, total = result // 10, f"{result % 10}{total}"
    return ";".join([*steps, (str(carry) if carry else "") + total])


@dataclass(frozen=True)
class Arithmetic:
    """Addition of two numbers of `digits` digits.

    Args:
        seed: of the stream of problems.
        digits: 1 to 8 of each summand.
    """

    seed: int = 0
    digits: int = 2
    name: str = "arithmetic"
    alphabet: str = "0123456789+=;"

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= 8:
            raise ValueError(f"digits must be in [1, 8]; got {self.digits!r}.")

    @property
    def max_new_tokens(self) -> int:
        return 10 * self.digits + 6

    def _draw(self, rng: random.Random) -> tuple[int, int]:
        low = 10 ** (self.digits - 1) if self.digits > 1 else 0
        return rng.randrange(low, 10**self.digits), rng.randrange(low, 10**self.digits)

    def _problem(self, index: int) -> tuple[int, int]:
        rng = random.Random(key(self.seed, self.name, index))
        while True:
            first, second = self._draw(rng)
            if not self._reserved(first, second):
                return first, second

    @staticmethod
    def _reserved(first: int, second: int) -> bool:
        """Both orders of a sum are the same problem."""
        return reserved(f"{min(first, second)}+{max(first, second)}")

    def example(self, index: int) -> Example:
        return self._example(*self._problem(index))

    def _example(self, first: int, second: int) -> Example:
        return Example(f"{first}+{second}=", str(first + second))

    def held_out(self, count: int) -> list[Example]:
        """Raises ValueError where fewer than `count` held-out problems exist."""
        rng = random.Random(key(self.seed, self.name, "held out"))
        found: dict[tuple[int, int], None] = {}
        for _ in range(200 * count + 1000):
            if len(found) == count:
                break
            first, second = self._draw(rng)
            if self._reserved(first, second):
                found[first, second] = None
        if len(found) < count:
            raise ValueError(f"count must be <= {len(found)} held-out problems of {self.digits} digits; got {count}.")
        return [self._example(first, second) for first, second in found]

    def demonstration(self, index: int) -> str:
        return written(*self._problem(index), self.digits)

    def corrupt(self, solution: str, rng: random.Random) -> str:
        """One step's result is wrong by 1 to 9 in its last digit, and the sum follows from it."""
        steps = solution.split(";")[: self.digits]
        pairs = [step.split("=")[0].split("+") for step in steps]
        first = sum(int(pair[0]) * 10**place for place, pair in enumerate(pairs))
        second = sum(int(pair[1]) * 10**place for place, pair in enumerate(pairs))
        return written(first, second, self.digits, rng.randrange(self.digits), rng.randint(1, 9))

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """1 where what follows the last `;` is the sum, else 0."""
        return [
            float(completion.rsplit(";", 1)[-1].strip() == answer)
            for completion, answer in zip(completions, columns["answer"], strict=True)
        ]
