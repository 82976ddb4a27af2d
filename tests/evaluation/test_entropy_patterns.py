"""Entropy patterns: tokens, percentiles, overlap and change by percentile, against numbers worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ascent.evaluation import entropy_pictures
from ascent.evaluation.entropy_patterns import (
    TokenEntropy,
    change_by_percentile,
    overlap,
    percentiles,
    token_entropies,
    top_positions,
)

ENTROPY = torch.tensor([[0.1, 0.9, 0.3], [0.7, 0.2, 50.0]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_tokens_are_ranked_by_their_mean_entropy() -> None:
    action = torch.tensor([[4, 4, 2], [3, 2, 9]])
    found = token_entropies(action, ENTROPY, MASK, least=1)
    assert [item.token for item in found] == [4, 2]
    assert [item.count for item in found] == [2, 2]
    assert [item.entropy for item in found] == pytest.approx([0.5, 0.25])
    assert [item.token for item in token_entropies(action, ENTROPY, MASK, least=0)] == [3, 4, 2]


def test_percentiles_and_top_positions() -> None:
    assert percentiles(ENTROPY, MASK, (0, 20, 80, 100)) == pytest.approx([0.1, 0.2, 0.9, 0.9])
    assert top_positions(ENTROPY, MASK, 0.4).tolist() == [[False, True, False], [True, False, False]]
    with pytest.raises(ValueError, match="rho must be in"):
        top_positions(ENTROPY, MASK, 0.0)
    with pytest.raises(ValueError, match="at least one position"):
        percentiles(ENTROPY, MASK & False)


def test_overlap() -> None:
    assert overlap(ENTROPY, ENTROPY, MASK, 0.4) == 1.0
    assert overlap(ENTROPY, -ENTROPY, MASK, 0.4) == 0.0
    half = ENTROPY.clone()
    half[0, 1] = 0.0
    assert overlap(ENTROPY, half, MASK, 0.4) == 0.5
    draws = torch.Generator().manual_seed(0)
    first, second = (torch.rand(100, 100, generator=draws) for _ in range(2))
    assert overlap(first, second, torch.ones(100, 100, dtype=torch.bool)) == pytest.approx(0.2, abs=0.02)


def test_change_by_percentile() -> None:
    trained = ENTROPY + torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 9.0]], dtype=torch.float64)
    assert change_by_percentile(ENTROPY, trained, MASK, 0.5) == pytest.approx([0.0, 1.5])
    assert change_by_percentile(ENTROPY, trained, MASK, 1.0) == pytest.approx([0.6])
    with pytest.raises(ValueError, match="width must be in"):
        change_by_percentile(ENTROPY, trained, MASK, 0.0)


def test_pictures(tmp_path: Path) -> None:
    ranked = [TokenEntropy(1, 5, 0.5), TokenEntropy(2, 5, 0.1)]
    entropy_pictures.tokens(ENTROPY[MASK], {"80%": 0.7}, ranked, {1: "a", 2: "b"}, tmp_path / "tokens.png")
    entropy_pictures.survival(["base", "end"], [1.0, 0.9], [0.1, -0.2], {50: [0.1, 0.2]}, 0.2, tmp_path / "s.png")
    entropy_pictures.temperatures({"only at forks": [(0.5, 0.1), (1.0, 0.2)]}, "pass@1", tmp_path / "t.png")
    assert {path.name for path in tmp_path.iterdir()} == {"tokens.png", "s.png", "t.png"}
