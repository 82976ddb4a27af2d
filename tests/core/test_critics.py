"""Critic losses in closed form, against torch's own, and by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import huber_loss, mse_loss

from ascent.core.critics import ValueLoss
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator


def batch(*critics: int) -> tuple[torch.Tensor, Decisions]:
    draw = generator("critics")
    value, old, target = torch.randn(3, 4, 5, *critics, generator=draw, dtype=torch.float64)
    return value, Decisions(mask=torch.ones(4, 5, dtype=torch.bool), value=old, value_target=target)


def test_squared_and_huber_equal_torch() -> None:
    value, decisions = batch()
    evaluation, target = Evaluation(value=value), decisions.value_target
    torch.testing.assert_close(ValueLoss()(evaluation, decisions), 0.5 * mse_loss(value, target, reduction="none"))
    for delta in (0.3, 1.0):
        wanted = huber_loss(value, target, reduction="none", delta=delta)
        torch.testing.assert_close(ValueLoss(kind="huber", delta=delta)(evaluation, decisions), wanted)


def test_clipped_form_by_hand() -> None:
    # old 0, clip 0.5, target 2: at value 1 the moved value is 0.5, its error 1.5 is the larger one.
    decisions = Decisions(
        mask=torch.ones(1, 3, dtype=torch.bool),
        value=torch.zeros(1, 3),
        value_target=torch.tensor([[2.0, 2.0, -2.0]]),
    )
    value = torch.tensor([[1.0, 0.3, 1.0]], requires_grad=True)
    loss = ValueLoss(clip=0.5)(Evaluation(value=value), decisions)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.tensor([[0.5 * 1.5**2, 0.5 * 1.7**2, 0.5 * 9.0]]))
    assert value.grad is not None
    torch.testing.assert_close(value.grad, torch.tensor([[0.0, -1.7, 3.0]]))


@pytest.mark.parametrize("part", [ValueLoss(), ValueLoss(clip=0.2), ValueLoss(kind="huber"), ValueLoss(0.2, "huber")])
@pytest.mark.parametrize("critics", [(), (2,)])
def test_gradients_equal_finite_differences(part: ValueLoss, critics: tuple[int, ...]) -> None:
    value, decisions = batch(*critics)
    value.requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: part(Evaluation(value=leaf), decisions), value)


def test_several_critics_add_up() -> None:
    value, decisions = batch(3)
    for part in (ValueLoss(), ValueLoss(0.2)):
        parts = [
            part(
                Evaluation(value=value[..., k]),
                decisions.replace(value=decisions.value[..., k], value_target=decisions.value_target[..., k]),
            )
            for k in range(3)
        ]
        torch.testing.assert_close(part(Evaluation(value=value), decisions), torch.stack(parts).sum(0))


def test_range_errors() -> None:
    with pytest.raises(ValueError, match="clip must be > 0 or None; got 0"):
        ValueLoss(clip=0)
    with pytest.raises(ValueError, match="kind must be 'squared' or 'huber'; got 'l1'"):
        ValueLoss(kind="l1")
    with pytest.raises(ValueError, match="delta must be > 0; got -1"):
        ValueLoss(delta=-1)
