"""The lean decode with shapes that stand still, so that a CUDA graph can replay its kernels without Python between.

What changes from token to token is in tensors that keep their place: the tokens, their positions, how many tokens
were written. Rows that leave stay in their slots until half of the slots suffice, and every shape is captured once,
outside of the graph's first use. Without a GPU the same step runs uncaptured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ascent.policies.causal import CausalPolicy
from ascent.sampling.lean import Lean, Memory, seats

# The width of prompts is a multiple of the first, the room for own tokens one of the second.
PROMPT_BLOCK, OWN_BLOCK = 64, 128


class Captured(Lean):
    """`Lean` in static shapes: all slots go through the layers, holes included.

    Args:
        policy: of the Llama family.
        block: tokens by which the cache grows.
        capture: replay a CUDA graph; None where the policy is on a CUDA device.
    """

    def __init__(self, policy: CausalPolicy, block: int = OWN_BLOCK, capture: bool | None = None) -> None:
        super().__init__(policy, block)
        self.capture = policy.device.type == "cuda" if capture is None else capture

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        left = -prompt.shape[1] % PROMPT_BLOCK
        prompt = torch.nn.functional.pad(prompt, (left, 0), value=self.policy.pad)
        real = torch.nn.functional.pad(real, (left, 0), value=False)
        logits = super().start(prompt, real, copies, room)
        rows = len(logits)
        # Slot of each row of the batch. Holes are read as if they were the rows that left them.
        self.seat = torch.arange(rows, device=logits.device)
        self.now = torch.zeros(1, dtype=torch.long, device=logits.device)
        self._settle()
        return logits

    def _settle(self) -> None:
        """Tensors that stand still as long as the shapes do."""
        self.tokens = self.seat.new_zeros(self.prompts * self.slots)
        self.position = self.place.clone()
        self.columns = torch.arange(self.memory[0].keys.shape[3], device=self.seat.device)
        self.run: Callable[[], Tensor] | None = None

    def step(self, tokens: Tensor) -> Tensor:
        held = self.memory[0].keys.shape[3]
        self._make_room()
        if self.memory[0].keys.shape[3] != held:
            self._settle()
        self.tokens[self.seat] = tokens
        self.position.copy_(self.place)
        self.now.fill_(self.used)
        if self.run is None:
            self.run = replayed(self._still) if self.capture else self._still
        logits = self.run()[self.seat]
        # A slot whose row has left must not walk off the table of rotations.
        self.place = (self.place + 1).clamp(max=len(self.cos) - 1)
        self.used += 1
        return logits

    def _still(self) -> Tensor:
        """The step as a function of tensors alone."""
        future = self.columns > self.now
        self.hidden_own = torch.zeros_like(future, dtype=self.cos.dtype).masked_fill_(future, -torch.inf)[None, None]
        return self._forward(self.tokens, self.position)

    def _remember(self, memory: Memory, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        memory.keys.index_copy_(3, self.now, key.unsqueeze(3))
        memory.values.index_copy_(3, self.now, value.unsqueeze(3))
        return memory.keys.flatten(0, 2).transpose(1, 2), memory.values.flatten(0, 2)

    def keep(self, rows: Tensor) -> None:
        seat = self.seat[rows]
        prompts, number, counts = torch.unique_consecutive(seat // self.slots, return_inverse=True, return_counts=True)
        count = halved(self.prompts, len(prompts))
        slots = halved(self.slots, int(counts.max()))
        if (count, slots) == (self.prompts, self.slots):
            self.seat = seat
            return
        self.seat, source = seats(number, counts, seat, count, slots)
        self.place = self.place[source]
        self._move(torch.cat([prompts, prompts[:1].expand(count - len(prompts))]), source, count, slots)
        self._settle()


def halved(most: int, needed: int) -> int:
    """The smallest of `most`, half of it, a quarter, ... (rounded up) that is at least `needed`."""
    while most > 1 and -(-most // 2) >= needed:
        most = -(-most // 2)
    return most


def replayed(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`run`, captured as a CUDA graph; it may read and write only tensors that stay where they are.

    It runs once before, on a stream of its own, so that libraries allocate what they keep outside of the graph.
    """
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()

    def replay() -> Tensor:
        graph.replay()
        return found

    return replay
