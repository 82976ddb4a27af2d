"""Optimisers built from a method's step: clipping, schedules by the clock, state by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ascent.core.part import Clock
from ascent.core.plan import SGD, Adam, Linear
from ascent.training.steps import Stepper


def model(seed: int = 0) -> nn.Linear:
    layer = nn.Linear(3, 2, dtype=torch.float64)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))
    return layer


def push(layer: nn.Module, number: float) -> None:
    for place, parameter in enumerate(layer.parameters()):
        parameter.grad = torch.full_like(parameter, number + place)


def moved(layer: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_gradient_descent(momentum: float) -> None:
    ours, theirs = model(), model()
    stepper = Stepper(SGD(0.1, momentum=momentum), ours.named_parameters())
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum)
    for number in (1.0, -2.0, 3.0):
        push(ours, number)
        push(theirs, number)
        stepper.step(Clock())
        reference.step()
    assert torch.allclose(moved(ours), moved(theirs), atol=1e-14)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_with_a_schedule_equals_the_rates_set_by_hand(decay: float) -> None:
    ours, theirs = model(), model()
    stepper = Stepper(Adam(Linear(0.1, 0.0), weight_decay=decay, max_gradient_norm=None), ours.named_parameters())
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    reference = kind(theirs.parameters(), lr=1.0, weight_decay=decay)
    for number in range(4):
        push(ours, number)
        push(theirs, number)
        rate = 0.1 * (1 - number / 4)
        report = stepper.step(Clock(step=number, progress=number / 4))
        reference.param_groups[0]["lr"] = rate
        reference.step()
        assert float(report["learning_rate"]) == pytest.approx(rate)
    assert torch.allclose(moved(ours), moved(theirs), atol=1e-12)


def test_the_rate_warms_up_by_steps() -> None:
    stepper = Stepper(Adam(0.4, warmup=4), model().named_parameters())
    rates = []
    for number in range(6):
        rates.append(float(stepper.step(Clock(step=number))["learning_rate"]))
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_the_gradient_is_clipped_by_its_global_norm() -> None:
    layer = model()
    before = moved(layer)
    stepper = Stepper(SGD(1.0, max_gradient_norm=0.5), layer.named_parameters())
    push(layer, 3.0)
    norm = float(stepper.step(Clock())["gradient_norm"])
    assert norm == pytest.approx((6 * 9 + 2 * 16) ** 0.5), "the norm reported is the one before clipping"
    assert float((moved(layer) - before).norm()) == pytest.approx(0.5, rel=1e-5)
    for parameter in layer.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)
    before = moved(layer)
    stepper.step(Clock())
    assert float((moved(layer) - before)[0]) == pytest.approx(-0.01), "a short gradient is not stretched"


def test_a_step_clears_the_gradient_and_frozen_parameters_stay() -> None:
    layer = model()
    layer.bias.requires_grad_(False)
    stepper = Stepper(Adam(0.1), layer.named_parameters())
    bias = layer.bias.clone()
    push(layer, 1.0)
    stepper.step(Clock())
    assert layer.weight.grad is None
    assert torch.equal(layer.bias, bias)
    assert stepper.names == ["weight"]


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        Stepper(Adam(), model().requires_grad_(False).named_parameters())


@pytest.mark.parametrize("step", [Adam(0.1, weight_decay=0.1), SGD(0.1, momentum=0.9)])
def test_a_restored_stepper_goes_on_bit_for_bit(step: Adam | SGD) -> None:
    straight, broken = model(), model()
    first, second = Stepper(step, straight.named_parameters()), Stepper(step, broken.named_parameters())
    for stepper, layer in ((first, straight), (second, broken)):
        push(layer, 1.0)
        stepper.step(Clock())
    resumed = model(1)
    resumed.load_state_dict(broken.state_dict())
    third = Stepper(step, resumed.named_parameters())
    third.load_state_dict(second.state_dict())
    for stepper, layer in ((first, straight), (third, resumed)):
        push(layer, -2.0)
        stepper.step(Clock())
    assert torch.equal(moved(straight), moved(resumed))
