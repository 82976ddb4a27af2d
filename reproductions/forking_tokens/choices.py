"""A synthetic language with real forks: at three places of a response the writer chooses, all else follows.

The prompt is three digits. A response turns each of them into another by a move of the writer's choice:

    386>    a:3>4;b:8>2;c:6>8        letter, digit of the prompt, what the move makes of it

    a adds 1, b adds 4, c trebles, all modulo 10; the response is right where all three results are even

Letters are the forks: three of 18 tokens (17%). The rest is copied or computed. An odd digit has one right move, an
even digit two. Warmed up on random moves, a policy writes moves nearly without fault, chooses at random and is right
about one time in eight.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ascent.core.random import key
from ascent.worlds.text.task import Example, Prompt, reserved

LETTERS = "abc"
DIGITS = 3


def moved(letter: str, digit: int) -> int:
    """What a move makes of a digit."""
    return {"a": digit + 1, "b": digit + 4, "c": 3 * digit}[letter] % 10


def right(digits: str, response: str) -> bool:
    """Whether a response moves each digit as its letters say, and to an even number."""
    moves = response.split(";")
    if len(moves) != len(digits):
        return False
    for digit, move in zip(digits, moves, strict=True):
        if len(move) != 5 or move[0] not in LETTERS:
            return False
        result = moved(move[0], int(digit))
        if move != f"{move[0]}:{digit}>{result}" or result % 2:
            return False
    return True


@dataclass(frozen=True)
class Choices:
    """Move three digits to even numbers; a tenth of the prompts is held out.

    Args:
        seed: of the stream of problems.
    """

    seed: int = 0
    name: str = "choices"
    alphabet: str = "0123456789>:;abc"
    max_new_tokens: int = 6 * DIGITS + 2

    def _problem(self, index: int) -> str:
        rng = random.Random(key(self.seed, self.name, index))
        while reserved(problem := "".join(rng.choices("0123456789", k=DIGITS))):
            pass
        return problem

    def example(self, index: int) -> Example:
        return self._example(self._problem(index))

    @staticmethod
    def _example(problem: str) -> Example:
        return Example(f"{problem}>", "", {"digits": problem})

    def held_out(self, count: int) -> list[Example]:
        problems = [f"{number:0{DIGITS}d}" for number in range(10**DIGITS)]
        return [self._example(problem) for problem in problems if reserved(problem)][:count]

    def demonstration(self, index: int) -> str:
        """Random moves: they show how moves are written, not which are right."""
        rng = random.Random(key(self.seed, self.name, "moves", index))
        letters = [(letter, int(digit)) for digit in self._problem(index) for letter in rng.choice(LETTERS)]
        return ";".join(f"{letter}:{digit}>{moved(letter, digit)}" for letter, digit in letters)

    def corrupt(self, solution: str, rng: random.Random) -> str:
        return solution

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """1 where every move is written right and ends in an even digit, else 0."""
        return [
            float(right(digits, completion)) for digits, completion in zip(columns["digits"], completions, strict=True)
        ]
