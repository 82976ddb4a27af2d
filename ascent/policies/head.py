"""The head of a language model at chosen positions: log-probability, entropy and probes.

Three ways give the same numbers. `plain` holds [M, V] logits and is fastest while they fit in cache; `fused`
walks over chunks and recomputes logits in its backward pass, so that memory does not grow with M x V;
`checkpointed` does so for probes, whose gradient only autograd knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ascent.policies.policy import Probe

# Numbers in the logits of one chunk, by where they live. Measured on a CPU core: below 2^22 the plain path is as
# fast as the fused one or faster, above it slower. A GPU wants matrix products of a thousand rows.
CHUNK = {"cpu": 2**22, "cuda": 2**27}
# Fewer rows than this and a large vocabulary's weights are read more often than they are used.
FEWEST_ROWS = 256

Linear = Callable[[Tensor], Tensor]


def upcast(logits: Tensor) -> Tensor:
    """At least float32: a log-softmax in half precision loses the small probabilities."""
    return logits if logits.dtype == torch.float64 else logits.float()


def statistics(
    logits: Tensor, hidden: Tensor, action: Tensor, needs: frozenset[str], probes: Mapping[str, Probe]
) -> dict[str, Tensor]:
    """The columns of one chunk from its logits [M, V], which are already divided by the temperature.

    Returns:
        `log_prob` [M], `entropy` [M] in nats where `needs` names it, and `probe:<name>` for each probe.
    """
    logits = upcast(logits)
    normaliser = torch.logsumexp(logits, -1)
    columns = {"log_prob": logits.gather(-1, action[:, None])[:, 0] - normaliser}
    if "entropy" in needs:
        log_probs = logits - normaliser[:, None]
        columns["entropy"] = -(log_probs.exp() * log_probs).sum(-1)
    for name, probe in probes.items():
        columns[f"probe:{name}"] = probe(logits, hidden, action)
    return columns


class FusedHead(torch.autograd.Function):
    """log pi(action) and entropy of softmax((hidden weight^T + bias) / temperature), chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        action: Tensor,
        temperature: float,
        with_entropy: bool,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        number = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        log_prob = torch.empty(len(hidden), dtype=number, device=hidden.device)
        entropy = torch.zeros_like(log_prob)
        normaliser = torch.empty_like(log_prob)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = _logits(hidden[part], weight, bias, temperature)
            normaliser[part] = torch.logsumexp(logits, -1)
            log_prob[part] = logits.gather(-1, action[part, None])[:, 0] - normaliser[part]
            if with_entropy:
                chosen = torch.exp(logits - normaliser[part, None])
                entropy[part] = normaliser[part] - chosen.mul_(logits).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, action, normaliser, entropy)
        ctx.temperature, ctx.with_entropy, ctx.rows = temperature, with_entropy, rows
        return log_prob, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_log_prob: Tensor, of_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, action, normaliser, entropy = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        to_hidden = torch.empty_like(hidden) if wants_hidden else None
        to_weight = torch.zeros_like(weight, dtype=normaliser.dtype) if wants_weight else None
        to_bias = torch.zeros_like(bias, dtype=normaliser.dtype) if wants_bias else None
        for start in range(0, len(hidden), ctx.rows):
            part = slice(start, start + ctx.rows)
            # d log p_a / d z = onehot(a) - p;   d H / d z = -p (log p + H)
            log_probs = _logits(hidden[part], weight, bias, ctx.temperature).sub_(normaliser[part, None])
            slope = log_probs.exp()
            if ctx.with_entropy:
                slope.mul_(
                    log_probs.add_(entropy[part, None]).mul_(of_entropy[part, None]).add_(of_log_prob[part, None])
                )
            else:
                slope.mul_(of_log_prob[part, None])
            slope.neg_().scatter_add_(-1, action[part, None], of_log_prob[part, None])
            slope.div_(ctx.temperature)
            if to_bias is not None:
                to_bias += slope.sum(0)
            narrow = slope.to(hidden.dtype)
            if to_hidden is not None:
                to_hidden[part] = narrow @ weight.to(hidden.dtype)
            if to_weight is not None:
                if narrow.dtype == to_weight.dtype:
                    to_weight.addmm_(narrow.T, hidden[part])
                else:
                    to_weight += narrow.T @ hidden[part]
        return (
            to_hidden,
            None if to_weight is None else to_weight.to(weight.dtype),
            None if to_bias is None else to_bias.to(bias.dtype),
            None,
            None,
            None,
            None,
        )


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """[m, V] of a chunk, in the precision of `hidden` also where autocast is on, then at least float32."""
    with torch.autocast(hidden.device.type, enabled=False):
        bias = None if bias is None else bias.to(hidden.dtype)
        logits = upcast(functional.linear(hidden, weight.to(hidden.dtype), bias))
    return logits if temperature == 1.0 else logits / temperature


