"""The layers of a decoder of the Llama family on flat tokens [M, H], in the order of a `Layout`.

Its own modules are called for every matrix product, so adapters and hooks on them stay active; only attention is
told which tokens belong together. The plain Hugging Face forward is the reference and is tested equal.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ascent.policies.lean.packed import Block, Layout, Rows


class Place(torch.autograd.Function):
    """Flat rows [m, ...] at their places in padded rows; a place without one repeats the first row.

    What flows back to a repeated row is dropped: no query sees it, and its own answer is not read.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return flat.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        return Take.apply(slope, index, inverse), None, None  # type: ignore[no-untyped-call]


class Take(torch.autograd.Function):
    """The inverse of `Place`: flat rows out of padded ones; padding receives zero."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        return padded.index_select(0, inverse)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        padded = slope.new_zeros(len(index), *slope.shape[1:])
        return padded.index_copy(0, inverse, slope), None, None


class RMSNorm(torch.autograd.Function):
    """`weight * x / sqrt(mean(x^2) + eps)` over the last axis, at least in float32 (float64 stays float64)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return torch.mul(wide, scale).to(x.dtype).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        wide, flowing = x.to(scale.dtype), slope.to(scale.dtype)
        product = (flowing * wide).flatten(0, -2)
        factor = weight.to(scale.dtype)
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = torch.mv(product.T, scale.flatten()).to(weight.dtype)
        # y = w x s with s = (mean(x^2) + eps)^(-1/2), so ds / dx = -s^3 x / width.
        along = torch.mv(product, factor).view_as(scale)
        pull = along.mul_(scale.pow(3)).div_(-x.shape[-1])
        return (flowing * factor).mul_(scale).addcmul_(wide, pull).to(x.dtype), to_weight, None


