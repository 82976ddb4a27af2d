"""A decoder for the Llama family with as few kernel calls a token as its mathematics allows.

Rows of one prompt share the prompt's keys and values: nothing is copied for them, and their queries meet it in one
product. Keys and values of their own tokens are written in place into a cache that grows by blocks: read with gaps,
the same numbers take up to three times as long, so it never has room for much more than it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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

    def __init__(self, policy: CausalPolicy, block: int = BLOCK) -> None:
        self.policy, self.block = policy, block

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        # A GPU has a kernel for the whole norm, and half precision would lose digits in the folded one.
        folded = prompt.device.type == "cpu" and self.policy.dtype in (torch.float32, torch.float64)
        weights = self.weights = read(self.policy.base, folded)
        plain = Cached(self.policy)
        logits = plain.start(prompt, real, 1, room)
        count, width = prompt.shape
        self.hidden_prompt: Tensor | None = None
        self.hidden_own: Tensor | None = None
        self.nothing = logits.new_zeros(1)
        self.least = logits.new_full((1,), (weights.embedding.shape[1] * weights.epsilon) ** 0.5)
        if plain.seen is not None:
            unseen = torch.zeros(count, 1, 1, width, dtype=logits.dtype, device=logits.device)
            unseen.masked_fill_(~real[:, None, None], -torch.inf)
            self.hidden_prompt = unseen.expand(-1, weights.groups, -1, -1).reshape(-1, 1, width)
        layers: list[Any] = plain.cache.layers
        self.memory = [self._remembered(layer.keys, layer.values, copies) for layer in layers]
        self.cos, self.sin = rotations(self.policy, width + room, logits)
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
            keys.new_zeros(count, groups, copies, self.block, size),
            values.new_zeros(count, groups, copies, self.block, size),
        )

    def step(self, tokens: Tensor) -> Tensor:
        self._make_room()
        place = self.place if self.row_of_slot is None else self.place[self.row_of_slot]
        logits = self._forward(tokens, place)
        self.place = self.place + 1
        self.used += 1
        return logits

    def _make_room(self) -> None:
        if self.used < self.memory[0].keys.shape[3]:
            return
        for memory in self.memory:
            memory.keys = functional.pad(memory.keys, (0, 0, 0, self.block))
            memory.values = functional.pad(memory.values, (0, 0, 0, self.block))

    def _forward(self, tokens: Tensor, place: Tensor) -> Tensor:
        """Logits [B, V] behind one token of each row; `place` [P G] of it, counted from its prompt's first."""
        weights = self.weights
        shape = self.prompts, self.slots, 1, weights.size
        cos, sin = self.cos[place].view(shape), self.sin[place].view(shape)
        flow = functional.embedding(tokens, weights.embedding)
        for layer, memory in zip(weights.layers, self.memory, strict=True):
            seen = self._attend(layer, memory, self._normed(flow, layer.entry), cos, sin)
            add(flow, seen, layer.out, layer.out_bias)
            wide = linear(self._normed(flow, layer.middle), layer.gate_up, layer.gate_up_bias)
            gate, up = wide.chunk(2, -1)
            add(flow, functional.silu(gate, inplace=True).mul_(up), layer.down, layer.down_bias)
        return functional.linear(self._normed(flow, weights.norm), weights.head, weights.head_bias)

    def _normed(self, flow: Tensor, weight: Tensor | None) -> Tensor:
        """What a norm before a matrix gives [B, H], up to what is folded into the matrix."""
        if not self.weights.folded:
            return functional.rms_norm(flow, flow.shape[-1:], weight, self.weights.epsilon)
        length = torch.linalg.vector_norm(flow, dim=-1, keepdim=True).hypot_(self.least)
        return flow / length if weight is None else (flow / length).mul_(weight)

    def _attend(self, layer: Layer, memory: Memory, flow: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[B, A D] what the rows see of their prompt, their tokens so far and the present one."""
        weights, count, slots = self.weights, self.prompts, self.slots
        heads, groups, size = weights.heads, weights.groups, weights.size
        qkv = linear(flow, layer.qkv, layer.qkv_bias)
        if self.row_of_slot is not None:
            qkv = qkv.index_select(0, self.row_of_slot)
        qkv = qkv.view(count, slots, heads + 2 * groups, size)
        both, value = qkv[:, :, : heads + groups], qkv[:, :, heads + groups :]
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = torch.split(both, [heads, groups], 2)
            query = functional.rms_norm(query, (size,), layer.query_norm, weights.epsilon)
            both = torch.cat([query, functional.rms_norm(key, (size,), layer.key_norm, weights.epsilon)], 2)
        both = torch.addcmul(both * cos, both.roll(size // 2, -1), sin)
        query = both[:, :, :heads].view(count, slots, groups, -1, size).transpose(1, 2)
        query = query.reshape(count * groups, -1, size)
        keys, values = self._remember(memory, both[:, :, heads:].transpose(1, 2), value.transpose(1, 2))
        apart = (count * groups * slots, -1)
        own = self._scores(self.hidden_own, query.reshape(*apart, size), keys).view(*query.shape[:2], -1)
        shared = self._scores(self.hidden_prompt, query, memory.prompt_keys)
        share = torch.cat([shared, own], -1).softmax(-1)
        width = shared.shape[-1]
        seen = torch.bmm(share[..., width:].view(*apart, own.shape[-1]), values).view(query.shape)
        seen.baddbmm_(share[..., :width], memory.prompt_values)
        seen = seen.view(count, groups, slots, -1).transpose(1, 2).reshape(count * slots, heads * size)
        return seen if self.slot_of_row is None else seen.index_select(0, self.slot_of_row)

    def _scores(self, hidden: Tensor | None, query: Tensor, keys: Tensor) -> Tensor:
        """Attention scores [N, M, n] of queries [N, M, D] and keys [N, D, n]; `hidden` is -inf where not to look."""
        scaling = self.weights.scaling
        if hidden is None:
            return torch.baddbmm(self.nothing, query, keys, beta=0, alpha=scaling)
        return torch.baddbmm(hidden, query, keys, alpha=scaling)

    def _remember(self, memory: Memory, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write the present token's [P, K, G, D]; keys [P K G, D, n] and values [P K G, n, D] so far."""
        now = self.used
        memory.keys[:, :, :, now] = key
        memory.values[:, :, :, now] = value
        keys, values = memory.keys.flatten(0, 2), memory.values.flatten(0, 2)
        return keys[:, : now + 1].transpose(1, 2), values[:, : now + 1]

    def keep(self, rows: Tensor) -> None:
        slot = rows if self.slot_of_row is None else self.slot_of_row[rows]
        self.owner, self.place = self.owner[rows], self.place[rows]
        prompts, number, counts = torch.unique_consecutive(self.owner, return_inverse=True, return_counts=True)
        count, slots = len(prompts), int(counts.max())
        seat, source = seats(number, counts, slot, count, slots)
        self._move(prompts, source, count, slots)
        self.owner = number
        self.row_of_slot = self.slot_of_row = None
        if len(rows) < count * slots:
            # A hole repeats the first row; nobody reads what it sees.
            places = torch.arange(len(rows), device=rows.device)
            self.row_of_slot, self.slot_of_row = places.new_zeros(count * slots).index_put((seat,), places), seat

    def _move(self, prompts: Tensor, source: Tensor, count: int, slots: int) -> None:
        """Go on with `prompts` [count] and with the slots [count * slots] that were numbered `source`."""
        groups = self.weights.groups
        pairs = (prompts[:, None] * groups + torch.arange(groups, device=prompts.device)).view(-1)
        if self.hidden_prompt is not None:
            self.hidden_prompt = self.hidden_prompt[pairs]
        for memory in self.memory:
            memory.prompt_keys, memory.prompt_values = memory.prompt_keys[pairs], memory.prompt_values[pairs]
            memory.keys = self._moved(memory.keys, source, count, slots)
            memory.values = self._moved(memory.values, source, count, slots)
        self.prompts, self.slots = count, slots

    def _moved(self, cache: Tensor, source: Tensor, count: int, slots: int) -> Tensor:
        old, used = cache.shape[2], self.used
        grown = cache.new_zeros(count, cache.shape[1], slots, *cache.shape[3:])
        kept = cache[:, :, :, :used].transpose(1, 2)[source // old, source % old]
        grown[:, :, :, :used] = kept.view(count, slots, *kept.shape[1:]).transpose(1, 2)
        return grown


def seats(number: Tensor, counts: Tensor, slot: Tensor, count: int, slots: int) -> tuple[Tensor, Tensor]:
    """Rows of prompts `number` [B] (ascending, `counts` of each) in slots [count, slots].

    Returns:
        The new slot [B] of each row, and for each new slot [count * slots] the old one that it continues, out of
        `slot` [B], the rows' old ones; a hole continues that of the first row.
    """
    first = counts.cumsum(0) - counts
    seat = number * slots + torch.arange(len(number), device=number.device) - first[number]
    return seat, slot[:1].repeat(count * slots).index_put((seat,), slot)


def rotations(policy: CausalPolicy, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, D] of each place, the sine with the sign of the half that it turns."""
    places = torch.arange(length, device=like.device)[None]
    cos, sin = policy.base.model.rotary_emb(like, places)
    half = cos.shape[-1] // 2
    return cos[0].contiguous(), torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)


def linear(flow: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """flow weight + bias."""
    return torch.mm(flow, weight, out=out) if bias is None else torch.addmm(bias, flow, weight, out=out)


def add(flow: Tensor, inner: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """flow += inner weight + bias, in place."""
    flow.addmm_(inner, weight)
    if bias is not None:
        flow += bias
