"""The embedded default: reproducible, small, an ordinary model folder."""

from __future__ import annotations

import pytest
import torch

from ascent.policies.embedded import character_tokenizer, embedded


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (embedded("ab", seed=seed, hidden=16, layers=1, heads=2) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(first.parameters(), same.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two, _ in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_the_default_has_less_than_a_million_parameters() -> None:
    assert 8e5 < sum(parameter.numel() for parameter in embedded("0123456789+=;").parameters()) < 9e5


def test_characters_are_tokens_and_come_back() -> None:
    tokenizer = character_tokenizer("abc \n+b")
    ids = tokenizer("a b\n+c")["input_ids"]
    assert len(ids) == 6 and len(tokenizer) == 4 + 6
    assert tokenizer.decode([1, *ids, 2, 0], skip_special_tokens=True) == "a b\n+c"


@pytest.mark.parametrize("change", [{"alphabet": ""}, {"layers": 0}, {"hidden": 10}])
def test_bad_sizes_are_named(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        embedded(**{"alphabet": "ab", **change})  # type: ignore[arg-type]
