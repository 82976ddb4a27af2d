"""DPO by hand, and its gradient weight sigmoid(-beta D)."""

from __future__ import annotations

import math

import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method


def pair() -> Decisions:
    """Two responses of two tokens; row 0 wins; log-ratios 0.4 and -0.6 in total when log pi is -1 everywhere."""
    return Decisions(
        mask=torch.ones(2, 2, dtype=torch.bool),
        reward=torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64),
        reference_log_prob=torch.tensor([[-1.1, -1.3], [-0.7, -0.7]], dtype=torch.float64),
        group=torch.tensor([4, 4]),
    )


def test_loss_and_gradient_by_hand() -> None:
    log_prob = torch.full((2, 2), -1.0, dtype=torch.float64, requires_grad=True)
    loss, _ = method("dpo", beta=0.5).loss(Evaluation(log_prob=log_prob), pair())
    assert torch.allclose(loss, torch.tensor(math.log(1 + math.exp(-0.5)), dtype=torch.float64))
    loss.backward()
    slope = 0.5 / (1 + math.exp(0.5))
    assert log_prob.grad is not None
    assert torch.allclose(log_prob.grad, torch.tensor([[-slope] * 2, [slope] * 2], dtype=torch.float64))


def test_at_the_reference_it_is_log_two() -> None:
    reference = pair().reference_log_prob
    loss, _ = method("dpo").loss(Evaluation(log_prob=reference), pair())
    assert torch.allclose(loss, torch.tensor(math.log(2.0), dtype=torch.float64))


def test_length_is_not_normalised() -> None:
    """A third token on the winner adds its log-ratio to D."""
    longer = Decisions(
        mask=torch.tensor([[True, True, True], [True, True, False]]),
        reward=torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64),
        reference_log_prob=torch.tensor([[-1.1, -1.3, -2.0], [-0.7, -0.7, 0.0]], dtype=torch.float64),
        group=torch.tensor([4, 4]),
    )
    loss, _ = method("dpo", beta=0.5).loss(Evaluation(log_prob=torch.full((2, 3), -1.0, dtype=torch.float64)), longer)
    assert torch.allclose(loss, torch.tensor(math.log(1 + math.exp(-1.0)), dtype=torch.float64))
