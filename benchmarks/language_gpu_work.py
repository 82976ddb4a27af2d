"""What the GPU benchmark trains: a decoder of Qwen2's shape with random weights, and the rungs of both arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from language_work import Work, alphabet

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GpuWork(Work):
    """A workload on a decoder of Qwen2's shape; the defaults are 0.49 B parameters.

    Attributes:
        heads, groups: of queries, and of keys and values; inner: width of the feed-forward layers.
        dtype: of weights, activations and optimiser state, in both arms.
        micro_rows: rows of one forward in learning, in both arms.
    """

    name: str = "0.49B"
    hidden: int = 896
    layers: int = 24
    heads: int = 14
    groups: int = 2
    inner: int = 4864
    vocabulary: int = 151936
    prompts: int = 32
    prompt: int = 128
    new_tokens: int = 512
    steps: int = 6
    warm_up: int = 1
    dtype: str = "bfloat16"
    device: str = "cuda"
    micro_rows: int | None = 16
    learning_rate: float = 1e-6


TINY = GpuWork(
    "tiny", hidden=32, layers=2, heads=4, groups=2, inner=64, vocabulary=512, prompts=2, group_size=4, prompt=8,
    new_tokens=8, steps=2, device="cpu", micro_rows=4,
)  # fmt: skip
"""The same script in a minute on a CPU, so that it stays tested."""


def qwen(work: GpuWork) -> Any:
    """The policy, equal in both arms."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from ascent.policies.causal import CausalPolicy
    from ascent.policies.embedded import character_tokenizer

    context = work.prompt + work.new_tokens
    tokenizer = character_tokenizer(alphabet(work.vocabulary), context)
    config = Qwen2Config(
        vocab_size=work.vocabulary,
        hidden_size=work.hidden,
        intermediate_size=work.inner,
        num_hidden_layers=work.layers,
        num_attention_heads=work.heads,
        num_key_value_heads=work.groups,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config).to(getattr(torch, work.dtype))
    return CausalPolicy(model.to(work.device), tokenizer)


@dataclass(frozen=True)
class Rung:
    """One step of Ascent's ladder: what is on."""

    decoder: str
    packed: bool
    blocks: bool


RUNGS: Mapping[str, Rung] = {
    "eager": Rung("every row", False, False),
    "+ a prompt once a group": Rung("cached", False, False),
    "+ lean decode": Rung("lean", False, False),
    "+ CUDA graphs": Rung("captured", False, False),
    "+ head in blocks": Rung("captured", False, True),
    "+ packed learning": Rung("captured", True, True),
}
"""Each adds one thing to the one before. The last is what Ascent does by itself on a GPU."""

BATCHING: Mapping[str, Any] = {"use_transformers_continuous_batching": True}
TRL: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "static cache": {"cache_implementation": "static"},
    "half the micro-batch": {"half": True},
    "continuous batching": {**BATCHING, "transformers_continuous_batching_config": {"use_cuda_graph": False}},
    "continuous batching, CUDA graphs": {
        **BATCHING,
        "transformers_continuous_batching_config": {"use_cuda_graph": True},
    },
}
"""trl's arms with transformers' generation; all leave the result as it is."""


def decoder_of(rung: Rung) -> Callable[[Any], Any]:
    """The factory of a rung's decoder."""
    from ascent.sampling.captured import Captured
    from ascent.sampling.decode import Cached
    from ascent.sampling.lean import Lean

    kinds: dict[str, Callable[[Any], Any]] = {
        "every row": EveryRow,
        "cached": Cached,
        "lean": Lean,
        "captured": Captured,
    }
    return kinds[rung.decoder]


class EveryRow:
    """The model's own forward and cache, which reads a prompt anew for each of its rows."""

    def __init__(self, policy: Any) -> None:
        from ascent.sampling.decode import Cached

        self.inner = Cached(policy)

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        logits: Tensor = self.inner.start(
            prompt.repeat_interleave(copies, 0), real.repeat_interleave(copies, 0), 1, room
        )
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.inner.step(tokens)
        return logits

    def keep(self, rows: Tensor) -> None:
        self.inner.keep(rows)


def set_up(policy: Any, rung: Rung, work: GpuWork) -> Any:
    """Switch off what the rung does not have. The switches are the library's own fallbacks."""
    from ascent.policies import head

    own = _held()
    if not rung.packed:
        policy._packs = False
    head.HELD.update(own if rung.blocks else dict.fromkeys(("cpu", "cuda"), 2**62))
    return policy


@cache
def _held() -> dict[str, int]:
    """The library's own numbers, as they were before any rung changed them."""
    from ascent.policies import head

    return dict(head.HELD)
