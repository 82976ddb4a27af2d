"""The packed forward says what the model's own forward says: every column, every gradient, every layout."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from ascent.core.decisions import Decisions
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import character_tokenizer
from ascent.policies.lean.blocks import RMSNorm, Rotation
from ascent.policies.lean.packed import layout

ALPHABET = "0123456789+=;"
EVERYTHING = frozenset({"log_prob", "entropy", "value", "features", "probe:square"})
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "llama-biased": {**SIZES, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True},
    "llama-scaled": {
        **SIZES,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8,
        },
    },
    "qwen2": {**SIZES, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen3": {**SIZES, "num_key_value_heads": 1, "head_dim": 6},
    "mistral": {**SIZES, "num_key_value_heads": 2, "sliding_window": None},
    "mistral-window": {**SIZES, "num_key_value_heads": 2, "sliding_window": 64},
}


def square(logits: Tensor, hidden: Tensor, action: Tensor) -> Tensor:
    return logits.softmax(-1).square().sum(-1)


def policy_of(family: str, dtype: torch.dtype = torch.float64, **changes: Any) -> CausalPolicy:
    """A random model whose every parameter matters, with a critic."""
    tokenizer = character_tokenizer(ALPHABET, 64)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {**FAMILIES[family], **changes}
    config = AutoConfig.for_model(family.partition("-")[0], vocab_size=len(tokenizer), **ids, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        policy = CausalPolicy(model, tokenizer, temperature=0.8, value_head=True)
        for parameter in policy.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return policy.to(dtype)


def wide(self: Any, x: Tensor) -> Tensor:
    """An RMS norm in the precision of the model: transformers' round float64 to float32."""
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def widen(monkeypatch: pytest.MonkeyPatch) -> None:
    for norm in (LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm, MistralRMSNorm):
        monkeypatch.setattr(norm, "forward", wide)


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    widen(monkeypatch)


def recorded(
    prompts: list[int], owners: list[int] | None, lengths: list[int], seed: int = 0, right: bool = False
) -> Decisions:
    """Prompts and responses of these lengths; `right` pads the prompts on the other side."""
    draw = torch.Generator().manual_seed(seed)
    width = max(prompts) + 1
    size = torch.tensor(prompts)[:, None]
    real = torch.arange(width) < size if right else torch.arange(width) >= width - size
    columns = max(*lengths, 1) + 1
    mask = torch.arange(columns) < torch.tensor(lengths)[:, None]
    return Decisions(
        mask=mask,
        context={"prompt": torch.randint(4, 16, real.shape, generator=draw), "prompt_mask": real},
        context_row=None if owners is None else torch.tensor(owners),
        action=torch.randint(4, 16, mask.shape, generator=draw),
        terminated=torch.zeros_like(mask),
    )


def everything(policy: CausalPolicy, decisions: Decisions, packed: bool) -> dict[str, Tensor]:
    """Every column and the gradient of every parameter."""
    policy._packs = packed
    policy.zero_grad(set_to_none=True)
    now = policy.evaluate(decisions, EVERYTHING, {"square": square})
    columns = {name: now.column(name) for name in ("log_prob", "entropy", "value", "features", "square")}
    draw = torch.Generator().manual_seed(1)
    total = sum((torch.randn(item.shape, generator=draw).to(item) * item).sum() for item in columns.values())
    assert isinstance(total, Tensor)
    total.backward()
    written = policy.annotate(decisions, frozenset({"old_log_prob", "value", "next_value"}))
    found = {name: item.detach() for name, item in columns.items()}
    found |= {"next_value": written.next_value, "old_log_prob": written.old_log_prob}
    for name, parameter in policy.named_parameters():
        found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    return found


def assert_same(policy: CausalPolicy, decisions: Decisions, tolerance: float = 1e-10) -> None:
    expected, found = everything(policy, decisions, False), everything(policy, decisions, True)
    for name, item in expected.items():
        torch.testing.assert_close(found[name], item, atol=tolerance, rtol=tolerance, msg=lambda text, n=name: n + text)


