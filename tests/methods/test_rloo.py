"""RLOO: the leave-one-out closed form, KL in the reward, and the exact gradient of a bandit by enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method
from tests.methods.groups import LENGTHS, REFERENCE, decisions, now, number


def test_leave_one_out_by_hand() -> None:
    advantage = method("rloo").credit(decisions()).advantage
    assert advantage[:, 0].tolist() == [1.0, -1.0, -4.0, 4.0]
    assert bool((advantage[~decisions().mask] == 0).all())


def test_closed_form_for_any_group_size() -> None:
    scores = torch.randn(6, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Decisions(mask=torch.ones(6, 1, dtype=torch.bool), reward=scores, group=torch.zeros(6, dtype=torch.int64))
    others = (scores.sum() - scores) / 5
    assert torch.allclose(method("rloo").credit(batch).advantage, scores - others, atol=1e-12)


def test_loss_sums_over_tokens_and_averages_over_responses() -> None:
    loss, _ = method("rloo").loss(now(), decisions())
    log_prob = now().log_prob.detach()
    expected = (
        -sum(
            a * float(log_prob[row, :length].sum())
            for row, (a, length) in enumerate(zip((1, -1, -4, 4), LENGTHS, strict=True))
        )
        / 4
    )
    assert torch.allclose(loss, number(expected))


def test_kl_belongs_to_the_reward() -> None:
    """With old = now every token costs beta * REFERENCE, so a response of n tokens loses n of them."""
    batch = decisions().replace(old_log_prob=now().log_prob.detach())
    scores = [score - 0.5 * REFERENCE * length for score, length in zip((1.0, 0.0, 3.0, 7.0), LENGTHS, strict=True)]
    advantage = method("rloo", kl_coefficient=0.5).credit(batch).advantage[:, 0]
    expected = [scores[0] - scores[1], scores[1] - scores[0], scores[2] - scores[3], scores[3] - scores[2]]
    assert torch.allclose(advantage, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("size", [2, 3])
def test_unbiased_on_a_bandit_by_enumeration(size: int) -> None:
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    rewards = torch.tensor([1.0, 4.0, -2.0], dtype=torch.float64)
    probability = logits.softmax(0)
    truth = torch.autograd.grad((probability * rewards).sum(), logits, retain_graph=True)[0]
    estimate = torch.zeros_like(truth)
    for draws in itertools.product(range(3), repeat=size):
        action = torch.tensor(draws)[:, None]
        group = torch.zeros(size, dtype=torch.int64)
        batch = Decisions(mask=torch.ones(size, 1, dtype=torch.bool), reward=rewards[action], group=group)
        loss, _ = method("rloo").loss(Evaluation(log_prob=logits.log_softmax(0)[action]), batch)
        estimate -= probability[list(draws)].prod().detach() * torch.autograd.grad(loss, logits)[0]
    assert torch.allclose(estimate, truth, atol=1e-12)
