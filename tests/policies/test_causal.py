"""A causal language model as a policy: numbers, gradients, saving, every family of architecture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ascent.core.decisions import Decisions
from ascent.policies import causal
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import character_tokenizer, embedded

ALPHABET = "0123456789+=;"
BOTH = frozenset({"log_prob", "entropy"})
WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
GROUPED = {**WIDTHS, "num_key_value_heads": 1, "intermediate_size": 32}
SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gpt_neox": {**WIDTHS, "intermediate_size": 32},
    "opt": {**WIDTHS, "ffn_dim": 32, "word_embed_proj_dim": 16},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8, "final_logit_softcapping": 0.05},
    "cohere": GROUPED,
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
}
CHANGED_AFTER_HEAD = {"gemma2", "cohere"}


def tiny(family: str, dtype: torch.dtype = torch.float32) -> CausalPolicy:
    """A random model of a family with a few thousand parameters."""
    tokenizer = character_tokenizer(ALPHABET, 64)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **ids, **SMALL[family])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return CausalPolicy(model, tokenizer)


def recorded(policy: CausalPolicy, rows: int = 4, columns: int = 5) -> Decisions:
    """Prompts of uneven length, responses of uneven length, two rows a prompt."""
    prompt, real = policy.pad_prompts([policy.encode_prompt("12+3="), policy.encode_prompt("7+8=")])
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([[5], [2], [3], [1]])[:rows]
    return Decisions(
        mask=torch.arange(columns) < lengths,
        context={"prompt": prompt, "prompt_mask": real},
        context_row=torch.arange(rows) // 2,
        action=torch.randint(4, 14, (rows, columns), generator=generator),
    )


def by_hand(policy: CausalPolicy, decisions: Decisions, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Row by row through the whole model, without padding."""
    log_prob, entropy = torch.zeros(decisions.mask.shape), torch.zeros(decisions.mask.shape)
    for row, owner in enumerate(decisions.context_row.tolist() if decisions.context_row is not None else []):
        prompt = decisions.context["prompt"][owner][decisions.context["prompt_mask"][owner]]
        for column in range(int(decisions.mask[row].sum())):
            ids = torch.cat([prompt, decisions.action[row, :column]])[None]
            law = (policy.model(input_ids=ids).logits[0, -1] / temperature).log_softmax(-1)
            log_prob[row, column] = law[decisions.action[row, column]]
            entropy[row, column] = -(law.exp() * law).sum()
    return log_prob, entropy


@pytest.mark.parametrize("family", SMALL)
def test_evaluation_equals_the_model_row_by_row(family: str) -> None:
    policy = tiny(family)
    decisions = recorded(policy)
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        found = policy.evaluate(decisions, BOTH)
        log_prob, entropy = by_hand(policy, decisions)
    assert any("after the head" in str(item.message) for item in caught) == (family in CHANGED_AFTER_HEAD)
    torch.testing.assert_close(found.log_prob, log_prob, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.entropy, entropy, atol=2e-5, rtol=1e-4)


def test_temperature_divides_the_logits() -> None:
    policy = embedded(ALPHABET, hidden=16, layers=1, heads=2, temperature=0.5)
    decisions = recorded(policy)
    with torch.no_grad():
        expected, _ = by_hand(policy, decisions, 0.5)
        torch.testing.assert_close(policy.evaluate(decisions, BOTH).log_prob, expected, atol=1e-5, rtol=0)


def test_gradient_does_not_depend_on_the_split_of_rows() -> None:
    policy = embedded(ALPHABET, hidden=16, layers=2, heads=2).double()
    decisions = recorded(policy)

    def gradient(parts: list[slice]) -> list[Tensor]:
        policy.zero_grad()
        for part in parts:
            found = policy.evaluate(decisions.rows(part), BOTH)
            (found.log_prob.sum() + 0.3 * found.entropy.sum()).backward()
        return [parameter.grad.clone() for parameter in policy.parameters() if parameter.grad is not None]

    whole = gradient([slice(0, 4)])
    assert len(whole) == len(list(policy.parameters()))
    for got, wanted in zip(gradient([slice(0, 1), slice(1, 2), slice(2, 4)]), whole, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)


