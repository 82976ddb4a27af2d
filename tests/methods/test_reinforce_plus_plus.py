"""REINFORCE++: batch statistics over tokens by hand, KL to go, and the baseline variant."""

from __future__ import annotations

import math

import torch

from ascent.core.registry import method
from tests.methods.groups import REFERENCE, decisions, now, number


def test_plain_advantage_by_hand() -> None:
    """Scores 1, 0, 3, 7 on 1, 3, 2, 2 tokens: the batch is the 8 tokens 1 000 33 77."""
    tokens = torch.tensor([1.0, 0, 0, 0, 3, 3, 7, 7], dtype=torch.float64)
    credited = method("reinforce_plus_plus", kl_coefficient=0.0, eps=0.0).credit(decisions())
    assert torch.allclose(credited.advantage[decisions().mask], (tokens - tokens.mean()) / tokens.std())


def test_kl_is_credited_to_earlier_tokens() -> None:
    """With old = now, a token pays beta * REFERENCE for itself and each later token of its response."""
    batch = decisions().replace(old_log_prob=now().log_prob.detach())
    cost = 0.5 * REFERENCE
    raw = torch.tensor(
        [1 - cost, -3 * cost, -2 * cost, -cost, 3 - 2 * cost, 3 - cost, 7 - 2 * cost, 7 - cost], dtype=torch.float64
    )
    credited = method("reinforce_plus_plus", kl_coefficient=0.5, eps=0.0).credit(batch)
    assert torch.allclose(credited.advantage[batch.mask], (raw - raw.mean()) / raw.std())


def test_baseline_variant_by_hand() -> None:
    """Group means first (0.5 and 5), then one deviation over all tokens; the KL is a k2 loss."""
    tokens = torch.tensor([0.5, -0.5, -0.5, -0.5, -2, -2, 2, 2], dtype=torch.float64)
    built = method("reinforce_plus_plus", variant="baseline", kl_coefficient=0.3, eps=0.0)
    credited = built.credit(decisions())
    assert torch.allclose(credited.advantage[decisions().mask], (tokens - tokens.mean()) / tokens.std())
    _, metrics = built.loss(now(), decisions())
    assert torch.allclose(metrics["loss/kl"], number(0.3 * REFERENCE**2 / 2))


def test_the_group_is_needed_by_the_baseline_only() -> None:
    assert "group" not in method("reinforce_plus_plus").needs
    assert "group" in method("reinforce_plus_plus", variant="baseline").needs
    assert "reference_log_prob" not in method("reinforce_plus_plus", kl_coefficient=0.0).needs


def test_clipped_ratio_is_averaged_over_tokens() -> None:
    loss, _ = method("reinforce_plus_plus", kl_coefficient=0.0, clip_low=math.inf, clip_high=math.inf).loss(
        now(), decisions()
    )
    advantage = method("reinforce_plus_plus", kl_coefficient=0.0).credit(decisions()).advantage
    ratio = (now().log_prob - decisions().old_log_prob).exp()
    assert torch.allclose(loss, -(advantage * ratio)[decisions().mask].mean())
