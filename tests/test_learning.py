"""Whole runs at a fixed seed that must learn: not that the mathematics is right, but that all of it together works."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ascent.systems.run import train
from tests.training.runs import control, language, tiny_model


def test_a_language_model_learns_a_task_of_one_token(tmp_path: Path) -> None:
    """Every answer should begin with 7: by chance one in seventeen, learnt in twenty steps."""
    model = tiny_model(tmp_path / "model", torch.float32)
    result = train(
        language(
            model, tmp_path / "run", method="reinforce", reward=(f"{tmp_path / 'rewards.py'}:first",), dtype="float32",
            batch=64, group_size=8, max_new_tokens=1, steps=20, learning_rate=2e-2, evaluate_every=20, save_every=0,
            held_out=64, samples=2,
        )
    )  # fmt: skip
    assert result.before is not None and result.after is not None
    assert result.before < 0.2
    assert result.after > 0.9


@pytest.mark.parametrize("method", ["grpo", "rloo", "dapo"])
def test_group_methods_learn_it_too(tmp_path: Path, method: str) -> None:
    model = tiny_model(tmp_path / "model", torch.float32)
    result = train(
        language(
            model, tmp_path / "run", method=method, reward=(f"{tmp_path / 'rewards.py'}:first",), dtype="float32",
            batch=64, group_size=8, max_new_tokens=1, steps=20, minibatches=1, learning_rate=2e-2, evaluate_every=20,
            save_every=0, held_out=64, samples=2,
        )
    )  # fmt: skip
    assert result.before is not None and result.after is not None
    assert result.before < 0.2
    assert result.after > 0.7


CARTPOLE = {
    "environments": 8, "horizon": 32, "passes": 20, "minibatches": 1, "save_every": 0, "episodes": 8,
    "set": ("discount=0.98", "trace=0.8", "entropy_coefficient=0"), "learning_rate": 1e-3,
}  # fmt: skip


def test_ppo_balances_the_pole_for_longer(tmp_path: Path) -> None:
    """Ten thousand steps: a random policy holds it for about 22, this one for several hundred."""
    result = train(control(tmp_path / "run", steps=40, evaluate_every=40, **CARTPOLE))
    assert result.before is not None and result.after is not None
    assert result.before < 60
    assert result.after > 150


@pytest.mark.slow
def test_ppo_solves_the_pole(tmp_path: Path) -> None:
    """475 is the threshold of CartPole-v1."""
    result = train(control(tmp_path / "run", steps=150, evaluate_every=10, **CARTPOLE))
    scores = [line["held_out/return"] for line in result.metrics if "held_out/return" in line]
    assert max(scores) >= 475
