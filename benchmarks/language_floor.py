"""The floor: what the matrix products of a step take on this machine, and nothing else.

Decode: prompts read once a group; then one token a step for the rows that still run, projections fused
(query, key and value; gate and up), attention over the tokens so far. Training: every prompt read once, every
response at its own length, forward once and backward twice the forward's products; the head at response positions.
No norms, rotations, softmax, draws, optimiser, or Python beyond the call of each product. Nobody goes below this
with these products in float32 on these threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from language_work import Work

HEADS = 4
CHUNK = 256  # rows of the head at once
PARTS = 8  # training attention is padded within so many parts of sorted lengths


def floor(work: Work, repeats: int = 3) -> dict[str, float]:
    """Seconds of `sample` and `train` (forward, backward), the least of `repeats` after one that does not count."""
    import torch

    torch.set_num_threads(work.threads)
    lengths = work.lengths(0)
    with torch.inference_mode():
        products = Products(work)
        return {
            "sample": _least(lambda: products.decode(lengths), repeats),
            "train": _least(lambda: products.train(lengths), repeats),
        }


def _least(function: Callable[[], None], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        since = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - since)
    return min(seconds[1:])


class Products:
    """The matrix products of one decoder on random numbers, into memory that is there already."""

    def __init__(self, work: Work) -> None:
        import torch

        self.torch, self.work = torch, work
        hidden = work.hidden
        shapes = ((3 * hidden, hidden), (hidden, hidden), (6 * hidden, hidden), (hidden, 3 * hidden))
        self.layers = [[torch.randn(shape) for shape in shapes] for _ in range(work.layers)]
        self.head = torch.randn(work.vocabulary, hidden)
        # Few rows meet a weight that lies the other way up to a fifth sooner; many do not.
        self.turned = [[weight.T.contiguous() for weight in layer] for layer in self.layers]
        self.turned_head = self.head.T.contiguous()
        rows = max(work.prompts * work.prompt + work.rows * work.new_tokens, CHUNK)
        self.narrow, self.wide, self.out = (torch.randn(rows, width * hidden) for width in (1, 3, 6))
        self.gradients = [[torch.empty_like(weight) for weight in layer] for layer in self.layers]
        self.to_head = torch.empty_like(self.head)
        self.logits = torch.randn(CHUNK, work.vocabulary)

    def _forward(self, rows: int, attentions: list[Attention], turned: bool = False) -> None:
        for layer, others in zip(self.layers, self.turned, strict=True):
            for weight, other in zip(layer, others, strict=True):
                given = self.narrow if weight.shape[1] == self.work.hidden else self.wide
                self.torch.mm(given[:rows], other if turned else weight.T, out=self._result(rows, weight))
            for attention in attentions:
                attention.forward()

    def _backward(self, rows: int, attentions: list[Attention]) -> None:
        for layer, gradients in zip(self.layers, self.gradients, strict=True):
            for weight, gradient in zip(layer, gradients, strict=True):
                slope = self._result(rows, weight)
                given = self.narrow if weight.shape[1] == self.work.hidden else self.wide
                self.torch.mm(slope.T, given[:rows], out=gradient)
                self.torch.mm(slope, weight, out=given[:rows])
            for attention in attentions:
                attention.backward()

    def _result(self, rows: int, weight: Any) -> Any:
        return self.out.view(-1)[: rows * len(weight)].view(rows, len(weight))

    def decode(self, lengths: list[int]) -> None:
        """Prefill, then one token a step."""
        torch, work = self.torch, self.work
        self._forward(work.prompts * work.prompt, [Attention(work, work.prompts, work.prompt, work.prompt)])
        whole = Attention(work, work.rows, 1, work.prompt + work.new_tokens)
        for position in range(max(lengths)):
            running = sum(length > position for length in lengths)
            torch.mm(self.narrow[:running], self.turned_head, out=self.logits[:running])
            if position + 1 < max(lengths):
                self._forward(running, [whole.part(running, work.prompt + position + 1)], turned=True)

    def train(self, lengths: list[int]) -> None:
        """Forward, and twice as many products backward."""
        torch, work = self.torch, self.work
        attentions = [Attention(work, work.prompts, work.prompt, work.prompt)]
        ordered = sorted(lengths)
        size = len(ordered) // PARTS if work.ragged else len(ordered)
        for start in range(0, len(ordered), size):
            part = ordered[start : start + size]
            attentions.append(Attention(work, len(part), part[-1], work.prompt + part[-1]))
        rows, decided = work.prompts * work.prompt + sum(lengths), sum(lengths)
        self._forward(rows, attentions)
        for start in range(0, decided, CHUNK):
            states, logits = self.narrow[start : min(start + CHUNK, decided)], self.logits[: decided - start]
            torch.mm(states, self.head.T, out=logits)
            torch.mm(logits.T, states, out=self.to_head)
            torch.mm(logits, self.head, out=states)
        self._backward(rows, attentions)


class Attention:
    """Scores and weighted sums of some rows."""

    def __init__(self, work: Work, rows: int, queries: int, keys: int) -> None:
        import torch

        self.torch = torch
        width = work.hidden // HEADS
        self.query, self.key = torch.randn(rows * HEADS, queries, width), torch.randn(rows * HEADS, keys, width)
        self.scores, self.mixed = torch.randn(rows * HEADS, queries, keys), torch.empty_like(self.query)
        self.to_key = torch.empty_like(self.key)

    def part(self, rows: int, keys: int) -> Attention:
        """Of the first rows and keys."""
        found = object.__new__(Attention)
        rows *= HEADS
        found.torch, found.query, found.key = self.torch, self.query[:rows], self.key[:rows, :keys]
        found.scores = self.scores.view(-1)[: rows * keys].view(rows, 1, keys)
        found.mixed = self.mixed[:rows]
        return found

    def forward(self) -> None:
        """Queries on keys, then weights on values."""
        self.torch.bmm(self.query, self.key.transpose(1, 2), out=self.scores)
        self.torch.bmm(self.scores, self.key, out=self.mixed)

    def backward(self) -> None:
        """Gradients of weights and values, then of queries and keys."""
        self.torch.bmm(self.mixed, self.key.transpose(1, 2), out=self.scores)
        self.torch.bmm(self.scores.transpose(1, 2), self.mixed, out=self.to_key)
        self.torch.bmm(self.scores, self.key, out=self.mixed)
        self.torch.bmm(self.scores.transpose(1, 2), self.query, out=self.to_key)
