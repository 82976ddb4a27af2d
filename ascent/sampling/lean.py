"""A decoder for the Llama family with as few kernel calls a token as its mathematics allows.

Rows of one prompt share the prompt's keys and values: nothing is copied for them, and their queries meet it in one
product. Keys and values of their own tokens are written in place into a cache that grows by blocks: read with gaps,
the same numbers take up to three times as long, so it never has room for much more than it holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from ascent.policies.causal import CausalPolicy
from ascent.policies.lean.weights import Layer, read
from ascent.sampling.decode import Cached

# Tokens by which the cache grows.
BLOCK = 32


@dataclass
class Memory:
    """What one layer remembers of P prompts of L tokens and G slots of each, with room for R tokens.

    Attributes:
        prompt_keys: [P K, D, L]; prompt_values: [P K, L, D].
        keys, values: [P, K, G, R, D].
    """

    prompt_keys: Tensor
    prompt_values: Tensor
    keys: Tensor
    values: Tensor


class Lean:
    """The tokens' way through the layers by hand, on the model's own weights.

    Rows live in *slots* [P, G]: G is the most rows that any prompt still has. Only attention sees slots; everything
    else works on the rows that are left.
    """

    def __init__(self, policy: CausalPolicy) -> None:
        self.policy = policy

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        weights = self.weights = read(self.policy.base)
        plain = Cached(self.policy)
        logits = plain.start(prompt, real, 1, room)
        count, width = prompt.shape
        self.hidden_prompt = None
        if plain.seen is not None:
            unseen = torch.zeros(count, 1, 1, width, dtype=logits.dtype, device=logits.device)
            unseen.masked_fill_(~real[:, None, None], -torch.inf)
            self.hidden_prompt = unseen.expand(-1, weights.groups, -1, -1).reshape(-1, 1, width)
        self.memory = [
            self._remembered(layer.keys, layer.values, copies)
            for layer in plain.cache.layers  # type: ignore[attr-defined]
        ]
        self.cos, self.sin = self._rotations(width + room, logits)
        self.prompts, self.slots, self.used = count, copies, 0
        # Row of each slot and slot of each row; None while they are the same.
        self.row_of_slot: Tensor | None = None
        self.slot_of_row: Tensor | None = None
        self.owner = torch.arange(count, device=logits.device).repeat_interleave(copies)
        self.place = plain.place.repeat_interleave(copies)
        return logits.repeat_interleave(copies, 0)

    def _remembered(self, keys: Tensor, values: Tensor, copies: int) -> Memory:
        """From a prompt's keys and values [P, K, L, D]."""
        count, groups, width, size = keys.shape
        return Memory(
            keys.transpose(2, 3).reshape(count * groups, size, width),
            values.reshape(count * groups, width, size),
            keys.new_empty(count, groups, copies, BLOCK, size),
            values.new_empty(count, groups, copies, BLOCK, size),
        )

    def _rotations(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [length, 1, D] of each place, the sine with the sign of the half that it turns."""
        places = torch.arange(length, device=like.device)[None]
        cos, sin = self.policy.base.model.rotary_emb(like, places)
        half = self.weights.size // 2
        return cos[0, :, None], torch.cat([-sin[0, :, None, :half], sin[0, :, None, half:]], -1)

    def step(self, tokens: Tensor) -> Tensor:
        weights = self.weights
        if self.used and self.used % BLOCK == 0:
            self._grow()
        place = self.place if self.row_of_slot is None else self.place[self.row_of_slot]
        cos, sin = self.cos[place], self.sin[place]
        flow = functional.embedding(tokens, weights.embedding)
        for layer, memory in zip(weights.layers, self.memory, strict=True):
            seen = self._attend(layer, memory, self._normed(flow, layer.entry), cos, sin)
            _add(flow, seen, layer.out, layer.out_bias)
            wide = _linear(self._normed(flow, layer.middle), layer.gate_up, layer.gate_up_bias)
            gate, up = wide.chunk(2, -1)
            _add(flow, functional.silu(gate, inplace=True).mul_(up), layer.down, layer.down_bias)
        self.place = self.place + 1
        self.used += 1
        return functional.linear(self._normed(flow, weights.norm), weights.head, weights.head_bias)

    def _grow(self) -> None:
        for memory in self.memory:
            memory.keys, memory.values = (
                functional.pad(item, (0, 0, 0, BLOCK)) for item in (memory.keys, memory.values)
            )

    def _normed(self, flow: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(flow, weight.shape, weight, self.weights.epsilon)

    def _attend(self, layer: Layer, memory: Memory, flow: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[B, A D] what the rows see of their prompt, their tokens so far and the present one."""
        weights, count, slots = self.weights, self.prompts, self.slots
        heads, groups, size = weights.heads, weights.groups, weights.size
        qkv = _linear(flow, layer.qkv, layer.qkv_bias)
        if self.row_of_slot is not None:
            qkv = qkv.index_select(0, self.row_of_slot)
        qkv = qkv.view(count * slots, heads + 2 * groups, size)
        both, value = qkv[:, : heads + groups], qkv[:, heads + groups :]
        if layer.query_norm is not None and layer.key_norm is not None:
            both = torch.cat(
                [self._normed(both[:, :heads], layer.query_norm), self._normed(both[:, heads:], layer.key_norm)], 1
            )
        both = torch.addcmul(both * cos, both.roll(size // 2, -1), sin)
        query = both[:, :heads] * weights.scaling
        query = query.view(count, slots, groups, -1, size).transpose(1, 2).reshape(count * groups, -1, size)

        now = self.used
        memory.keys[:, :, :, now] = both[:, heads:].view(count, slots, groups, size).transpose(1, 2)
        memory.values[:, :, :, now] = value.view(count, slots, groups, size).transpose(1, 2)
        keys, values = (
            item.view(count * groups * slots, -1, size)[:, : now + 1] for item in (memory.keys, memory.values)
        )
        own = torch.bmm(query.reshape(len(keys), -1, size), keys.transpose(1, 2)).view(*query.shape[:2], -1)
        if self.hidden_prompt is None:
            shared = torch.bmm(query, memory.prompt_keys)
        else:
            shared = torch.baddbmm(self.hidden_prompt, query, memory.prompt_keys)
        share = torch.cat([shared, own], -1).softmax(-1)
        width = shared.shape[-1]
        seen = torch.bmm(share[..., width:].view(len(keys), -1, now + 1), values).view(query.shape)
        seen.baddbmm_(share[..., :width], memory.prompt_values)
        seen = seen.view(count, groups, slots, -1).transpose(1, 2).reshape(count * slots, heads * size)
        return seen if self.slot_of_row is None else seen.index_select(0, self.slot_of_row)

    def keep(self, rows: Tensor) -> None:
        slot = rows if self.slot_of_row is None else self.slot_of_row[rows]
        self.owner, self.place = self.owner[rows], self.place[rows]
        prompts, number, counts = self.owner.unique_consecutive(return_inverse=True, return_counts=True)
        count, slots = len(prompts), int(counts.max())
        first = counts.cumsum(0) - counts
        new = number * slots + torch.arange(len(rows), device=rows.device) - first[number]
        # A hole repeats the first row of its prompt; nobody reads what it sees.
        row_of_slot = first.repeat_interleave(slots).index_put((new,), torch.arange(len(rows), device=rows.device))
        source = slot[row_of_slot]
        for memory in self.memory:
            memory.keys, memory.values = (
                self._moved(item, source, count, slots) for item in (memory.keys, memory.values)
            )
        if count < self.prompts:
            self._forget(prompts)
        self.owner, self.prompts, self.slots = number, count, slots
        full = len(rows) == count * slots
        self.row_of_slot, self.slot_of_row = (None, None) if full else (row_of_slot, new)

    def _moved(self, cache: Tensor, source: Tensor, count: int, slots: int) -> Tensor:
        """The cache [P', K, G', R, D] whose slots are those numbered `source` of the old one."""
        old, used = cache.shape[2], self.used
        grown = cache.new_empty(count, cache.shape[1], slots, *cache.shape[3:])
        kept = cache[:, :, :, :used].transpose(1, 2)[source // old, source % old]
        grown[:, :, :, :used] = kept.view(count, slots, *kept.shape[1:]).transpose(1, 2)
        return grown

    def _forget(self, prompts: Tensor) -> None:
        """Drop the prompts that have no rows left."""
        pairs = (
            prompts[:, None] * self.weights.groups + torch.arange(self.weights.groups, device=prompts.device)
        ).view(-1)
        if self.hidden_prompt is not None:
            self.hidden_prompt = self.hidden_prompt[pairs]
        for memory in self.memory:
            memory.prompt_keys, memory.prompt_values = memory.prompt_keys[pairs], memory.prompt_values[pairs]


def _linear(flow: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """flow weight + bias."""
    return torch.mm(flow, weight) if bias is None else torch.addmm(bias, flow, weight)


def _add(flow: Tensor, inner: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """flow += inner weight^T + bias, in place."""
    flow.addmm_(inner, weight.t())
    if bias is not None:
        flow += bias
