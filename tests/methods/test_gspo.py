"""GSPO: sequence ratio by hand, GSPO-token's equal gradient, one clip decision for a whole response."""

from __future__ import annotations

import math

import torch

from ascent.core.evaluation import Evaluation
from ascent.core.registry import method
from tests.methods.groups import RATIOS, decisions, now, number, surrogate

HALF = math.sqrt(0.5)


def test_loss_by_hand() -> None:
    """All tokens of a row have one ratio, so the geometric mean is it; a mean over the four responses."""
    loss, _ = method("gspo", eps=0.0).loss(now(), decisions())
    advantage = (HALF, -HALF, -HALF, HALF)
    total = sum(surrogate(a, r, 3e-4, 4e-4) for a, r in zip(advantage, RATIOS, strict=True))
    assert torch.allclose(loss, number(total / 4))


def test_ratio_is_the_geometric_mean() -> None:
    batch = decisions()
    log_prob = torch.full((4, 3), -2.0, dtype=torch.float64)
    log_prob[1] += torch.tensor([math.log(2.0), math.log(4.0), 0.0])
    loss, _ = method("gspo", eps=0.0, clip_low=math.inf, clip_high=math.inf).loss(Evaluation(log_prob=log_prob), batch)
    total = -HALF * 1.0 + HALF * 2.0 + HALF * 1.0 - HALF * 1.0
    assert torch.allclose(loss, number(total / 4))


def test_token_variant_has_the_same_number_and_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob = -2.0 + 0.1 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    found = []
    for variant in ("sequence", "token"):
        leaf = log_prob.clone().requires_grad_()
        loss, _ = method("gspo", variant=variant, clip_low=0.03, clip_high=0.04).loss(
            Evaluation(log_prob=leaf), decisions()
        )
        loss.backward()
        found.append((loss.detach(), leaf.grad))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-12)
    assert found[0][1] is not None and found[1][1] is not None
    assert torch.allclose(found[0][1], found[1][1], atol=1e-12)
    assert bool((found[0][1] != 0).any())


def test_a_response_is_clipped_whole() -> None:
    """Row 3 (positive advantage): one token far above 1 pulls the sequence over the bound, so all tokens stop."""
    log_prob = torch.full((4, 3), -2.0, dtype=torch.float64)
    log_prob[3, 0] += 1.0
    leaf = log_prob.requires_grad_()
    method("gspo").loss(Evaluation(log_prob=leaf), decisions())[0].backward()
    assert leaf.grad is not None
    assert leaf.grad[3].tolist() == [0.0, 0.0, 0.0]
    assert bool((leaf.grad[2, :2] != 0).all())
