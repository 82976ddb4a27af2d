"""REINFORCE: golden numbers, the unbiased batch baseline, and the exact gradient of a bandit by enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method


def stream() -> Decisions:
    """Two episodes in one row: rewards 1, 2 | 3, 4, the first terminates, the second is cut."""
    return Decisions(
        mask=torch.ones(1, 4, dtype=torch.bool),
        reward=torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64),
        terminated=torch.tensor([[False, True, False, False]]),
        truncated=torch.tensor([[False, False, False, True]]),
    )


def test_reward_to_go_by_hand() -> None:
    built = method("reinforce", discount=0.5)
    assert built.credit(stream()).advantage.tolist() == [[2.0, 2.0, 5.0, 4.0]]
    loss, _ = built.loss(Evaluation(log_prob=torch.tensor([[-1.0, -2.0, -3.0, -4.0]], dtype=torch.float64)), stream())
    assert float(loss) == 2 + 4 + 15 + 16


def test_batch_baseline_is_the_mean_of_the_other_rows() -> None:
    decisions = Decisions(
        mask=torch.ones(3, 1, dtype=torch.bool), reward=torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    )
    credited = method("reinforce", baseline="batch").credit(decisions)
    assert torch.allclose(credited.advantage[:, 0], torch.tensor([-3.0, -1.5, 4.5], dtype=torch.float64))


def test_batch_baseline_refuses_a_discount() -> None:
    with pytest.raises(ValueError, match=r"baseline='batch'.*discount=0\.9.*use discount=1\.0"):
        method("reinforce", baseline="batch", discount=0.9)


@pytest.mark.parametrize("baseline", ["none", "batch"])
def test_unbiased_on_a_bandit_by_enumeration(baseline: str) -> None:
    """E over all pairs of draws of the loss gradient is exactly -grad J."""
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, 4.0, -2.0], dtype=torch.float64)
    probability = logits.softmax(0)
    truth = torch.autograd.grad((probability * rewards).sum(), logits, retain_graph=True)[0]
    estimate: Tensor = torch.zeros_like(truth)
    ended = torch.ones(2, 1, dtype=torch.bool)
    for pair in itertools.product(range(3), repeat=2):
        action = torch.tensor(pair)[:, None]
        decisions = Decisions(mask=ended, reward=rewards[action], terminated=ended, truncated=~ended)
        loss, _ = method("reinforce", baseline=baseline).loss(
            Evaluation(log_prob=logits.log_softmax(0)[action]), decisions
        )
        weight = probability[list(pair)].prod().detach()
        estimate = estimate - weight * torch.autograd.grad(loss, logits)[0]
    assert torch.allclose(estimate, truth, atol=1e-12)
