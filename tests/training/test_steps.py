"""Optimisers built from a method's step: clipping, schedules by the clock, state by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ascent.core.part import Clock
from ascent.core.plan import SGD, Adam, Linear
from ascent.training import native_adam
from ascent.training.steps import Stepper

needs_compiler = pytest.mark.skipif(native_adam.library(torch.float64) is None, reason="no C compiler here")


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


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_is_torchs_fused_adam_bit_for_bit(
    decay: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clipping included; one parameter goes without gradient for a step and then takes part again."""
    monkeypatch.setattr(native_adam, "library", lambda dtype: None)
    ours, theirs = model().to(dtype), model().to(dtype)
    stepper = Stepper(Adam(0.1, weight_decay=decay, max_gradient_norm=0.5), ours.named_parameters())
    kind = torch.optim.AdamW if decay else torch.optim.Adam
    reference = kind(theirs.parameters(), lr=0.1, weight_decay=decay, fused=True)
    for number in range(5):
        for layer in (ours, theirs):
            push(layer, number - 1.5)
            if number == 2:
                layer.bias.grad = None
        stepper.step(Clock())
        gradients = [parameter.grad for parameter in theirs.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch._foreach_mul_(gradients, (0.5 / (norm + 1e-6)).clamp(max=1.0))
        reference.step()
        assert torch.equal(moved(ours), moved(theirs)), number
    assert float(stepper.state_dict()["bias"]["step"]) == 4
    for name, parameter in theirs.named_parameters():
        for moment, number in reference.state[parameter].items():
            assert torch.equal(stepper.state_dict()[name][moment], number), (name, moment)


@needs_compiler
@pytest.mark.parametrize("limit", [None, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_compiled_adam_is_the_fused_one(
    decay: float, dtype: torch.dtype, limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit where nothing is clipped and rows are whole vectors; the norm has its own order of summing."""
    ours, theirs = (nn.Linear(16, 32, dtype=dtype) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    step = Adam(0.1, weight_decay=decay, max_gradient_norm=limit)
    steppers = [Stepper(step, layer.named_parameters()) for layer in (ours, theirs)]
    compiled = native_adam.library
    for number in range(6):
        norms = []
        for layer, stepper, call in zip((ours, theirs), steppers, (compiled, lambda dtype: None), strict=True):
            monkeypatch.setattr(native_adam, "library", call)
            draw = torch.Generator().manual_seed(number)
            for parameter in layer.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=draw, dtype=torch.float64).to(dtype)
            if number == 2:
                layer.bias.grad = None
            if number == 3:
                layer.weight.grad = torch.randn(16, 32, generator=draw, dtype=torch.float64).to(dtype).T
            norms.append(stepper.step(Clock(step=number))["gradient_norm"])
        torch.testing.assert_close(*norms, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0.0)
        if limit is None:
            assert torch.equal(moved(ours), moved(theirs)), number
        else:
            torch.testing.assert_close(moved(ours), moved(theirs))
    mine, other = (stepper.state_dict() for stepper in steppers)
    for name in mine:
        assert mine[name]["step"] == other[name]["step"] == (5 if name == "bias" else 6)
        for moment in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(mine[name][moment], other[name][moment])
    assert steppers[0].optimiser.alike[0].native.call is not None


@needs_compiler
@pytest.mark.parametrize("size", [1, 3, 15, 16, 17, 33])
def test_the_compiled_adam_reads_any_size_and_passes_on_what_is_no_number(size: int) -> None:
    parameter = nn.Parameter(torch.linspace(-1.0, 1.0, size, dtype=torch.float64))
    before, gradient = parameter.detach().clone(), torch.linspace(2.0, -3.0, size, dtype=torch.float64)
    stepper = Stepper(Adam(0.25, eps=0.0, max_gradient_norm=1.0), [("one", parameter)])
    parameter.grad = gradient.clone()
    norm = stepper.step(Clock())["gradient_norm"]
    torch.testing.assert_close(norm, gradient.norm(), rtol=1e-14, atol=0.0)
    # The first step of Adam goes by the sign.
    torch.testing.assert_close(parameter.detach(), before - 0.25 * gradient.sign(), rtol=1e-12, atol=1e-12)
    parameter.grad = torch.full_like(parameter, torch.nan)
    assert stepper.step(Clock(step=1))["gradient_norm"].isnan()


@needs_compiler
def test_a_large_model_is_left_to_pytorch() -> None:
    parameter = nn.Parameter(torch.zeros(native_adam.MOST + 1))
    stepper = Stepper(Adam(0.1), [("one", parameter)])
    parameter.grad = torch.ones_like(parameter)
    stepper.step(Clock())
    assert stepper.optimiser.alike[0].native.call is None and float(parameter.detach().amax()) < 0


def test_a_stepper_reads_the_state_that_torchs_adam_saved() -> None:
    """Checkpoints of before hold `step`, `exp_avg`, `exp_avg_sq` by name; one that is missing starts anew."""
    ours, theirs = model(), model()
    reference = torch.optim.Adam(theirs.parameters(), lr=0.1, fused=True)
    push(theirs, 1.0)
    reference.step()
    ours.load_state_dict(theirs.state_dict())
    stepper = Stepper(Adam(0.1, max_gradient_norm=None), ours.named_parameters())
    stepper.load_state_dict({"weight": dict(reference.state[theirs.weight])})
    assert set(stepper.state_dict()) == {"weight"}
    push(ours, -2.0)
    push(theirs, -2.0)
    stepper.step(Clock())
    reference.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert not torch.equal(ours.bias, theirs.bias)


def test_two_steppers_over_one_model_keep_their_own_moments() -> None:
    layer, twin = model(), model()
    one, other = (Stepper(Adam(rate, max_gradient_norm=None), layer.named_parameters()) for rate in (0.1, 0.01))
    torchs = [torch.optim.Adam(twin.parameters(), lr=rate, fused=True) for rate in (0.1, 0.01)]
    for number in range(3):
        for stepper, reference in zip((one, other), torchs, strict=True):
            push(layer, number - 1.0)
            push(twin, number - 1.0)
            stepper.step(Clock())
            reference.step()
    assert torch.equal(moved(layer), moved(twin))
