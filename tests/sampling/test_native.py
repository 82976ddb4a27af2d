"""The compiled decode says what the model's own forward says, and without a compiler nothing is lost but time."""

from __future__ import annotations

import ctypes
import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.policies.lean import weights
from ascent.sampling import choose, native
from ascent.sampling.choose import decoder_for
from ascent.sampling.compiled import library
from ascent.sampling.decode import Cached
from ascent.sampling.lean import Lean
from ascent.sampling.native import Native, fits
from tests.sampling.test_lean import ALPHABET, FAMILY, PROMPTS, encoded, made, norms_in_float64, sampled

__all__ = ["norms_in_float64"]

needs_compiler = pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")


def fitting(name: str, dtype: torch.dtype = torch.float64, **changes: Any) -> CausalPolicy:
    """A member of the family whose widths are whole vectors."""
    wide = {"head_dim": 32 if name == "llama, wide heads" else 16, "hidden_size": 48, "intermediate_size": 80}
    policy = made(name, dtype, **(wide | changes))
    assert fits(policy)
    return policy


@needs_compiler
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("prompts", [PROMPTS, ["12+3=", "7+18="], ["12+3=" * 5]])
@torch.inference_mode()
def test_logits_are_those_of_the_own_forward(name: str, prompts: list[str]) -> None:
    policy = fitting(name)
    generator = torch.Generator().manual_seed(0)
    prompt, real = policy.pad_prompts(encoded(policy, prompts))
    found, own = Native(policy), Cached(policy)
    pairs = [(found.start(prompt, real, 4, 40), own.start(prompt, real, 4, 40))]
    rows = len(prompts) * 4
    for position in range(40):
        if position in (2, 5, 6, 11):
            kept = torch.randperm(rows, generator=generator)[: max(rows * 2 // 3, 1)].sort().values
            found.keep(kept)
            own.keep(kept)
            rows = len(kept)
        tokens = torch.randint(4, policy.config.vocab_size, (rows,), generator=generator)
        pairs.append((found.step(tokens), own.step(tokens)))
    for answer, expected in pairs:
        assert answer.shape == expected.shape and expected.abs().max() > 0.1
        torch.testing.assert_close(answer, expected, atol=1e-10, rtol=1e-10)


@needs_compiler
@torch.inference_mode()
def test_a_single_precision_and_norms_that_are_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SMALL_HEAD", 0)
    policy = embedded(ALPHABET, seed=3, hidden=64, layers=2)
    prompt, real = policy.pad_prompts(encoded(policy, PROMPTS))
    found, own = Native(policy), Cached(policy)
    found.start(prompt, real, 2, 20)
    own.start(prompt, real, 2, 20)
    assert found.weights.norm is not None
    for _ in range(20):
        tokens = torch.arange(4, 10)
        torch.testing.assert_close(found.step(tokens), own.step(tokens), atol=1e-4, rtol=1e-4)


@needs_compiler
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_whole_responses_are_equal(name: str) -> None:
    policy = fitting(name)
    found, expected = sampled(policy, Native), sampled(policy, Cached)
    lengths = expected.mask.sum(1)
    assert lengths.min() < 10 < lengths.max()
    assert torch.equal(found.action, expected.action) and torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.log_prob, expected.log_prob, atol=1e-6, rtol=0)


@needs_compiler
def test_weights_that_learned_are_read_anew() -> None:
    policy = fitting("qwen2")
    decoder = decoder_for(policy)
    assert isinstance(decoder, Native)
    before = sampled(policy, lambda _: decoder)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.arange(parameter.numel()).view(parameter.shape) % 3, alpha=0.1)
    after, expected = sampled(policy, lambda _: decoder), sampled(policy, Cached)
    assert torch.equal(after.action, expected.action)
    assert before.action.shape != after.action.shape or not torch.equal(before.action, after.action)


