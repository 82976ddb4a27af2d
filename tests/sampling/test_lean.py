"""The lean decode says what the model's own forward says: every member of the family, any batch, any moment."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import character_tokenizer, embedded
from ascent.policies.lean import weights
from ascent.policies.lean.weights import read, refusal
from ascent.sampling import choose, lean
from ascent.sampling.captured import Captured, halved
from ascent.sampling.choose import decoder_for
from ascent.sampling.decode import Cached, Decoder
from ascent.sampling.lean import Lean
from ascent.sampling.text import Distribution, Responses, TextSampler, generate, respond
from ascent.worlds.text.arithmetic import Arithmetic
from tests.policies.test_causal import tiny

ALPHABET = "0123456789+=;"
SIZES = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
ROTATIONS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4},
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
        "rope_theta": 1e4,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4},
}
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, all heads apart": ("llama", {"num_key_value_heads": 4}),
    "llama, one key head": ("llama", {"num_key_value_heads": 1}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, wide heads": ("llama", {"head_dim": 10}),
    "llama, linear": ("llama", {"rope_parameters": ROTATIONS["linear"]}),
    "llama, llama3": ("llama", {"rope_parameters": ROTATIONS["llama3"]}),
    "llama, yarn": ("llama", {"rope_parameters": ROTATIONS["yarn"]}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "mistral": ("mistral", {"sliding_window": None}),
}
PROMPTS = ["12+3=", "70+8=9+1=", "1="]
DECODERS: dict[str, Callable[[CausalPolicy], Decoder]] = {
    "lean": lambda policy: Lean(policy, block=3),
    "captured": lambda policy: Captured(policy, block=4),
}


@pytest.fixture(autouse=True)
def norms_in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """transformers computes norms in float32 also for float64 weights, which would hide errors below 1e-7."""

    def forward(self: Any, states: Tensor) -> Tensor:
        return functional.rms_norm(states, self.weight.shape, self.weight, self.variance_epsilon)

    for norm in (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm):
        monkeypatch.setattr(norm, "forward", forward)
    yield


def made(name: str, dtype: torch.dtype = torch.float64, **further: Any) -> CausalPolicy:
    family, changes = FAMILY[name]
    tokenizer = character_tokenizer(ALPHABET, 128)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **ids, **(SIZES | changes | further))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return CausalPolicy(model, tokenizer)


def encoded(policy: CausalPolicy, prompts: list[str]) -> list[list[int]]:
    return [policy.encode_prompt(prompt) for prompt in prompts]


def sampled(policy: CausalPolicy, decoder: Callable[[CausalPolicy], Decoder], **changes: Any) -> Responses:
    settings: dict[str, Any] = {"copies": 5, "max_new_tokens": 30, "distribution": Distribution(1.5)} | changes
    prompts = encoded(policy, settings.pop("prompts", PROMPTS))
    keys = torch.arange(len(prompts) * settings["copies"])
    return respond(policy, prompts, keys=keys, decoder_of=decoder, **settings)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("prompts", [PROMPTS, ["12+3=", "7+18="], ["12+3="]])
@torch.inference_mode()
def test_logits_are_those_of_the_own_forward(name: str, decoder: str, prompts: list[str]) -> None:
    policy = made(name)
    assert refusal(policy.base) is None
    copies, generator = 4, torch.Generator().manual_seed(0)
    prompt, real = policy.pad_prompts(encoded(policy, prompts))
    lean, own = DECODERS[decoder](policy), Cached(policy)
    pairs = [(lean.start(prompt, real, copies, 20), own.start(prompt, real, copies, 20))]
    rows = len(prompts) * copies
    for position in range(20):
        if position in (2, 5, 6, 11):
            kept = torch.randperm(rows, generator=generator)[: max(rows * 2 // 3, 1)].sort().values
            lean.keep(kept)
            own.keep(kept)
            rows = len(kept)
        tokens = torch.randint(4, policy.config.vocab_size, (rows,), generator=generator)
        pairs.append((lean.step(tokens), own.step(tokens)))
    for found, expected in pairs:
        assert found.shape == expected.shape and expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_whole_responses_are_equal(name: str, decoder: str) -> None:
    policy = made(name)
    found, expected = sampled(policy, DECODERS[decoder]), sampled(policy, Cached)
    lengths = expected.mask.sum(1)
    assert lengths.min() < 10 < lengths.max()
    assert torch.equal(found.action, expected.action) and torch.equal(found.mask, expected.mask)
    assert torch.equal(found.ended, expected.ended)
    torch.testing.assert_close(found.log_prob, expected.log_prob, atol=1e-6, rtol=0)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
@torch.inference_mode()
def test_other_precisions(dtype: torch.dtype, tolerance: float, decoder: str) -> None:
    policy = embedded(ALPHABET, seed=3, hidden=32, layers=2).to(dtype)
    prompt, real = policy.pad_prompts(encoded(policy, PROMPTS))
    lean, own = DECODERS[decoder](policy), Cached(policy)
    lean.start(prompt, real, 2, 4)
    own.start(prompt, real, 2, 4)
    for _ in range(4):
        tokens = torch.arange(4, 10)
        found, expected = lean.step(tokens), own.step(tokens)
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ["llama, biases", "llama, tied", "qwen3"])
@pytest.mark.parametrize("folded", [False, True])
@torch.inference_mode()
def test_norms_apart_from_matrices_say_the_same(monkeypatch: pytest.MonkeyPatch, folded: bool, name: str) -> None:
    """As on a GPU, and as before a head that is too large to copy."""
    policy = made(name)
    monkeypatch.setattr(weights, "SMALL_HEAD", 0)
    monkeypatch.setattr(lean, "read", lambda model, _: read(model, folded))
    prompt, real = policy.pad_prompts(encoded(policy, PROMPTS))
    apart, own = Lean(policy), Cached(policy)
    apart.start(prompt, real, 2, 3)
    own.start(prompt, real, 2, 3)
    assert apart.weights.folded == folded and apart.weights.norm is not None
    for _ in range(3):
        tokens = torch.arange(4, 4 + 2 * len(prompt))
        torch.testing.assert_close(apart.step(tokens), own.step(tokens), atol=1e-10, rtol=1e-10)


@torch.inference_mode()
def test_a_prompt_is_held_once_for_its_group() -> None:
    policy = made("llama")
    prompt, real = policy.pad_prompts(encoded(policy, PROMPTS))
    lean = Lean(policy)
    lean.start(prompt, real, 64, 4)
    for memory in lean.memory:
        assert memory.prompt_keys.shape == (3 * 2, 6, 9) and memory.prompt_values.shape == (3 * 2, 9, 6)


@torch.inference_mode()
def test_rows_that_leave_make_room() -> None:
    policy = made("llama")
    prompt, real = policy.pad_prompts(encoded(policy, PROMPTS))
    lean = Lean(policy)
    lean.start(prompt, real, 4, 9)
    lean.step(torch.full((12,), 5))
    lean.keep(torch.tensor([1, 8, 10]))
    assert (lean.prompts, lean.slots) == (2, 2)
    assert all(memory.keys.shape[:3] == (2, 2, 2) and len(memory.prompt_keys) == 4 for memory in lean.memory)
    assert lean.step(torch.full((3,), 5)).shape == (3, policy.config.vocab_size)


def test_weights_that_learned_are_read_anew() -> None:
    """One optimiser step on every weight between two rollouts: a stale copy of any of them would answer otherwise."""
    policy = made("qwen2")
    decoder = decoder_for(policy)
    assert isinstance(decoder, Lean)
    before = sampled(policy, lambda _: decoder)
    optimiser = torch.optim.SGD(policy.parameters(), lr=1.0)
    for parameter in policy.parameters():
        parameter.grad = torch.full_like(parameter, 0.1).mul_(torch.arange(parameter.numel()).view(parameter.shape) % 3)
    optimiser.step()
    after, expected = sampled(policy, lambda _: decoder), sampled(policy, Cached)
    assert torch.equal(after.action, expected.action)
    assert before.action.shape != after.action.shape or not torch.equal(before.action, after.action)


@pytest.mark.parametrize("weight", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
@torch.inference_mode()
def test_no_projection_is_stale(weight: str) -> None:
    policy = made("llama")
    prompt, real = policy.pad_prompts(encoded(policy, PROMPTS))
    lean, own, tokens = Lean(policy), Cached(policy), torch.tensor([4, 5, 6])
    lean.start(prompt, real, 1, 2)
    old = lean.step(tokens)
    for name, parameter in policy.named_parameters():
        if weight in name:
            parameter.mul_(1.5)
    lean.start(prompt, real, 1, 2)
    own.start(prompt, real, 1, 2)
    new = lean.step(tokens)
    torch.testing.assert_close(new, own.step(tokens), atol=1e-10, rtol=1e-10)
    assert (new - old).abs().max() > 1e-3


def test_greedy_answers_are_those_of_the_own_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = made("qwen3")
    prompts = ["12+3=", "70+8=9+1=", "1=", "5+5="]
    assert not isinstance(decoder_for(policy), Cached)
    found = generate(policy, prompts, max_new_tokens=20)
    monkeypatch.setattr(choose, "agrees", lambda policy, kind: False)
    assert isinstance(decoder_for(policy), Cached)
    assert found == generate(policy, prompts, max_new_tokens=20)


def test_the_sampler_decodes_lean_and_its_log_probs_are_the_policys() -> None:
    policy = embedded(Arithmetic().alphabet, seed=0, hidden=32, layers=2)
    assert isinstance(decoder_for(policy), Lean)
    decisions = TextSampler(policy, Arithmetic(), 3, 4, 12).act(0)
    expected = policy.evaluate(decisions, frozenset({"log_prob"})).log_prob
    torch.testing.assert_close(decisions.behaviour_log_prob, expected, atol=1e-5, rtol=0)


class Doubled(torch.nn.Linear):
    """A layer of another type, as adapters and quantisers put in."""

    def forward(self, states: Tensor) -> Tensor:
        return 2 * super().forward(states)


def refuses(policy: CausalPolicy, words: str) -> None:
    """Silently: `Cached` is the right decoder, and nothing went wrong."""
    assert words in (refusal(policy.base) or "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(decoder_for(policy), Cached)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "cohere", "gpt_neox"])
def test_other_architectures_are_left_to_their_own_forward(family: str) -> None:
    refuses(tiny(family), "is not one of")


def test_unknown_parts_are_left_to_the_own_forward() -> None:
    policy = made("llama")
    attention = policy.base.model.layers[1].self_attn
    attention.v_proj = Doubled(24, 12, bias=False, dtype=torch.float64)
    refuses(policy, "Doubled")


def test_hooks_are_left_to_the_own_forward() -> None:
    policy = made("llama")
    handle = policy.base.model.layers[0].register_forward_hook(lambda module, given, found: None)
    refuses(policy, "model.layers.0 has hooks")
    handle.remove()
    assert refusal(policy.base) is None


def test_hidden_states_that_were_asked_for_once_do_not_matter() -> None:
    policy = made("llama")
    policy.model(input_ids=torch.tensor([[4, 5]]), output_hidden_states=True)
    assert refusal(policy.base) is None


def test_an_adapter_is_left_to_the_own_forward() -> None:
    peft = pytest.importorskip("peft")
    policy = made("llama")
    policy.model = peft.get_peft_model(policy.base, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    refuses(policy, "not a plain linear layer")


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("mistral", {"sliding_window": 16}, "sliding window"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}, "sliding window"),
        ("llama", {"hidden_act": "gelu"}, "gelu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
    ],
)
def test_settings_that_the_lean_decode_does_not_know(
    family: str, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILY, "changed", (family, changes))
    refuses(made("changed"), words)


@pytest.mark.parametrize("wrong", [0.5, math.nan])
def test_a_disagreement_is_seen_once_and_named(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    policy = made("llama")
    right = Lean._attend
    monkeypatch.setattr(Lean, "_attend", lambda *given: right(*given) + wrong)
    with pytest.warns(UserWarning, match=r"LlamaForCausalLM differs from its own forward by .*falling back"):
        assert isinstance(decoder_for(policy), Cached)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(decoder_for(policy), Cached)


def test_slots_halve() -> None:
    assert [halved(8, needed) for needed in range(1, 9)] == [1, 2, 4, 4, 8, 8, 8, 8]
    assert [halved(5, needed) for needed in range(1, 6)] == [1, 2, 3, 5, 5]
