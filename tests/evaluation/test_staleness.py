"""Diagnostics of stale data, on numbers by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.evaluation.staleness import by_ratio, draw, lengths, tokens

RATIO = torch.tensor([[0.6, 1.0, 1.0], [1.5, 1.0, 1.0]], dtype=torch.float64)


def case() -> tuple[Evaluation, Decisions]:
    """A bad row of 3 tokens and a good row of 1; the good token's ratio is 1.5, a bad one's 0.6."""
    behaviour = torch.tensor([[0.1, 0.8, 0.9], [0.2, 0.5, 0.5]], dtype=torch.float64).log()
    decisions = Decisions(
        mask=torch.tensor([[True, True, True], [True, False, False]]),
        behaviour_log_prob=behaviour,
        advantage=torch.tensor([[-1.0] * 3, [1.0] * 3], dtype=torch.float64),
    )
    return Evaluation(log_prob=behaviour + RATIO.log(), entropy=torch.full((2, 3), 0.5).double()), decisions


def test_probability_by_ratio() -> None:
    table = {(row["low"], row["high"]): row for row in by_ratio(*case())}
    assert table[0.5, 0.8]["negative_count"] == 1 and table[0.5, 0.8]["negative_probability"] == pytest.approx(0.1)
    assert table[1.2, 2.0]["positive_count"] == 1 and table[1.2, 2.0]["positive_probability"] == pytest.approx(0.2)
    assert table[0.95, 1.05]["negative_probability"] == pytest.approx(0.85)
    assert table[0.95, 1.05]["negative_share"] == pytest.approx(2 / 3)
    assert math.isnan(table[0.0, 0.5]["positive_probability"])


def test_lengths() -> None:
    assert lengths(case()[1]) == {"positive": 1.0, "negative": 3.0, "positive_rows": 0.5}


def test_tokens_are_taken_evenly() -> None:
    found = tokens(*case(), most=2)
    assert found["ratio"].tolist() == pytest.approx([0.6, 1.0]) and len(found["entropy"]) == 2


def test_the_picture(tmp_path: Path) -> None:
    evaluation, decisions = case()
    found = tokens(evaluation, decisions)
    draw(by_ratio(evaluation, decisions), {1: lengths(decisions), 2: lengths(decisions)}, found, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
