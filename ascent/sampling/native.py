"""The lean decode with compiled code between its matrix products.

PyTorch multiplies; what stands between two products (norms, rotations, attention, the gate) is one call of `native.c`
each. A row keeps its memory where it is for as long as it runs: `keep` moves nothing.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from ascent.policies.causal import CausalPolicy
from ascent.policies.lean.weights import Weights, read
from ascent.sampling.compiled import library
from ascent.sampling.decode import Cached
from ascent.sampling.lean import add, linear, rotations

# Bytes of a vector in `native.c`.
BYTES = 64


class Batch(ctypes.Structure):
    """`Batch` of `native.c`."""

    _fields_ = [
        *((name, c_int64) for name in ("rows", "heads", "groups", "size", "width", "inner")),
        *((name, c_int64) for name in ("used", "prompt_blocks", "own_blocks")),
        *((name, c_double) for name in ("scaling", "least", "epsilon")),
        *((name, c_void_p) for name in ("owner", "slot", "place", "length", "cosine", "sine")),
        *((name, c_void_p) for name in ("flow", "normed", "qkv", "seen", "wide", "gated", "scores")),
    ]


class Memory(ctypes.Structure):
    """`Memory` of `native.c`, of one layer."""

    _fields_ = [
        (name, c_void_p) for name in ("prompt_keys", "prompt_values", "keys", "values", "query_norm", "key_norm")
    ]


def fits(policy: CausalPolicy) -> bool:
    """Whether the sizes of the model, its precision and this machine allow `Native`; compiles where they do."""
    if policy.device.type != "cpu" or policy.dtype not in (torch.float32, torch.float64):
        return False
    config, layer = policy.base.config, policy.base.model.layers[0]
    sizes = layer.self_attn.head_dim, config.hidden_size, config.intermediate_size
    return all(size % lanes(policy.dtype) == 0 for size in sizes) and library(policy.dtype) is not None


def lanes(dtype: torch.dtype) -> int:
    """Numbers in a vector."""
    return BYTES // dtype.itemsize


class Native:
    """A decoder for whom `fits` holds. Steps go no further than the room that `start` was told."""

    def __init__(self, policy: CausalPolicy) -> None:
        self.policy = policy
        self.library: Any = library(policy.dtype)

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        weights = self.weights = read(self.policy.base, folded=True)
        plain = Cached(self.policy)
        logits = plain.start(prompt, real, 1, room)
        count, rows, lane = len(prompt), len(prompt) * copies, lanes(logits.dtype)
        prompt_blocks, own_blocks = -(-prompt.shape[1] // lane), -(-room // lane)
        self.room = room
        self.owner = torch.arange(count).repeat_interleave(copies)
        self.slot, self.place = torch.arange(rows), plain.place.repeat_interleave(copies)
        self.cos, self.sin = rotations(self.policy, prompt.shape[1] + room, logits)
        self.length, self.scores = real.sum(1), logits.new_empty((prompt_blocks + own_blocks) * lane)
        width, heads = weights.embedding.shape[1], (weights.heads, weights.groups, weights.size)
        self.batch = Batch(
            rows, *heads, width, weights.layers[0].down.shape[0], 0, prompt_blocks, own_blocks,
            weights.scaling, width * weights.epsilon, weights.epsilon,
        )  # fmt: skip
        for name in ("length", "scores"):
            setattr(self.batch, name, getattr(self, name).data_ptr())
        self.batch.cosine, self.batch.sine = self.cos.data_ptr(), self.sin.data_ptr()
        order = (~real).long().argsort(dim=1, stable=True)
        caches: list[Any] = plain.cache.layers
        self.held = [self._held(cache.keys, cache.values, order, rows) for cache in caches]
        self.memory = [
            Memory(
                *(tensor.data_ptr() for tensor in held),
                *(None if norm is None else norm.data_ptr() for norm in (layer.query_norm, layer.key_norm)),
            )
            for held, layer in zip(self.held, weights.layers, strict=True)
        ]
        self.row = self._rows(logits, weights, rows)
        self._point()
        return logits.repeat_interleave(copies, 0)

    def _held(self, keys: Tensor, values: Tensor, order: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Keys and values [P, K, L, D] of prompts as `native.c` wants them, and room for those of `rows` rows."""
        count, groups, width, size = keys.shape
        lane, batch = lanes(keys.dtype), self.batch
        place = order[:, None, :, None].expand(-1, groups, -1, size)
        padded = (0, 0, 0, batch.prompt_blocks * lane - width)
        key, value = (torch.nn.functional.pad(item.gather(2, place), padded) for item in (keys, values))
        own = rows, groups, batch.own_blocks, lane, size
        return (
            key.view(count, groups, batch.prompt_blocks, lane, size).transpose(3, 4).contiguous(),
            value.contiguous(),
            keys.new_empty(own),
            keys.new_empty(own),
        )

    def _rows(self, like: Tensor, weights: Weights, rows: int) -> dict[str, Tensor]:
        """Room for what the rows carry between two products, by its name in `Batch`."""
        layer, batch = weights.layers[0], self.batch
        widths = {
            "flow": batch.width,
            "normed": batch.width,
            "qkv": layer.qkv.shape[1],
            "seen": batch.heads * batch.size,
            "wide": 2 * batch.inner,
            "gated": batch.inner,
        }
        return {name: like.new_empty(rows, width) for name, width in widths.items()}

    def _point(self) -> None:
        """Tell `native.c` which rows are left."""
        self.batch.rows = len(self.slot)
        self.row = {name: room[: len(self.slot)] for name, room in self.row.items()}
        for name, room in self.row.items():
            setattr(self.batch, name, room.data_ptr())
        for name in ("owner", "slot", "place"):
            setattr(self.batch, name, getattr(self, name).data_ptr())

    def step(self, tokens: Tensor) -> Tensor:
        if self.batch.used >= self.room:
            raise ValueError(f"the decoder has room for {self.room} tokens of its own; start it with more.")
        batch, row, weights = ctypes.byref(self.batch), self.row, self.weights
        normalise, attend, gate = self.library.normalise, self.library.attend, self.library.gate
        flow, normed, seen, gated = row["flow"], row["normed"], row["seen"], row["gated"]
        torch.index_select(weights.embedding, 0, tokens, out=flow)
        for layer, memory in zip(weights.layers, self.memory, strict=True):
            normalise(batch, None)
            linear(normed, layer.qkv, layer.qkv_bias, row["qkv"])
            attend(batch, ctypes.byref(memory))
            add(flow, seen, layer.out, layer.out_bias)
            normalise(batch, None)
            linear(normed, layer.gate_up, layer.gate_up_bias, row["wide"])
            gate(batch)
            add(flow, gated, layer.down, layer.down_bias)
        normalise(batch, None if weights.norm is None else c_void_p(weights.norm.data_ptr()))
        self.place += 1
        self.batch.used += 1
        return torch.nn.functional.linear(normed, weights.head, weights.head_bias)

    def keep(self, rows: Tensor) -> None:
        self.owner, self.slot, self.place = self.owner[rows], self.slot[rows], self.place[rows]
        self._point()