def test_a_masked_decision_is_still_read_by_later_ones() -> None:
    """Tool output is masked but stays in the text."""
    policy = tiny("qwen2")
    decisions = recorded(policy)
    hidden = decisions.mask.clone()
    hidden[0, 1] = False
    with torch.no_grad():
        full = policy.evaluate(decisions, BOTH).log_prob
        found = policy.evaluate(decisions.replace(mask=hidden), BOTH).log_prob
    assert found[0, 1] == 0
    torch.testing.assert_close(found[hidden], full[hidden])


def test_an_empty_mask_gives_zeros_and_zero_gradient() -> None:
    policy = tiny("qwen2")
    decisions = recorded(policy)
    found = policy.evaluate(decisions.replace(mask=torch.zeros_like(decisions.mask)), BOTH)
    found.log_prob.sum().backward()
    assert not found.log_prob.any()
    assert all(not parameter.grad.any() for parameter in policy.parameters() if parameter.grad is not None)


def test_probes_and_features() -> None:
    policy = tiny("qwen2")
    decisions = recorded(policy)
    needs = frozenset({"log_prob", "features", "probe:largest"})
    found = policy.evaluate(
        decisions, needs, {"largest": lambda logits, hidden, action: logits.log_softmax(-1).amax(-1)}
    )
    assert found.features.shape == (4, 5, 16)
    assert bool((found.probes["largest"][decisions.mask] >= found.log_prob[decisions.mask] - 1e-6).all())
    with pytest.raises(ValueError, match="probe:largest"):
        policy.evaluate(decisions, needs)


def test_dropout_stays_off() -> None:
    policy = tiny("gpt2")
    policy.train()
    decisions = recorded(policy)
    with torch.no_grad():
        assert torch.equal(policy.evaluate(decisions, BOTH).log_prob, policy.evaluate(decisions, BOTH).log_prob)
    assert not policy.model.training


def with_critic() -> tuple[CausalPolicy, Decisions]:
    policy = embedded(ALPHABET, hidden=16, layers=1, heads=2, value_head=True)
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(3))
    decisions = recorded(policy)
    final = decisions.mask & ~torch.cat([decisions.mask[:, 1:], torch.zeros(4, 1, dtype=torch.bool)], 1)
    ended = torch.tensor([True, False, True, False])[:, None]
    return policy, decisions.replace(terminated=final & ended, truncated=final & ~ended)


def test_annotate_writes_values_of_states() -> None:
    policy, decisions = with_critic()
    found = policy.annotate(decisions, frozenset({"old_log_prob", "value", "next_value", "reward"}))
    evaluated = policy.evaluate(decisions, frozenset({"log_prob", "value"}))
    torch.testing.assert_close(found.old_log_prob, evaluated.log_prob.detach())
    torch.testing.assert_close(found.value, evaluated.value.detach())
    assert not found.value.requires_grad
    torch.testing.assert_close(found.next_value[0, :4], found.value[0, 1:5])
    assert found.next_value[0, 4] == 0 and found.next_value[2, 2] == 0
    # Row 1 was cut after two tokens: V of prompt and response together.
    ids = torch.cat([decisions.context["prompt"][0], decisions.action[1, :2]])[None]
    assert policy.value_head is not None
    beyond = policy.value_head(policy.base.model(input_ids=ids).last_hidden_state[0, -1])
    torch.testing.assert_close(found.next_value[1, 1], beyond[0].detach(), atol=1e-5, rtol=1e-5)
    assert found.next_value[1, 1] != 0


def test_next_value_jumps_over_masked_columns() -> None:
    policy, decisions = with_critic()
    mask = decisions.mask.clone()
    mask[0, 2] = False
    found = policy.annotate(decisions.replace(mask=mask), frozenset({"value", "next_value"}))
    assert found.next_value[0, 1] == found.value[0, 3]


def test_a_missing_critic_is_named() -> None:
    policy = tiny("qwen2")
    with pytest.raises(ValueError, match="value_head=True"):
        policy.evaluate(recorded(policy), frozenset({"value"}))