class Rotation(torch.autograd.Function):
    """Rotary embedding `x cos + rotate_half(x) sin`; nothing but the angles is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, turn: Tensor) -> Tensor:
        ctx.save_for_backward(cos, turn)
        return swapped(x).mul_(turn).addcmul_(x, cos)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        cos, turn = ctx.saved_tensors
        return swapped(slope).mul_(swapped(turn)).addcmul_(slope, cos), None, None


def swapped(x: Tensor) -> Tensor:
    """The two halves of the last axis exchanged, a fresh tensor."""
    first, second = x.chunk(2, -1)
    return torch.cat([second, first], -1)


def watched(module: nn.Module) -> bool:
    """Whether something expects the module to be called as a whole: a hook, or a forward of its own."""
    inside = module.__dict__
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in inside or any(inside.get(name) for name in hooks)


def normalise(norm: Any, x: Tensor) -> Tensor:
    """What the architecture's RMS norm says of [..., H]."""
    found: Tensor = RMSNorm.apply(x, norm.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
    return found


def place(flat: Tensor, rows: Rows) -> Tensor:
    """[m, ...] -> [n * width, ...]."""
    if rows.index is None:
        return flat
    padded: Tensor = Place.apply(flat, rows.index, rows.inverse)  # type: ignore[no-untyped-call]
    return padded


def take(padded: Tensor, rows: Rows) -> Tensor:
    """[n * width, ...] -> [m, ...]."""
    if rows.index is None:
        return padded
    flat: Tensor = Take.apply(padded, rows.index, rows.inverse)  # type: ignore[no-untyped-call]
    return flat


def states(decoder: Any, layout: Layout) -> Tensor:
    """[K, H] the last states, after the final norm, of the tokens `layout.kept`.

    Args:
        decoder: a `LlamaModel`, or one that differs from it only in its attention's projections and norms.
        layout: of the tokens.
    """
    flow = decoder.embed_tokens(layout.ids)
    cos, sin = (angle[0, :, None] for angle in decoder.rotary_emb(flow, layout.position[None]))
    first, second = sin.chunk(2, -1)
    turn = torch.cat([-first, second], -1)
    layers = decoder.layers[: decoder.config.num_hidden_layers]
    for layer in layers[:-1]:
        flow = _layer(layer, flow, cos, turn, layout, None)
    return normalise(decoder.norm, _layer(layers[-1], flow, cos, turn, layout, layout.kept))


def _layer(layer: Any, flow: Tensor, cos: Tensor, turn: Tensor, layout: Layout, kept: Tensor | None) -> Tensor:
    """One layer; with `kept` its answers at those tokens only."""
    if kept is not None and len(kept) == len(flow):
        kept = None
    attention = layer.self_attn
    inner = normalise(layer.input_layernorm, flow)
    asking = inner
    if kept is not None:
        asking, flow = inner.index_select(0, kept), flow.index_select(0, kept)
    query = _heads(attention, "q", asking)
    key = _heads(attention, "k", inner)
    value = attention.v_proj(inner).unflatten(-1, (-1, attention.head_dim))
    if kept is None:
        query = rotate(query, cos, turn)
    else:
        query = rotate(query, cos.index_select(0, kept), turn.index_select(0, kept))
    key = rotate(key, cos, turn)
    seen = attend(query, key, value, attention.scaling, layout, kept is not None)
    flow = flow + attention.o_proj(seen.flatten(1))
    return flow + layer.mlp(normalise(layer.post_attention_layernorm, flow))


def _heads(attention: Any, kind: str, inner: Tensor) -> Tensor:
    """Queries or keys [m, heads, D], normalised where the architecture does so (Qwen3)."""
    found: Tensor = getattr(attention, f"{kind}_proj")(inner).unflatten(-1, (-1, attention.head_dim))
    norm: nn.Module | None = getattr(attention, f"{kind}_norm", None)
    return found if norm is None else normalise(norm, found)


def rotate(heads: Tensor, cos: Tensor, turn: Tensor) -> Tensor:
    """Rotary embedding of [m, heads, D] by the cosines and signed sines [m, 1, D] of the positions."""
    found: Tensor = Rotation.apply(heads, cos, turn)  # type: ignore[no-untyped-call]
    return found


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, layout: Layout, last: bool) -> Tensor:
    """Causal attention of every text, [m, heads, D]: a response sees its prompt and its own past.

    Args:
        query: [m, heads, D] of all tokens, or with `last` of the kept ones.
        key, value: [M, key heads, D] of all tokens.
    """
    prompts, responses = layout.last if last else layout.full
    tokens = layout.prompt_tokens
    split = [tokens, len(key) - tokens]
    asked = layout.kept_prompt if last else tokens
    query_parts = query.split([asked, len(query) - asked])
    key_parts, value_parts = key.split(split), value.split(split)
    answers = _attend_part(query_parts[0], key_parts[0], value_parts[0], None, None, scaling, prompts)
    if responses:
        shape = (layout.prompt_count, -1, *key.shape[1:])
        shared = [place(part[0], layout.prompts).view(shape) for part in (key_parts, value_parts)]
        answers += _attend_part(query_parts[1], key_parts[1], value_parts[1], *shared, scaling, responses)
    return torch.cat(answers) if len(answers) > 1 else answers[0]


def _attend_part(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    shared_key: Tensor | None,
    shared_value: Tensor | None,
    scaling: float,
    blocks: tuple[Block, ...],
) -> list[Tensor]:
    answers = []
    sizes = [block.key_size for block in blocks]
    parts = zip(
        blocks, query.split([block.size for block in blocks]), key.split(sizes), value.split(sizes), strict=True
    )
    for block, asking, own_key, own_value in parts:
        if not block.size:
            continue
        padded = place(asking, block.queries).view(block.count, block.width, *asking.shape[1:])
        keys = _with_prompt(own_key, shared_key, block)
        values = _with_prompt(own_value, shared_value, block)
        heads, groups = asking.shape[1], asking.shape[1] // own_key.shape[1]
        bias = None if block.bias is None else block.bias.expand(block.count, -1, -1, -1)
        found = functional.scaled_dot_product_attention(
            padded.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=bias,
            is_causal=bias is None,
            scale=scaling,
            enable_gqa=groups > 1,
        )
        flat = found.transpose(1, 2).reshape(block.count * block.width, heads, -1)
        answers.append(take(flat, block.queries))
    return answers


def _with_prompt(own: Tensor, shared: Tensor | None, block: Block) -> Tensor:
    """[count, prompt_width + key_width, key heads, D] what the block's queries may see."""
    padded = place(own, block.keys).view(block.count, block.key_width, *own.shape[1:])
    if shared is None or block.prompt is None:
        return padded
    return torch.cat([shared[:, : block.prompt_width].index_select(0, block.prompt), padded], 1)
