"""The floor: what the matrix products of a step take on this machine, and nothing else.

Decode: prompts read once a group; then one token a step for the rows that still run, projections fused
(query, key and value; gate and up), attention over the tokens so far. Training: every prompt read once, every
response at its own length, forward once and backward twice the forward's products; the head at response positions.
No norms, rotations, softmax, draws, optimiser, or Python beyond the call of each product. Nobody goes below this
with these products in float32 on these threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from language_work import PROMPT, Work

HEADS = 4
PARTS = 8  # training attention is padded within so many parts of sorted lengths


def floor(work: Work, repeats: int = 3) -> dict[str, float]:
    """Seconds of `sample` and `train` (forward, backward), the median of `repeats` after one that does not count."""
    import torch

    torch.set_num_threads(work.threads)
    lengths = work.lengths(0)
    with torch.inference_mode():
        products = Products(work)
        return {
            "sample": _median(lambda: products.decode(lengths), repeats),
            "train": _median(lambda: products.train(lengths), repeats),
        }


def _median(function: Callable[[], None], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        since = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - since)
    return statistics.median(seconds[1:])


class Products:
    """The matrix products of one decoder, on random numbers."""

    def __init__(self, work: Work) -> None:
        import torch

        self.torch, self.work = torch, work
        hidden = work.hidden
        shapes = ((3 * hidden, hidden), (hidden, hidden), (6 * hidden, hidden), (hidden, 3 * hidden))
        self.layers = [[torch.randn(shape) for shape in shapes] for _ in range(work.layers)]
        self.head = torch.randn(work.vocabulary, hidden)

    def _attention(self, rows: int, queries: int, keys: int) -> tuple[Any, Any]:
        width = self.work.hidden // HEADS
        return self.torch.randn(rows * HEADS, queries, width), self.torch.randn(rows * HEADS, width, keys)

    def _forward(self, states: Any, attentions: list[tuple[Any, Any]], times: int = 1) -> None:
        wide = self.torch.randn(len(states), 3 * self.work.hidden)
        for layer in self.layers:
            for weight in layer:
                for _ in range(times):
                    (states if weight.shape[1] == self.work.hidden else wide) @ weight.T
            for query, key in attentions:
                for _ in range(times):
                    scores = query @ key
                    scores @ key.transpose(1, 2)

    def decode(self, lengths: list[int]) -> None:
        """Prefill, then one token a step."""
        torch, work = self.torch, self.work
        states = torch.randn(max(work.prompts * PROMPT, work.rows), work.hidden)
        self._forward(states[: work.prompts * PROMPT], [self._attention(work.prompts, PROMPT, PROMPT)])
        query, key = self._attention(work.rows, 1, PROMPT + work.new_tokens)
        for position in range(max(lengths)):
            running = sum(length > position for length in lengths)
            states[:running] @ self.head.T
            if position + 1 < max(lengths):
                part = key[: running * HEADS, :, : PROMPT + position + 1]
                self._forward(states[:running], [(query[: running * HEADS], part)])

    def train(self, lengths: list[int]) -> None:
        """Forward, and twice as many products backward."""
        torch, work = self.torch, self.work
        states = torch.randn(work.prompts * PROMPT + sum(lengths), work.hidden)
        attentions = [self._attention(work.prompts, PROMPT, PROMPT)]
        ordered = sorted(lengths)
        size = len(ordered) // PARTS if self.work.ragged else len(ordered)
        for start in range(0, len(ordered), size):
            part = ordered[start : start + size]
            attentions.append(self._attention(len(part), part[-1], PROMPT + part[-1]))
        self._forward(states, attentions, times=3)
        decided = states[: sum(lengths)]
        for start in range(0, len(decided), 256):
            for _ in range(3):
                decided[start : start + 256] @ self.head.T
