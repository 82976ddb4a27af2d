"""Dr. GRPO: constant denominator by hand, and its relation to the leave-one-out advantage."""

from __future__ import annotations

import pytest
import torch

from ascent.core.registry import method
from tests.methods.groups import LENGTHS, RATIOS, decisions, now, number, surrogate

ADVANTAGE = (0.5, -0.5, -2.0, 2.0)


@pytest.mark.parametrize(("horizon", "constant"), [(None, 4.0), (10.0, 10.0)])
def test_loss_by_hand(horizon: float | None, constant: float) -> None:
    """Summed over tokens, divided by 4 responses and by the budget (4) or the given horizon."""
    loss, _ = method("dr_grpo", horizon=horizon).loss(now(), decisions())
    total = sum(n * surrogate(a, r, 0.2, 0.2) for n, a, r in zip(LENGTHS, ADVANTAGE, RATIOS, strict=True))
    assert torch.allclose(loss, number(total / (4 * constant)))


def test_advantage_is_a_fixed_multiple_of_leave_one_out() -> None:
    """mean over the group = (1 - 1/G) of leave-one-out, here 1/2."""
    ours, others = method("dr_grpo").credit(decisions()).advantage, method("rloo").credit(decisions()).advantage
    assert torch.allclose(ours, 0.5 * others)


def test_a_longer_response_weighs_no_less_per_token() -> None:
    """Every token of the update has the same coefficient, unlike in GRPO."""
    batch = decisions((1.0, 0.0, 1.0, 0.0)).replace(old_log_prob=now().log_prob.detach())
    for slug, equal in (("dr_grpo", True), ("grpo", False)):
        evaluation = now()
        method(slug).with_terms(kl=None).loss(evaluation, batch)[0].backward()
        assert evaluation.log_prob.grad is not None
        per_token = evaluation.log_prob.grad[batch.mask].abs()
        assert torch.allclose(per_token, per_token[0].expand_as(per_token)) is equal
