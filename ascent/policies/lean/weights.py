"""The weights of a decoder of the Llama family, laid out for one token at a time.

Query, key and value projections are one matrix, and so are gate and up: copies, which a reader refreshes before each
rollout, since the weights learn between two of them. Where a reader wants them *folded*, the norms' weights are in the
copies of the matrices that follow them, and the other matrices are copies too. The rest is the model's own storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ascent.policies.lean.recognise import KNOWN, ROTARY

# Dormant hooks that transformers leaves behind once hidden states were asked for.
DORMANT = "transformers.utils.output_capturing"
# Elements up to which a folded head costs less than to multiply by the last norm's weight at each token.
SMALL_HEAD = 2**17


@dataclass(frozen=True)
class Layer:
    """One block: H width, A query heads, K key-value heads, D of a head, F feed-forward.

    Attributes:
        entry: [H] norm before attention, None where folded into qkv: [H, (A + 2 K) D], qkv_bias.
        query_norm, key_norm: [D], of Qwen3.
        out: [A D, H], out_bias.
        middle: [H] norm before the feed-forward, None where folded into gate_up: [H, 2 F], gate_up_bias.
        down: [F, H], down_bias.
    """

    entry: Tensor | None
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    middle: Tensor | None
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


@dataclass(frozen=True)
class Weights:
    """A whole decoder.

    Attributes:
        embedding: [V, H]; layers; norm: [H] or None where folded into head: [V, H], head_bias.
        heads, groups, size: A, K and D. epsilon: of every norm. scaling: of attention scores.
        folded: norms before matrices are to divide by the length sqrt(|x|^2 + H epsilon) and no more: the factor
        sqrt(H) is in their weights, wherever these are.
    """

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor | None
    head: Tensor
    head_bias: Tensor | None
    heads: int
    groups: int
    size: int
    epsilon: float
    scaling: float
    folded: bool


def refusal(model: nn.Module) -> str | None:
    """Why `read` does not know this model; None where it does."""
    if type(model) not in KNOWN:
        return f"{type(model).__name__} is not one of {', '.join(item.__name__ for item in KNOWN)}"
    config: Any = model.config
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    rotation = (config.rope_parameters or {}).get("rope_type", "default")
    if rotation not in ROTARY:
        return f"its rotary embedding {rotation!r} depends on the length of the text"
    if _windowed(config):
        return "its attention has a sliding window"
    return next(_surprises(model), None)


def _windowed(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind != "full_attention" for kind in kinds)
    window = getattr(config, "sliding_window", None)
    return window is not None and window < config.max_position_embeddings


def _surprises(model: Any) -> Iterator[str]:
    """Whatever would make a module's answer differ from what its type and weights say."""
    for name, module in model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(hook.__module__ != DORMANT for hook in hooks) or "forward" in vars(module):
            yield f"{name or 'the model'} has hooks"
    for layer in model.model.layers:
        attention, feed = layer.self_attn, layer.mlp
        for linear in (*_projections(attention), attention.o_proj, feed.gate_proj, feed.up_proj, feed.down_proj):
            if type(linear) is not nn.Linear:
                yield f"a projection is a {type(linear).__name__}, not a plain linear layer"
    for module, kind in ((model.model.embed_tokens, nn.Embedding), (model.lm_head, nn.Linear)):
        if type(module) is not kind:
            yield f"{type(module).__name__} stands where a plain {kind.__name__} is expected"
    if len({(parameter.device, parameter.dtype) for parameter in model.parameters()}) > 1:
        yield "its weights are of several devices or precisions"


def _projections(attention: Any) -> tuple[Any, Any, Any]:
    return attention.q_proj, attention.k_proj, attention.v_proj


def read(model: Any, folded: bool = False) -> Weights:
    """The weights as they are now, of a model that `refusal` does not refuse; `folded`: see `Weights`."""
    first, norm, head = model.model.layers[0].self_attn, model.model.norm.weight, model.lm_head.weight
    if folded:
        norm = norm * len(norm) ** 0.5
        if head.numel() <= SMALL_HEAD:
            norm, head = None, head * norm
    return Weights(
        model.model.embed_tokens.weight,
        tuple(_layer(layer, folded) for layer in model.model.layers),
        norm,
        head,
        model.lm_head.bias,
        heads=model.config.num_attention_heads,
        groups=model.config.num_key_value_heads,
        size=first.head_dim,
        epsilon=model.model.norm.variance_epsilon,
        scaling=first.scaling,
        folded=folded,
    )


def _layer(layer: Any, folded: bool) -> Layer:
    attention, feed = layer.self_attn, layer.mlp
    qkv, gate_up = _projections(attention), (feed.gate_proj, feed.up_proj)
    normed = isinstance(getattr(attention, "q_norm", None), nn.Module)
    entry, middle = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
    out, down = attention.o_proj.weight.t(), feed.down_proj.weight.t()
    return Layer(
        None if folded else entry,
        _joined(qkv, entry if folded else None),
        _biases(qkv),
        attention.q_norm.weight if normed else None,
        attention.k_norm.weight if normed else None,
        out.contiguous() if folded else out,
        attention.o_proj.bias,
        None if folded else middle,
        _joined(gate_up, middle if folded else None),
        _biases(gate_up),
        down.contiguous() if folded else down,
        feed.down_proj.bias,
    )


def _joined(linears: tuple[Any, ...], norm: Tensor | None) -> Tensor:
    """[inputs, outputs]: few rows meet a matrix that lies this way sooner once it has left the cache."""
    whole = torch.cat([linear.weight.t() for linear in linears], 1)
    return whole if norm is None else whole.mul_(norm[:, None] * len(norm) ** 0.5)


def _biases(linears: tuple[Any, ...]) -> Tensor | None:
    return None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
