"""Losses beside SFT, DFT and OTR, on the whole distribution at a position, and the new skill as a task with rewards.

elsewhere     DFT's weights, dealt out to other positions: as large a step, but no tie of weight and token
smoothed      label smoothing: a tenth of the target is spread over the vocabulary
unlikelihood  also lowers the most likely wrong token, -log(1 - pi(c))
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascent.core.decisions import Columns
from ascent.core.random import key
from ascent.methods.otr import OneToken
from ascent.worlds.text.task import Example, Prompt

from .skills import ALPHABET, LETTERS, LONGEST, Problem, new

SMOOTHING = 0.1


@dataclass(frozen=True)
class Elsewhere(OneToken):
    """Each token's loss is weighted by the probability of another position's token."""

    def bandit(self, logits: Tensor, target: Tensor, keys: Tensor) -> Columns:
        own = _own(logits, target)
        order = keys.argsort()
        weight = torch.empty_like(own)
        weight[order] = own.detach().exp()[order].roll(1)
        return _probes(-weight * own, own)


@dataclass(frozen=True)
class Smoothed(OneToken):
    """Cross-entropy to a target that leaves a tenth to the whole vocabulary."""

    def bandit(self, logits: Tensor, target: Tensor, keys: Tensor) -> Columns:
        own = _own(logits, target)
        return _probes(-(1 - SMOOTHING) * own - SMOOTHING * logits.log_softmax(-1).mean(-1), own)


def _own(logits: Tensor, target: Tensor) -> Tensor:
    return logits.log_softmax(-1).gather(1, target[:, None])[:, 0]


def _probes(loss: Tensor, own: Tensor) -> Columns:
    return {"one_token": loss, "one_token_hits": own.detach().exp()}


@dataclass(frozen=True)
class Sums:
    """The new skill with a verifier in place of demonstrations, for learning from own answers."""

    seed: int = 0
    name: str = "sums"
    alphabet: str = ALPHABET
    max_new_tokens: int = LONGEST + 4

    def problem(self, index: int) -> Problem:
        return new(random.Random(key("sums", self.seed, index)))

    def example(self, index: int) -> Example:
        found = self.problem(index)
        return Example(found.prompt, found.answer)

    def held_out(self, count: int) -> list[Example]:
        return [self.example(-1 - index) for index in range(count)]

    def demonstration(self, index: int) -> str:
        return self.problem(index).solution

    def corrupt(self, solution: str, rng: random.Random) -> str:
        return solution

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """1 where the last part is the sum, whatever separates it."""
        table = str.maketrans(LETTERS, ";" * len(LETTERS))
        pairs = zip(completions, columns["answer"], strict=True)
        return [float(text.translate(table).rsplit(";", 1)[-1] == answer) for text, answer in pairs]
