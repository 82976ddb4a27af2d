"""A small transformer with three old skills, and a new one to be taught by demonstrations of which a fifth is odd.

Old: copying, sorting, addition of digits modulo 10. New: adding two numbers with written carries, of which the model
has seen some, of all sizes, so that it is right now and then. The demonstrations to learn from never hold two numbers
of 50 and more, and in a fifth of them every semicolon is one of the letters x, y, z, which the model has hardly seen.
"""

from __future__ import annotations

import copy
import functools
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.plan import Adam, Linear
from ascent.core.random import key
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.sampling.recorded import written
from ascent.sampling.text import generate
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Phase
from ascent.worlds.text.arithmetic import written as addition

ALPHABET = "0123456789+=;csmxyz"
OLD, HIDDEN, LAYERS, BASE_STEPS, BASE_RATE, ROWS = ("copy", "sort", "modular"), 64, 2, 560, 4e-3, 48
ODD, LETTERS, LONGEST, SUMS, SHIFTED = 0.2, "xyz", 16, 4, 0.5
"""SUMS: rows of the new skill in a batch of the first training; SHIFTED: the share of two large numbers among them."""


@dataclass(frozen=True)
class Problem:
    """A prompt, its demonstration, and what must stand behind the last separator."""

    prompt: str
    solution: str
    answer: str


def old(name: str, rng: random.Random) -> Problem:
    """A problem of an old skill."""
    if name == "modular":
        a, b = rng.randrange(10), rng.randrange(10)
        return Problem(f"m{a}+{b}=", str((a + b) % 10), str((a + b) % 10))
    digits = "".join(rng.choice("0123456789") for _ in range(4))
    answer = digits if name == "copy" else "".join(sorted(digits))
    return Problem(f"{name[0]}{digits}=", answer, answer)


def new(rng: random.Random, shifted: bool = False, odd: float = 0.0) -> Problem:
    """Addition of two numbers; `shifted` draws both from 50 to 99, which no demonstration does."""
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    while (min(a, b) >= 50) is not shifted:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
    solution = addition(a, b, 2)
    if rng.random() < odd:
        solution = "".join(rng.choice(LETTERS) if letter == ";" else letter for letter in solution)
    return Problem(f"{a}+{b}=", solution, str(a + b))


def problems(kind: str, count: int, *words: int | str) -> list[Problem]:
    """`count` problems of a kind: an old skill, "target", "shifted", "demonstrations" or "sums" of all sizes."""
    rng = random.Random(key("problems", kind, *words))
    if kind == "sums":
        return [new(rng, rng.random() < SHIFTED) for _ in range(count)]
    if kind in OLD:
        return [old(kind, rng) for _ in range(count)]
    return [new(rng, kind == "shifted", ODD if kind == "demonstrations" else 0.0) for _ in range(count)]


def decisions(rows: list[Problem], policy: CausalPolicy, *words: int | str) -> Decisions:
    """Demonstrations as decisions, keyed by `words`."""
    texts, count = [row.solution for row in rows], len(rows)
    found = written([row.prompt for row in rows], range(count), texts, [0.0] * count, [True] * count, policy)
    return found.replace(key=torch.tensor([key("row", place, *words) for place in range(count)]))


class Written(Fresh):
    """Batch k of a kind of demonstrations, made when it is drawn; "base" mixes the old skills."""

    def __init__(self, policy: CausalPolicy, kind: str, rows: int, seed: int) -> None:
        super().__init__()
        self.policy, self.kind, self.rows, self.seed = policy, kind, rows, seed

    def draw(self, round_: int) -> Decisions:
        kinds = OLD if self.kind == "base" else (self.kind,)
        share = self.rows // len(kinds)
        rows = [row for kind in kinds for row in problems(kind, share, self.seed, round_)]
        if self.kind == "base":  # the odd letters are known but unlikely
            rows += problems("sums", SUMS, "base", round_) + problems("demonstrations", 1, "base", round_)
        return decisions(rows, self.policy, self.seed, round_)


@functools.cache
def base() -> CausalPolicy:
    """The model with the old skills, made once and kept in the present folder's runs; copy it before training on."""
    words = (ALPHABET, HIDDEN, LAYERS, BASE_STEPS, str(BASE_RATE), ROWS, str(ODD), SUMS, str(SHIFTED))
    folder = Path(f"runs/reproduce-otr/base-{key(*words) & 0xFFFFFF:06x}")
    if not folder.exists():
        aside = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
        taught().save(aside)
        try:
            aside.rename(folder)
        except OSError:  # another worker was first
            shutil.rmtree(aside)
    return CausalPolicy.load(folder)


def taught() -> CausalPolicy:
    """A fresh model after supervised learning of the old skills."""
    policy = embedded(ALPHABET, 0, hidden=HIDDEN, layers=LAYERS, context=48)
    step = Adam(Linear(BASE_RATE, 0.05 * BASE_RATE), betas=(0.9, 0.99), warmup=20)
    learn = Learn("policy", policy, ascent.method("sft").replace(step=step), Written(policy, "base", ROWS, 0))
    Loop(System({"policy": policy}, {}, (Phase("sft", (learn,), BASE_STEPS),))).run()
    return policy


def fresh_base() -> CausalPolicy:
    return copy.deepcopy(base())


def exact_match(policy: CausalPolicy, rows: list[Problem]) -> float:
    """Share of greedy answers whose last part, behind `;` or an odd letter, is right."""
    texts = generate(policy, [row.prompt for row in rows], 1, LONGEST + 4)
    tails = [text[0].translate(str.maketrans(LETTERS, ";" * len(LETTERS))).rsplit(";", 1)[-1] for text in texts]
    return sum(tail == row.answer for tail, row in zip(tails, rows, strict=True)) / len(rows)
