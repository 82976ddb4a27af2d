"""A2C: n-step returns by hand, the three losses by hand, and bootstrapping where an episode was only cut."""

from __future__ import annotations

import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method


def rollout(truncated: bool) -> Decisions:
    end = torch.tensor([[False, False, True]])
    return Decisions(
        mask=torch.ones(1, 3, dtype=torch.bool),
        reward=torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64),
        value=torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64),
        next_value=torch.tensor([[2.0, 3.0, 10.0 if truncated else 0.0]], dtype=torch.float64),
        terminated=end & (not truncated),
        truncated=end & truncated,
    )


def test_n_step_returns_by_hand() -> None:
    credited = method("a2c", discount=0.5).credit(rollout(truncated=False))
    assert credited.value_target.tolist() == [[1.5, 1.0, 2.0]]
    assert credited.advantage.tolist() == [[0.5, -1.0, -1.0]]


def test_truncation_bootstraps() -> None:
    credited = method("a2c", discount=0.5).credit(rollout(truncated=True))
    assert credited.value_target.tolist() == [[2.75, 3.5, 7.0]]


def test_loss_by_hand() -> None:
    evaluation = Evaluation(
        log_prob=torch.tensor([[-1.0, -2.0, -3.0]], dtype=torch.float64),
        value=torch.zeros(1, 3, dtype=torch.float64),
        entropy=torch.full((1, 3), 0.6, dtype=torch.float64),
    )
    loss, metrics = method("a2c", discount=0.5, value_coefficient=0.5, entropy_coefficient=0.1).loss(
        evaluation, rollout(False)
    )
    policy = (0.5 * 1 - 1.0 * 2 - 1.0 * 3) / 3
    value = 0.5 * 0.5 * (1.5**2 + 1.0**2 + 2.0**2) / 3
    assert torch.allclose(loss, torch.tensor(policy + value - 0.06, dtype=torch.float64))
    assert torch.allclose(metrics["loss/policy"], torch.tensor(policy, dtype=torch.float64))