@needs_compiler
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float32, 3e-7), (torch.float64, 1e-15)])
def test_its_exponential(dtype: torch.dtype, relative: float) -> None:
    """Through the gate: silu(x) y with y = 1, over the whole range, the ends included."""
    limit = 87 if dtype == torch.float32 else 708
    numbers = torch.cat([torch.linspace(-limit, limit, 30_001), torch.linspace(-2, 2, 30_015)]).to(dtype)
    assert len(numbers) % native.lanes(dtype) == 0
    wide, gated = torch.cat([numbers, torch.ones_like(numbers)]), torch.empty_like(numbers)
    batch = native.Batch(rows=1, inner=len(numbers), wide=wide.data_ptr(), gated=gated.data_ptr())
    found: Any = library(dtype)
    found.gate(ctypes.byref(batch))
    exact = (numbers.double() / (1 + (-numbers.double()).exp())).to(dtype)
    torch.testing.assert_close(gated, exact, rtol=relative, atol=1e-30)
    wide[:2] = torch.tensor([-1e4, 1e4])
    found.gate(ctypes.byref(batch))
    assert gated[0].abs() < 1e-30 and gated[1] == 1e4


@needs_compiler
@torch.inference_mode()
def test_it_never_writes_beyond_its_room() -> None:
    policy = fitting("llama")
    prompt, real = policy.pad_prompts(encoded(policy, PROMPTS))
    decoder = Native(policy)
    decoder.start(prompt, real, 1, 2)
    for _ in range(2):
        decoder.step(torch.tensor([4, 5, 6]))
    with pytest.raises(ValueError, match="room for 2 tokens"):
        decoder.step(torch.tensor([4, 5, 6]))


@needs_compiler
@pytest.mark.parametrize("changes", [{"head_dim": 12}, {"hidden_size": 44}, {"intermediate_size": 42}])
def test_widths_that_are_no_whole_vectors_are_left_to_lean(changes: dict[str, int]) -> None:
    policy = made("llama", **({"head_dim": 16, "hidden_size": 48, "intermediate_size": 80} | changes))
    assert not fits(policy) and isinstance(decoder_for(policy), Lean)


@needs_compiler
@pytest.mark.parametrize("wrong", [0.5, math.nan])
def test_a_disagreement_is_named_and_lean_takes_over(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    policy, right = fitting("llama"), native.linear
    monkeypatch.setattr(native, "linear", lambda *given: right(*given).add_(wrong))
    with pytest.warns(UserWarning, match=r"native decode of LlamaForCausalLM differs .*falling back"):
        assert isinstance(decoder_for(policy), Lean)
    assert not choose.agrees(policy, Native)


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASCENT_CACHE", str(tmp_path))
    monkeypatch.setattr(native, "library", library.__wrapped__)


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize(("setting", "compiler"), [("0", "cc"), ("1", "no-such-compiler")])
def test_without_a_compiler_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, setting: str, compiler: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("ASCENT_NATIVE", setting)
    monkeypatch.setenv("CC", compiler)
    policy = made("llama", head_dim=16, hidden_size=48, intermediate_size=80)
    with caplog.at_level(logging.INFO):
        assert isinstance(decoder_for(policy), Lean)
    assert ("no C compiler" in caplog.text) == (setting == "1")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_compiled")
def test_a_compiler_that_fails_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('it cannot do this')\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert isinstance(decoder_for(made("llama", head_dim=16, hidden_size=48, intermediate_size=80)), Lean)
    assert "it cannot do this" in caplog.text


@needs_compiler
@pytest.mark.usefixtures("nothing_compiled")
def test_it_is_compiled_once_and_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert library.__wrapped__(torch.float32) is not None
    assert [path.suffix for path in (tmp_path / "native").iterdir()] == [".so"]

    def refused(*_: Any, **__: Any) -> None:
        raise subprocess.SubprocessError("compiled again")

    monkeypatch.setattr(subprocess, "run", refused)
    assert library.__wrapped__(torch.float32) is not None
    assert library.__wrapped__(torch.float64) is None
    assert library.__wrapped__(torch.bfloat16) is None
