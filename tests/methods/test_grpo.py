"""GRPO: golden advantages and loss, the k3 penalty, and the methods that it becomes at special settings."""

from __future__ import annotations

import math

import torch

from ascent.core.evaluation import Evaluation
from ascent.core.registry import method
from tests.methods.groups import LENGTHS, RATIOS, REFERENCE, decisions, now, number, surrogate

HALF = math.sqrt(0.5)


def test_advantage_by_hand() -> None:
    """Two scores a, b: the sample deviation is |a - b| / sqrt(2), so both z-scores are 1 / sqrt(2)."""
    advantage = method("grpo", eps=0.0).credit(decisions()).advantage[:, 0]
    assert torch.allclose(advantage, torch.tensor([HALF, -HALF, -HALF, HALF], dtype=torch.float64))
    population = method("grpo", eps=0.0, ddof=0).credit(decisions()).advantage[:, 0]
    assert torch.allclose(population, torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


def test_equal_scores_have_no_advantage() -> None:
    advantage = method("grpo").credit(decisions((0.1, 0.1, 0.1, 0.1))).advantage
    assert bool((advantage == 0).all())


def test_loss_by_hand() -> None:
    """Mean over tokens within a response, then over responses; k3 = exp(-d) - 1 + d with d = log pi / pi_ref."""
    loss, _ = method("grpo", eps=0.0, kl_coefficient=0.04).loss(now(), decisions())
    advantage = (HALF, -HALF, -HALF, HALF)
    policy = sum(surrogate(a, r, 0.2, 0.2) for a, r in zip(advantage, RATIOS, strict=True)) / 4
    k3 = math.exp(-REFERENCE) - 1 + REFERENCE
    assert torch.allclose(loss, number(policy + 0.04 * k3))


def test_token_mean_weighs_long_responses_more() -> None:
    loss, _ = method("grpo", eps=0.0, kl_coefficient=0.0, reduction="token-mean").loss(now(), decisions())
    advantage = (HALF, -HALF, -HALF, HALF)
    total = sum(n * surrogate(a, r, 0.2, 0.2) for n, a, r in zip(LENGTHS, advantage, RATIOS, strict=True))
    assert torch.allclose(loss, number(total / sum(LENGTHS)))


def test_without_scale_it_has_the_advantage_of_dr_grpo() -> None:
    plain, right = method("grpo", scale="none").credit(decisions()), method("dr_grpo").credit(decisions())
    assert torch.equal(plain.advantage, right.advantage)


def test_batch_scale_divides_by_one_deviation() -> None:
    centred = torch.tensor([0.5, -0.5, -2.0, 2.0], dtype=torch.float64)
    deviation = torch.tensor([1.0, 0.0, 3.0, 7.0], dtype=torch.float64).std()
    advantage = method("grpo", scale="batch", eps=0.0).credit(decisions()).advantage[:, 0]
    assert torch.allclose(advantage, centred / deviation)


def test_on_policy_gradient_is_that_of_log_prob() -> None:
    """At old = now the clipped ratio has the gradient of -A log pi, whatever the bounds."""
    batch = decisions().replace(old_log_prob=now().log_prob.detach())
    evaluation = now()
    built = method("grpo", kl_coefficient=0.0)
    built.loss(evaluation, batch)[0].backward()
    lengths = torch.tensor(LENGTHS, dtype=torch.float64)[:, None]
    expected = torch.where(batch.mask, -built.credit(batch).advantage / (4 * lengths), 0.0)
    assert evaluation.log_prob.grad is not None
    assert torch.allclose(evaluation.log_prob.grad, expected)


def test_gradient_by_finite_differences() -> None:
    built = method("grpo")
    batch = built.credit(decisions())
    assert torch.autograd.gradcheck(
        lambda x: built.loss(Evaluation(log_prob=x), batch)[0], (now().log_prob,), eps=1e-7, atol=1e-6
    )
