"""Split-temperature decoding: equal temperatures are plain decoding, each temperature acts on its own side only."""

from __future__ import annotations

import pytest
import torch

from ascent.policies.embedded import embedded
from ascent.sampling.split_temperature import generate_split
from ascent.sampling.text import generate

PROMPTS = ["12+3=", "4+5="]


def policy(spread: float = 3.0):
    made = embedded("0123456789+=;", hidden=16, layers=1, heads=2, context=32)
    with torch.no_grad():
        made.model.get_output_embeddings().weight.mul_(spread)
    return made


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_equal_temperatures_are_plain_decoding(temperature: float) -> None:
    made = policy()
    plain = generate(made, PROMPTS, 3, 10, temperature, seed=5)
    assert generate_split(made, PROMPTS, 3, 10, 1.0, temperature, temperature, seed=5) == plain


def test_a_threshold_that_no_position_passes_leaves_one_temperature() -> None:
    made = policy()
    never, always = 1e9, -1.0
    assert generate_split(made, PROMPTS, 2, 8, never, 3.0, 0.7) == generate(made, PROMPTS, 2, 8, 0.7)
    assert generate_split(made, PROMPTS, 2, 8, always, 3.0, 0.7) == generate(made, PROMPTS, 2, 8, 3.0)


def test_both_sides_act() -> None:
    made = policy(1.5)
    plain = generate_split(made, PROMPTS, 8, 10, 2.2, 1.0, 1.0)
    assert generate_split(made, PROMPTS, 8, 10, 2.2, 0.05, 1.0) != plain
    assert generate_split(made, PROMPTS, 8, 10, 2.2, 1.0, 0.05) != plain


def test_refusals() -> None:
    with pytest.raises(ValueError, match="low must be a temperature > 0; got 0"):
        generate_split(policy(), PROMPTS, 1, 4, 1.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="samples must be >= 1"):
        generate_split(policy(), PROMPTS, 0, 4, 1.0, 1.0, 1.0)
