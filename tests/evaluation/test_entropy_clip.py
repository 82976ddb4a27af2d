"""The entropy-clip rule against finite steps, and its table of signs."""

from __future__ import annotations

import pytest
import torch

from ascent.evaluation.entropy_clip import contributions, entropy_change, step, unclipped


def state(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits, advantage = torch.randn(2, 7, generator=draw, dtype=torch.float64)
    ratio = (0.4 * torch.randn(7, generator=draw, dtype=torch.float64)).exp()
    return logits, advantage, unclipped(advantage, ratio, 0.8, 1.2)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum()


def test_the_step_is_the_gradient_of_the_expected_surrogate() -> None:
    logits, advantage, kept = state(0)
    leaf = logits.clone().requires_grad_()
    surrogate = (leaf.softmax(-1) * advantage * kept).sum()  # the expectation of r A X at r = 1
    assert torch.allclose(step(logits, advantage, kept, 0.1), 0.1 * torch.autograd.grad(surrogate, leaf)[0])


@pytest.mark.parametrize("seed", range(4))
def test_the_error_is_of_second_order(seed: int) -> None:
    logits, advantage, kept = state(seed)
    errors = []
    for rate in (1e-2, 1e-3):
        moved = entropy(logits + step(logits, advantage, kept, rate)) - entropy(logits)
        errors.append(abs(float(moved - entropy_change(logits, advantage, kept, rate))))
    assert errors[1] < 0.02 * errors[0] + 1e-15


def test_tokens_add_up() -> None:
    logits, advantage, kept = state(5)
    parts = contributions(logits, advantage, kept, 0.1)
    assert torch.allclose(parts.sum(), entropy_change(logits, advantage, kept, 0.1))
    assert bool((parts[~kept] == 0).all())


@pytest.mark.parametrize(
    ("likely", "good", "sign"), [(True, True, -1), (True, False, 1), (False, True, 1), (False, False, -1)]
)
def test_the_table_of_signs(likely: bool, good: bool, sign: int) -> None:
    logits = torch.tensor([2.0, 0.0, 0.0, -2.0], dtype=torch.float64)
    token = 0 if likely else 3
    advantage = torch.zeros(4, dtype=torch.float64)
    advantage[token] = 1.0 if good else -1.0
    change = entropy_change(logits, advantage, torch.ones(4, dtype=torch.bool), 1e-3)
    assert float(change) * sign > 0


def test_the_symmetric_clip_cuts_the_wrong_tokens() -> None:
    """An unlikely good token far up is cut, an unlikely bad one far up is not: what was left lowers entropy."""
    advantage, ratio = torch.tensor([1.0, -1.0]), torch.tensor([1.5, 1.5])
    assert unclipped(advantage, ratio, 0.8, 1.2).tolist() == [False, True]
    assert unclipped(advantage, ratio, 0.8, 2.0).tolist() == [True, True]
