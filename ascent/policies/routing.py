"""The routes of a mixture of experts: recorded, compared, replayed.

A router gives each position logits over E experts and sends it to the k likeliest. Replaying a route fixes that set;
the gates on it are computed from the present logits, so the router keeps its gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter
from transformers.models.olmoe.modeling_olmoe import OlmoeTopKRouter
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from ascent.core.random import key, mix, uniform

# Exactly these classes, whose forward gives (logits, gates, experts) of a softmax over all experts.
ROUTERS: tuple[type[nn.Module], ...] = (
    Qwen3MoeTopKRouter,
    Qwen2MoeTopKRouter,
    OlmoeTopKRouter,
    MixtralTopKRouter,
)
NATURAL = -1
"""In a recorded route: the present router decides (padding, positions that nobody recorded)."""


def routers(model: PreTrainedModel) -> list[nn.Module]:
    """The routers in the order of the layers.

    Raises:
        ValueError: the model has none that is known, or recomputes its forward, where a route would be lost.
    """
    found = [module for module in model.modules() if type(module) in ROUTERS]
    if not found:
        known = ", ".join(sorted(kind.__name__ for kind in ROUTERS))
        raise ValueError(f"{type(model).__name__} has no router that is known ({known}); take a mixture of experts.")
    if any(vars(module).get("gradient_checkpointing") for module in model.modules()):
        raise ValueError("routes are not replayed in a recomputed forward; switch gradient checkpointing off.")
    return found


@contextmanager
def routed(model: PreTrainedModel, replay: Int[Tensor, "M L k"] | None = None, noise: float = 0.0) -> Iterator[Record]:
    """Forward passes inside record each router's own choice, and replay another where one is given.

    Args:
        model: with known routers.
        replay: experts of every position (rows times columns) and layer; `NATURAL` lets the router decide.
        noise: deviation of what is added to the logits before the choice, >= 0.

    Raises:
        RuntimeError: at the end, where a forward left out a router: indices of layers would be shifted.
    """
    found = routers(model)
    record = Record(len(found))
    with ExitStack() as stack:
        for layer, router in enumerate(found):
            hook = _Hook(record, layer, None if replay is None else replay[:, layer].long(), noise)
            stack.callback(router.register_forward_hook(hook).remove)
        yield record
    if len({len(chosen) for chosen in record.chosen}) > 1:
        raise RuntimeError(
            f"routers ran {[len(chosen) for chosen in record.chosen]} times; every one runs in a forward."
        )


class Record:
    """What the routers chose by themselves, by layer, one entry a forward: `chosen[layer][forward]` is [M, k]."""

    def __init__(self, layers: int) -> None:
        self.chosen: list[list[Tensor]] = [[] for _ in range(layers)]

    def routes(self) -> Tensor:
        """[M, layers, k] int16 of a single forward."""
        return torch.stack([chosen[0] for chosen in self.chosen], 1).to(torch.int16)


class _Hook:
    """Stands behind one router."""

    def __init__(self, record: Record, layer: int, replay: Tensor | None, noise: float) -> None:
        self.record, self.layer, self.replay, self.noise = record, layer, replay, noise

    def __call__(
        self, router: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        logits, gates, experts = output
        if self.noise:
            logits = logits + self.noise * _hashed(logits, self.layer)
            experts = logits.float().softmax(-1).topk(experts.shape[-1], -1).indices
        self.record.chosen[self.layer].append(experts)
        if self.replay is None and not self.noise:
            return None
        if self.replay is not None:
            if len(self.replay) != len(experts):
                raise ValueError(f"replay holds {len(self.replay)} positions; the forward has {len(experts)}.")
            experts = torch.where(self.replay == NATURAL, experts, self.replay)
        # The arithmetic of the routers themselves, so that replaying a router's own choice changes no bit.
        chances = logits.softmax(-1, dtype=torch.float)
        chosen = chances.gather(-1, experts)
        if type(router) is MixtralTopKRouter or router.norm_topk_prob:
            chosen = chosen / chosen.sum(-1, keepdim=True)
        return logits, chosen.to(gates.dtype), experts


def _hashed(logits: Tensor, layer: int) -> Tensor:
    """Standard normal noise that is a function of a position's own logits: independent of who stands beside it."""
    bits = logits.detach().float().contiguous().view(torch.int32).long()
    # Every expert's noise knows all logits of its position.
    position = bits[..., :1]
    for expert in range(1, bits.shape[-1]):
        position = mix(position, bits[..., expert : expert + 1])
    words = torch.arange(bits.shape[-1], device=bits.device)
    draw = uniform(position, key("router noise", layer), words).clamp(min=1e-12)
    return torch.special.ndtri(draw).to(logits.dtype)


def changed(routes: Int[Tensor, "*shape L k"], other: Int[Tensor, "*shape L k"]) -> Float[Tensor, "*shape"]:
    """Share of layers whose *set* of experts differs; the order does not count, nor where either is `NATURAL`."""
    known = (routes != NATURAL).all(-1) & (other != NATURAL).all(-1)
    differs = (routes.sort(-1).values != other.sort(-1).values).any(-1) & known
    return differs.float().mean(-1)
