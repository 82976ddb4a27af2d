"""Naive off-policy policy gradient: by hand, unbiased on policy, biased elsewhere."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method

REWARD = torch.tensor([2.5, 2.0, 1.0], dtype=torch.float64)
PRIOR = torch.full((3,), 1 / 3, dtype=torch.float64)


def test_by_hand_with_and_without_a_baseline() -> None:
    """Score 3, log-ratio 1 over two tokens, beta 0.5: A = 2.5, log pi = -3."""
    decisions = Decisions(
        mask=torch.ones(1, 2, dtype=torch.bool),
        reward=torch.tensor([[1.0, 2.0]], dtype=torch.float64),
        reference_log_prob=torch.tensor([[-2.0, -2.0]], dtype=torch.float64),
        extras={"baseline": torch.tensor([1.5], dtype=torch.float64)},
    )
    evaluation = Evaluation(log_prob=torch.tensor([[-1.0, -2.0]], dtype=torch.float64))
    assert float(method("naive_pg", beta=0.5).loss(evaluation, decisions)[0]) == 2.5 * 3
    assert float(method("naive_pg", beta=0.5, baseline="column").loss(evaluation, decisions)[0]) == 1.0 * 3


@pytest.mark.parametrize("baseline", ["none", "column"])
def test_unbiased_on_policy_and_biased_off_policy(baseline: str) -> None:
    logits = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64, requires_grad=True)
    policy = logits.softmax(0)
    objective = (policy * (REWARD - 0.5 * (logits.log_softmax(0) - PRIOR.log()))).sum()
    truth = torch.autograd.grad(objective, logits, retain_graph=True)[0]
    value = (policy * REWARD).sum().detach()
    gaps = []
    for data in (policy.detach(), torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)):
        estimate = torch.zeros(3, dtype=torch.float64)
        for arm in range(3):
            action = torch.tensor([[arm]])
            decisions = Decisions(
                mask=torch.ones(1, 1, dtype=torch.bool),
                reward=REWARD[action],
                reference_log_prob=PRIOR.log()[action],
                extras={"baseline": value[None]},
            )
            evaluation = Evaluation(log_prob=logits.log_softmax(0)[action])
            loss, _ = method("naive_pg", beta=0.5, baseline=baseline).loss(evaluation, decisions)
            estimate -= data[arm] * torch.autograd.grad(loss, logits)[0]
        gaps.append(float((estimate - truth).abs().max()))
    assert gaps[0] < 1e-12 < 1e-2 < gaps[1]
