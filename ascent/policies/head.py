"""The head of a language model at chosen positions: log-probability, entropy and probes.

Three ways give the same numbers. `plain` holds [M, V] logits and is fastest while they fit in cache; `fused`
walks over blocks and recomputes logits in its backward pass, so that memory does not grow with M x V;
`checkpointed` does so for probes, whose gradient only autograd knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ascent.policies.lean.fused import FusedHead, upcast
from ascent.policies.policy import Probe

# Numbers in the logits of one chunk, by where they live: on a CPU core they stay in its own cache (1 MB), a GPU wants
# matrix products of a thousand rows.
CHUNK = {"cpu": 2**18, "cuda": 2**27}
# Fewer rows than this and a large vocabulary's weights are read more often than they are used.
FEWEST_ROWS = 512
# Logits up to here are held: computing them again for the gradient costs more than their memory (measured on a core).
HELD = {"cpu": 2**20, "cuda": 2**27}

Linear = Callable[[Tensor], Tensor]


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
    device = hidden.device.type
    held = HELD.get(device, HELD["cpu"]) if chunk is None else chunk
    if len(hidden) * vocabulary <= held:
        return plain(hidden, linear, action, temperature, needs, probes)
    if probes or simple is None:
        rows = max(held // vocabulary, 1 if chunk else FEWEST_ROWS // 2)
        return checkpointed(hidden, linear, action, temperature, needs, probes, rows)
    rows, columns = max(held // vocabulary, 1), vocabulary
    if chunk is None:
        rows, columns = _block(vocabulary, CHUNK.get(device, CHUNK["cpu"]))
    with_entropy = "entropy" in needs
    log_prob, entropy = FusedHead.apply(  # type: ignore[no-untyped-call]
        hidden, simple.weight, simple.bias, action, temperature, with_entropy, rows, columns
    )
    return {"log_prob": log_prob, "entropy": entropy} if with_entropy else {"log_prob": log_prob}


def _block(vocabulary: int, chunk: int) -> tuple[int, int]:
    """Rows and columns of a block: whole rows where enough of them fit."""
    rows = max(chunk // vocabulary, FEWEST_ROWS)
    return rows, min(vocabulary, max(chunk // rows, 1))


def _width(linear: torch.nn.Module, hidden: Tensor) -> int:
    """The size of the vocabulary of a head that is not a plain linear layer (wrapped by an adapter)."""
    with torch.no_grad():
        return int(linear(hidden[:1]).shape[-1])