@pytest.mark.parametrize("critic", [False, True])
def test_saved_model_loads_with_transformers_alone_and_with_load(tmp_path: Path, critic: bool) -> None:
    policy = embedded(ALPHABET, hidden=16, layers=1, heads=2, value_head=critic)
    if policy.value_head is not None:
        torch.nn.init.ones_(policy.value_head.weight)
    policy.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("12+3=")["input_ids"] == policy.encode_prompt("12+3=")
    again = CausalPolicy.load(tmp_path)
    decisions = recorded(policy)
    for other in (CausalPolicy(model, tokenizer), again):
        assert torch.equal(other.evaluate(decisions, BOTH).log_prob, policy.evaluate(decisions, BOTH).log_prob)
    assert (again.value_head is not None) == critic
    if again.value_head is not None:
        assert bool((again.value_head.weight == 1).all())


def test_lora_trains_only_the_adapter(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    embedded(ALPHABET, hidden=16, layers=1, heads=2).save(tmp_path)
    policy = CausalPolicy.load(tmp_path, lora={"r": 2, "target_modules": ["q_proj", "v_proj"]})
    decisions = recorded(policy)
    policy.evaluate(decisions, BOTH).log_prob.sum().backward()
    moved = [name for name, parameter in policy.named_parameters() if parameter.grad is not None]
    assert moved and all("lora_" in name for name in moved)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter += 0.5
    policy.save(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    policy.save(tmp_path / "whole", merge=True)
    merged = CausalPolicy(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), policy.tokenizer)
    expected = policy.evaluate(decisions, BOTH).log_prob
    torch.testing.assert_close(merged.evaluate(decisions, BOTH).log_prob, expected, atol=1e-5, rtol=1e-5)
    assert [name for name, _ in policy.named_parameters() if "lora_" in name]


def test_chat_template_and_plain_prompts() -> None:
    tokenizer = character_tokenizer("ab<>|user:\n")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
    model = embedded("ab<>|user:\n", hidden=16, layers=1, heads=2).model
    plain, chat = CausalPolicy(model, tokenizer), CausalPolicy(model, tokenizer, chat=True)
    message = [{"role": "user", "content": "ab"}]
    assert plain.encode_prompt("ab") == tokenizer("ab")["input_ids"]
    assert chat.encode_prompt("ab") == plain.encode_prompt(message) == tokenizer("user:ab\n")["input_ids"]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"temperature": 0.0}, "temperature"), ({"chat": True}, "chat template")],
)
def test_bad_construction_is_named(change: dict[str, object], words: str) -> None:
    policy = tiny("qwen2")
    with pytest.raises(ValueError, match=words):
        CausalPolicy(policy.model, policy.tokenizer, **change)  # type: ignore[arg-type]


def test_unknown_characters_and_folders_are_refused(tmp_path: Path) -> None:
    policy = tiny("qwen2")
    with pytest.raises(ValueError, match="does not know"):
        policy.encode_prompt("12+é")
    with pytest.raises(ValueError, match="at least one token"):
        policy.tokenizer.bos_token = None
        policy.encode_prompt("")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CausalPolicy.load(tmp_path / "nowhere")


def test_reading_rows_of_similar_length_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = embedded(ALPHABET, hidden=16, layers=2, heads=2, value_head=True).double()
    assert policy.value_head is not None
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([[12], [1], [3], [2], [0], [11], [1], [4]])
    mask = torch.arange(14) < lengths
    prompt, real = policy.pad_prompts([policy.encode_prompt("12+3="), policy.encode_prompt("7+8=")])
    decisions = Decisions(
        mask=mask,
        context={"prompt": prompt, "prompt_mask": real},
        context_row=torch.arange(8) // 4,
        action=torch.randint(4, 14, mask.shape, generator=generator),
        terminated=torch.zeros_like(mask),
    )
    needs = frozenset({"log_prob", "entropy", "value", "features"})

    def found() -> list[Tensor]:
        policy.zero_grad()
        evaluation = policy.evaluate(decisions, needs)
        columns = [evaluation.log_prob, evaluation.entropy, evaluation.value, evaluation.features]
        places = torch.arange(14, dtype=torch.float64)
        for column in columns:
            (column.reshape(8, 14, -1).sum(2) @ places).sum().backward(retain_graph=True)
        gradients = [parameter.grad.clone() for parameter in policy.parameters() if parameter.grad is not None]
        return [*columns, policy.annotate(decisions, frozenset({"value", "next_value"})).next_value, *gradients]

    whole = found()
    monkeypatch.setattr(causal, "SMALLEST_PART", 1)
    assert len(causal._buckets(decisions)) > 1
    for got, wanted in zip(found(), whole, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-10, rtol=0)
