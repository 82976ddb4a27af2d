"""CISPO: clipped weights by hand, and no token without a gradient."""

from __future__ import annotations

import math

import torch

from ascent.core.registry import method
from tests.methods.groups import LENGTHS, RATIOS, decisions, now, number

HALF = math.sqrt(0.5)
ADVANTAGE = (HALF, -HALF, -HALF, HALF)


def test_loss_and_gradient_by_hand() -> None:
    """Upper bound 1.2 cuts the weight 1.5 of row 0 to 1.2; the weight itself has no gradient."""
    evaluation = now()
    loss, metrics = method("cispo", clip_high=0.2, eps=0.0).loss(evaluation, decisions())
    weights = (1.2, 0.5, 1.1, 0.9)
    total = sum(
        -n * w * a * (math.log(r) - 2.0) for n, w, a, r in zip(LENGTHS, weights, ADVANTAGE, RATIOS, strict=True)
    )
    assert torch.allclose(loss, number(total / 8))
    loss.backward()
    assert evaluation.log_prob.grad is not None
    for row, (weight, advantage) in enumerate(zip(weights, ADVANTAGE, strict=True)):
        assert torch.allclose(evaluation.log_prob.grad[row, 0], number(-weight * advantage / 8))
    assert float(metrics["clip_fraction_high"]) == 1 / 8


def test_tokens_that_ppo_drops_keep_their_gradient() -> None:
    batch = decisions()
    for slug, flows in (("cispo", True), ("dapo", False)):
        evaluation = now()
        method(slug).loss(evaluation, batch)[0].backward()
        assert evaluation.log_prob.grad is not None
        assert bool(evaluation.log_prob.grad[0, 0] != 0) is flows


def test_a_lower_bound_raises_small_weights() -> None:
    evaluation = now()
    method("cispo", clip_low=0.2, eps=0.0).loss(evaluation, decisions())[0].backward()
    assert evaluation.log_prob.grad is not None
    assert torch.allclose(evaluation.log_prob.grad[1, 0], number(0.8 * HALF / 8))
