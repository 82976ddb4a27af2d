"""Engines: what each format can hold, what of a policy it rounds, and that the policy itself is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.policies.engine import Engine, rounded
from ascent.policies.mixture import embedded_mixture


def tokens(policy: CausalPolicy) -> Tensor:
    with torch.no_grad():
        return policy.base(input_ids=torch.tensor([[4, 5, 6, 7]])).logits


@pytest.mark.parametrize(("precision", "error"), [("bfloat16", 2**-8), ("float8", 2**-4), ("int8", 0.5 / 127)])
def test_rounding_is_within_the_formats_step_and_idempotent(precision: str, error: float) -> None:
    numbers = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    held = rounded(numbers, precision)  # type: ignore[arg-type]
    # bfloat16 and float8 have relative steps; int8 has one of a channel's largest number.
    scale = numbers.abs().amax(-1, keepdim=True) if precision == "int8" else numbers.abs().clamp(min=1e-2)
    assert 0 < float(((held - numbers).abs() / scale).max()) <= error * 1.001
    torch.testing.assert_close(rounded(held, precision), held, atol=1e-6, rtol=1e-6)  # type: ignore[arg-type]
    assert held.dtype == numbers.dtype


def test_rounding_by_hand() -> None:
    assert rounded(torch.tensor([[127.0, 3.4, -0.6]]), "int8").tolist() == [[127.0, 3.0, -1.0]]
    # e4m3 has three bits behind the leading one: 17 lies between 16 and 18, 19 between 18 and 20.
    assert rounded(torch.tensor([[448.0, 17.4, 18.8]]), "float8").tolist() == [[448.0, 18.0, 18.0]]
    zero = torch.zeros(2, 3)
    assert all(torch.equal(rounded(zero, name), zero) for name in ("float32", "bfloat16", "float8", "int8"))


@pytest.mark.parametrize("mixture", [False, True])
def test_an_engine_rounds_products_and_follows_the_policy(mixture: bool) -> None:
    make = embedded_mixture if mixture else embedded
    policy = make("0123+", hidden=16, layers=2, heads=2, context=16)
    before = {name: parameter.clone() for name, parameter in policy.named_parameters()}
    engine = Engine(policy, "int8")
    engine.refresh()
    differ = {
        name
        for (name, one), two in zip(engine.policy.named_parameters(), policy.parameters(), strict=True)
        if not torch.equal(one, two)
    }
    products = [name for name in differ if "q_proj" in name or "experts" in name or "mlp.gate_proj" in name]
    assert products and not any("norm.weight" in name for name in differ)
    kept = dict(engine.policy.named_parameters())
    for name, parameter in policy.named_parameters():
        if name in differ and name not in products and "proj" not in name:
            assert torch.equal(kept[name], rounded(parameter, "bfloat16")), f"{name} stays in bfloat16"
    assert all(torch.equal(parameter, before[name]) for name, parameter in policy.named_parameters())
    assert not any(parameter.requires_grad for parameter in engine.policy.parameters())
    assert all(parameter.requires_grad for parameter in policy.parameters())
    coarse = tokens(engine.policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    engine.refresh()
    assert not torch.allclose(tokens(engine.policy), coarse)
    assert float((tokens(engine.policy) - tokens(policy)).abs().max()) < 0.2


def test_an_exact_engine_says_the_same_and_a_coarser_one_less() -> None:
    policy = embedded_mixture("0123+", hidden=32, layers=2, heads=2, context=16)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    errors = {}
    for precision in ("float32", "bfloat16", "int8", "float8"):
        for activations in (False, True):
            engine = Engine(policy, precision, activations)  # type: ignore[arg-type]
            engine.refresh()
            errors[precision, activations] = float((tokens(engine.policy) - tokens(policy)).abs().mean())
    assert errors["float32", False] == errors["float32", True] == 0.0
    assert 0 < errors["bfloat16", False] < errors["float8", False]
    for precision in ("bfloat16", "int8", "float8"):
        assert errors[precision, False] != errors[precision, True]


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, float8, int8; got 'fp4'"):
        Engine(embedded("01", hidden=16, layers=1, heads=2), "fp4")  # type: ignore[arg-type]
