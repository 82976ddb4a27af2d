"""Which models the packed forward knows, and whether it says what their own forward says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaModel, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import (
    MistralAttention,
    MistralDecoderLayer,
    MistralModel,
    MistralRMSNorm,
)
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer, Qwen2Model, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer, Qwen3Model, Qwen3RMSNorm

from ascent.core.decisions import Decisions
from ascent.policies.lean.blocks import states, watched
from ascent.policies.lean.packed import layout

# Exactly these classes: a subclass may do anything in its forward.
KNOWN: dict[type, tuple[type, type, type, type]] = {
    LlamaForCausalLM: (LlamaModel, LlamaDecoderLayer, LlamaAttention, LlamaRMSNorm),
    MistralForCausalLM: (MistralModel, MistralDecoderLayer, MistralAttention, MistralRMSNorm),
    Qwen2ForCausalLM: (Qwen2Model, Qwen2DecoderLayer, Qwen2Attention, Qwen2RMSNorm),
    Qwen3ForCausalLM: (Qwen3Model, Qwen3DecoderLayer, Qwen3Attention, Qwen3RMSNorm),
}
ATTENTION = frozenset({"sdpa", "eager"})
# Rotary angles that depend on the position alone; others also look at the longest text of a batch.
ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
# Relative distance of two exact ways to the same tensor; half precision rounds once a layer.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}
HALF_TOLERANCE = 0.1

Reader = Callable[[Decisions], Tensor]


def refusal(model: PreTrainedModel) -> str | None:
    """Why the packed forward does not fit this model as it is now; None where it does."""
    known = KNOWN.get(type(model))
    if known is None:
        return f"it knows {', '.join(sorted(item.__name__ for item in KNOWN))}, not {type(model).__name__}"
    decoder: Any = model.model
    config = decoder.config
    layers = list(decoder.layers)
    attentions = [layer.self_attn for layer in layers]
    norms = [module for name, module in decoder.named_modules() if name.endswith("norm")]
    expected = ([decoder], layers, attentions, norms)
    if any(type(module) is not kind for modules, kind in zip(expected, known, strict=True) for module in modules):
        return "a layer of the model was replaced"
    if config._attn_implementation not in ATTENTION:
        return f"attention {config._attn_implementation!r} is none of {sorted(ATTENTION)}"
    if decoder.rotary_emb.rope_type not in ROTARY:
        return f"rotary positions of type {decoder.rotary_emb.rope_type!r} depend on the batch"
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return "layers with a sliding window are not among what it knows"
    if decoder.gradient_checkpointing or any(layer.gradient_checkpointing for layer in layers):
        return "gradient checkpointing is on"
    if any(watched(module) for modules in expected for module in modules):
        return "a hook sits on a module that it does not call as a whole"
    return None


def window(model: PreTrainedModel) -> int | None:
    """The longest text whose attention a sliding window leaves whole (Mistral); None is any."""
    size = getattr(model.config, "sliding_window", None)
    return int(size) if type(model) is MistralForCausalLM and size is not None else None


def disagreement(model: PreTrainedModel, plain: Reader) -> str | None:
    """Compare packed and plain forward on a tiny batch, states and gradients; None where they agree.

    Args:
        plain: decisions -> [D, H] the states of the decided entries by the model's own forward.
    """
    decoder: Any = model.model
    decisions = _trial(len(decoder.embed_tokens.weight), decoder.embed_tokens.weight.device)
    ends = (decoder.layers[0], decoder.layers[-1])
    leaves = list(dict.fromkeys(item for layer in ends for item in layer.parameters()))
    leaves = [item for item in leaves if item.requires_grad]
    with torch.enable_grad():
        packed = layout(decisions, False, decoder.embed_tokens.weight.dtype)
        assert packed is not None
        found = [states(decoder, packed).index_select(0, packed.state), plain(decisions)]
        slope = torch.linspace(-1, 1, found[0].numel(), device=found[0].device).view_as(found[0])
        slopes = [
            torch.autograd.grad((item * slope).sum(), leaves, materialize_grads=True) if leaves else ()
            for item in found
        ]
    tolerance = TOLERANCE.get(found[1].dtype, HALF_TOLERANCE)
    if not _close([found[0]], [found[1]], tolerance):
        return "its states differ from the model's own"
    if slopes and not _close(*slopes, tolerance):
        return "its gradients differ from the model's own"
    return None


def _close(found: Iterable[Tensor], expected: Iterable[Tensor], tolerance: float) -> bool:
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(found, expected, strict=True)]
    scale = max((float(b.norm()) for _, b in pairs), default=0.0)
    return all(float((a - b).norm()) <= tolerance * (float(b.norm()) + 1e-3 * scale) for a, b in pairs)


def _trial(vocabulary: int, device: torch.device) -> Decisions:
    """Two prompts of uneven length, three responses of uneven length, two of them to one prompt."""
    ids = torch.arange(2 * 4 + 3 * 4, device=device) * 7919 % vocabulary
    lengths = torch.tensor([[4], [1], [3]], device=device)
    return Decisions(
        mask=torch.arange(4, device=device) < lengths,
        context={
            "prompt": ids[:8].view(2, 4),
            "prompt_mask": torch.arange(4, device=device) >= torch.tensor([[0], [2]], device=device),
        },
        context_row=torch.tensor([0, 1, 0], device=device),
        action=ids[8:].view(3, 4),
    )
