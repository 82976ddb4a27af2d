"""Demonstrations as decisions."""

from __future__ import annotations

import pytest
import torch

from ascent.policies.embedded import embedded
from ascent.sampling.demonstrations import demonstrations
from ascent.worlds.text.arithmetic import Arithmetic

TASK = Arithmetic()
POLICY = embedded(TASK.alphabet, hidden=16, layers=1, heads=2)


def texts(corrupted: float, step: int = 0, batch: int = 200, seed: int = 0) -> list[str]:
    rows = demonstrations(TASK, POLICY, step, batch, seed, corrupted)
    return [
        POLICY.tokenizer.decode(ids[keep], skip_special_tokens=True)
        for ids, keep in zip(rows.action, rows.mask, strict=True)
    ]


def correct(found: list[str], start: int = 0) -> float:
    answers = [TASK.example(start + place).answer for place in range(len(found))]
    scores = TASK.score([""] * len(found), found, answer=answers)
    return sum(score or 0.0 for score in scores) / len(found)


def test_the_corrupted_share_is_wrong_and_the_rest_is_right() -> None:
    assert correct(texts(0.0)) == 1.0
    assert correct(texts(1.0)) == 0.0
    assert 0.4 < correct(texts(0.5)) < 0.6


def test_rows_end_with_the_end_token_and_can_be_evaluated() -> None:
    rows = demonstrations(TASK, POLICY, 1, 8, 0)
    lengths = rows.mask.sum(1)
    assert rows.action[torch.arange(8), lengths - 1].tolist() == [POLICY.eos[0]] * 8
    assert rows.index.tolist() == list(range(8, 16))
    assert rows.terminated.sum() == 8 and not rows.truncated.any()
    found = POLICY.evaluate(rows, frozenset({"log_prob"})).log_prob
    assert bool((found[rows.mask] < 0).all()) and bool((found[~rows.mask] == 0).all())


def test_the_same_step_gives_the_same_rows_and_the_next_gives_others() -> None:
    assert texts(0.5) == texts(0.5)
    assert texts(0.5) != texts(0.5, seed=1)
    assert texts(0.5, step=0, batch=10) == texts(0.5, step=0, batch=5) + texts(0.5, step=1, batch=5)


@pytest.mark.parametrize(("batch", "corrupted"), [(0, 0.5), (4, 1.5)])
def test_bad_arguments_are_named(batch: int, corrupted: float) -> None:
    with pytest.raises(ValueError, match=f"batch={batch}, corrupted={corrupted}"):
        demonstrations(TASK, POLICY, 0, batch, 0, corrupted)