LAYOUTS = {
    "fixed": ([4, 4], [0, 0, 0, 1, 1, 1], [5, 5, 5, 5, 5, 5]),
    "ragged": ([3, 6], [0, 0, 0, 1, 1, 1], [5, 1, 2, 0, 9, 3]),
    "mixed owners": ([3, 6, 1, 2], [3, 0, 3, 1, 0], [2, 7, 1, 1, 4]),
    "unshared": ([3, 6, 1], None, [4, 1, 3]),
    "one token each": ([3, 2], [0, 1, 0], [1, 1, 1]),
}


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("shape", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_plain(family: str, shape: str, right: bool, exact_norms: None) -> None:
    policy = policy_of(family)
    decisions = recorded(*LAYOUTS[shape], right=right)
    assert policy.packs
    assert_same(policy, decisions)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_packed_equals_plain_with_the_norms_as_they_are(family: str) -> None:
    """transformers rounds to float32 inside the norm, also in float64."""
    assert_same(policy_of(family), recorded(*LAYOUTS["ragged"]), 2e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_packed_equals_plain_in_single_precision(family: str) -> None:
    policy = policy_of(family, torch.float32)
    assert policy.packs
    assert_same(policy, recorded(*LAYOUTS["ragged"]), 2e-4)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_layout_of_rows(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        widen(patch)
        prompts = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
        rows = data.draw(st.integers(1, 9))
        owners = data.draw(st.lists(st.integers(0, len(prompts) - 1), min_size=rows, max_size=rows))
        lengths = data.draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows))
        decisions = recorded(prompts, owners, lengths, data.draw(st.integers(0, 99)))
        holes = torch.rand(decisions.mask.shape, generator=torch.Generator().manual_seed(rows)) < 0.3
        assert_same(policy_of("qwen2"), decisions.replace(mask=decisions.mask & ~holes))


def test_masked_decisions_in_the_middle_are_read_but_not_computed_in_the_last_layer(exact_norms: None) -> None:
    decisions = recorded(*LAYOUTS["fixed"])
    mask = decisions.mask.clone()
    mask[:, 1:3] = False
    mask[2, 0] = False
    decisions = decisions.replace(mask=mask)
    packed = layout(decisions, False, torch.float64)
    assert packed is not None and len(packed.kept) == 2 + 6 * 2
    assert_same(policy_of("llama"), decisions)


def test_every_prompt_is_computed_once_and_no_padding(exact_norms: None) -> None:
    packed = layout(recorded([3, 6], [0, 0, 0, 1, 1, 1], [5, 1, 2, 0, 9, 3]), False, torch.float64)
    assert packed is not None
    assert len(packed.ids) == 3 + 6 + (4 + 0 + 1 + 8 + 2)
    assert packed.prompt_tokens == 9


def test_nothing_decided_and_an_empty_prompt_take_the_plain_way() -> None:
    assert layout(recorded([3], [0], [0]), False, torch.float64) is None
    assert layout(recorded([3, 0], [0, 1], [2, 2]), False, torch.float64) is None


def test_long_ragged_responses_are_read_in_blocks(exact_norms: None) -> None:
    decisions = recorded([5, 2, 9], [0, 1, 2] * 8, [1, 30, 2, 3, 28, 1, 2, 5, 31, 1, 2, 4] * 2)
    packed = layout(decisions, False, torch.float64)
    assert packed is not None and len(packed.full[1]) > 1
    assert_same(policy_of("qwen2"), decisions)


@pytest.mark.parametrize("parts", [[[0, 1], [2, 3, 4, 5]], [[0], [5, 1], [4, 2, 3]]])
def test_a_prompt_shared_across_micro_batches(parts: list[list[int]]) -> None:
    policy = policy_of("qwen3")
    decisions = recorded(*LAYOUTS["ragged"])

    def gradient(splits: list[list[int]]) -> list[Tensor]:
        policy.zero_grad(set_to_none=True)
        for rows in splits:
            now = policy.evaluate(decisions.rows(torch.tensor(rows)), frozenset({"entropy"}))
            (now.log_prob.sum() + 0.3 * now.entropy.sum()).backward()
        return [item.grad for item in policy.parameters() if item.grad is not None]

    for got, wanted in zip(gradient(parts), gradient([list(range(6))]), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)


def test_adapters_are_inside(exact_norms: None) -> None:
    peft = pytest.importorskip("peft")
    policy = policy_of("llama")
    wrapped = peft.get_peft_model(policy.model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    adapted = CausalPolicy(wrapped, policy.tokenizer, value_head=True).double()
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(2))
    assert adapted.packs
    assert_same(adapted, recorded(*LAYOUTS["ragged"]))
    assert any(item.grad is not None and bool(item.grad.any()) for item in adapted.parameters())


def test_own_norm_equals_finite_differences() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, 4, dtype=torch.float64, generator=draw, requires_grad=True)
    weight = torch.randn(4, dtype=torch.float64, generator=draw, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: RMSNorm.apply(x, weight, 1e-3), (x, weight))


def test_own_rotation_equals_finite_differences() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 6, dtype=torch.float64, generator=draw, requires_grad=True)
    cos, turn = (torch.randn(3, 1, 6, dtype=torch.float64, generator=draw) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x: Rotation.apply(x, cos, turn), (x,))


def refused(policy: CausalPolicy) -> str:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not policy.packs
        assert not policy.packs
    words = [str(item.message) for item in caught if "packed" in str(item.message)]
    assert len(words) == 1
    return words[0]


def test_what_it_does_not_know_is_read_the_plain_way_and_says_why() -> None:
    hooked = policy_of("llama")
    hooked.base.model.layers[0].register_forward_hook(lambda *found: None)
    assert "hook" in refused(hooked)
    checkpointed = policy_of("llama")
    checkpointed.base.gradient_checkpointing_enable()
    assert "gradient checkpointing" in refused(checkpointed)
    sliding = policy_of("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    assert "sliding window" in refused(sliding)
    dynamic = policy_of("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    assert "dynamic" in refused(dynamic)
    changed = policy_of("llama")
    changed.base.model.layers[1].self_attn.scaling = 0.5
    changed.base.model.layers[1].mlp.forward = lambda x: 0.5 * x
    assert changed.packs
    assert_same(changed, recorded(*LAYOUTS["ragged"]), 2e-5)
    gelu = policy_of("llama", hidden_act="gelu")
    assert gelu.packs
    assert_same(gelu, recorded(*LAYOUTS["ragged"]), 2e-5)


def test_a_text_longer_than_the_window_is_read_the_plain_way(exact_norms: None) -> None:
    policy = policy_of("mistral", sliding_window=8)
    decisions = recorded([4], [0, 0], [9, 2])
    assert policy.packs and policy._read_packed(decisions, False) is None
    assert policy._read_packed(decisions.rows(torch.tensor([1])), False) is not None
    assert_same(policy, decisions)


def test_a_model_that_says_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of("llama")
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda self, x: self.weight * x)
    assert "states differ" in refused(policy)