def plain(
    hidden: Tensor,
    linear: Linear,
    action: Tensor,
    temperature: float,
    needs: frozenset[str],
    probes: Mapping[str, Probe],
) -> dict[str, Tensor]:
    """All positions at once."""
    return statistics(upcast(linear(hidden)) / temperature, hidden, action, needs, probes)


def checkpointed(
    hidden: Tensor,
    linear: Linear,
    action: Tensor,
    temperature: float,
    needs: frozenset[str],
    probes: Mapping[str, Probe],
    rows: int,
) -> dict[str, Tensor]:
    """Chunk by chunk; each chunk's logits are computed again in the backward pass."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, max(len(hidden), 1), rows):
        part = slice(start, start + rows)
        columns = checkpoint(
            plain,
            hidden[part],
            linear,
            action[part],
            temperature,
            needs,
            probes,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for name, column in columns.items():
            found.setdefault(name, []).append(column)
    return {name: torch.cat(parts) for name, parts in found.items()}


def head(
    hidden: Tensor,
    linear: torch.nn.Module,
    action: Tensor,
    needs: frozenset[str],
    probes: Mapping[str, Probe],
    temperature: float = 1.0,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Columns at M positions; never many more than `chunk` logits live at once.

    Args:
        hidden: [M, H] states that predict the actions.
        linear: the output embedding, `hidden -> [M, V]`; a plain `nn.Linear` takes the fused way.
        action: [M] int64 token ids in [0, V).
        needs: `entropy` is computed only where it is named; `log_prob` always is.
        probes: further columns by name.
        temperature: > 0, logits are divided by it.
        chunk: numbers in the logits of a chunk, >= 1; None takes the measured rule.

    Returns:
        `log_prob` [M], perhaps `entropy` [M], and `probe:<name>` [M] or [M, K].
    """
    simple = linear if type(linear) is torch.nn.Linear else None
    vocabulary = _width(linear, hidden) if simple is None else simple.out_features
    if chunk is None:
        chunk = max(CHUNK.get(hidden.device.type, CHUNK["cpu"]), FEWEST_ROWS * vocabulary)
    if len(hidden) * vocabulary <= chunk:
        return plain(hidden, linear, action, temperature, needs, probes)
    rows = max(chunk // vocabulary, 1)
    if probes or simple is None:
        return checkpointed(hidden, linear, action, temperature, needs, probes, rows)
    with_entropy = "entropy" in needs
    log_prob, entropy = FusedHead.apply(  # type: ignore[no-untyped-call]
        hidden, simple.weight, simple.bias, action, temperature, with_entropy, rows
    )
    return {"log_prob": log_prob, "entropy": entropy} if with_entropy else {"log_prob": log_prob}


def _width(linear: torch.nn.Module, hidden: Tensor) -> int:
    """The size of the vocabulary of a head that is not a plain linear layer (wrapped by an adapter)."""
    with torch.no_grad():
        return int(linear(hidden[:1]).shape[-1])
