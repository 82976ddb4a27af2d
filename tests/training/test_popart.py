"""PopArt: a moving scale leaves every value where it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import ascent
from ascent.core.part import Clock, MethodState
from ascent.core.value_scale import moments
from ascent.training.popart import PopArt

METHOD = ascent.method("bayesian_network_marl")
PATH = "losses.value.value"


def state(mean: float, square: float, weight: float = 1.0) -> MethodState:
    numbers = {"mean": mean * weight, "square": square * weight, "weight": weight}
    return MethodState({PATH: {name: torch.tensor(number).double() for name, number in numbers.items()}}, Clock())


def value(layer: nn.Linear, hidden: Tensor, now: MethodState) -> Tensor:
    mean, deviation = moments(now.parts[PATH])
    return layer(hidden) * deviation + mean


def test_the_layer_by_hand() -> None:
    layer = nn.Linear(1, 1).double()
    with torch.no_grad():
        layer.weight.fill_(3.0)
        layer.bias.fill_(1.0)
    # Deviations 2 and 4, means 1 and 7: 3 * 2 / 4, and (1 * 2 + 1 - 7) / 4.
    PopArt((layer,), METHOD)(state(1.0, 5.0), state(7.0, 65.0, 0.5))
    assert layer.weight.item() == pytest.approx(1.5) and layer.bias.item() == pytest.approx(-1.0)


def test_values_do_not_change_from_the_first_update_on() -> None:
    torch.manual_seed(0)
    layer, hidden = nn.Linear(5, 1).double(), torch.randn(20, 5, dtype=torch.float64)
    correct, now = PopArt((layer,), METHOD), METHOD.start()
    for mean, square in ((40.0, 1700.0), (-3.0, 10.0), (-3.0, 9.0)):
        before, following = value(layer, hidden, now).detach(), state(mean, square)
        uncorrected = value(layer, hidden, following).detach()
        correct(now, following)
        assert torch.allclose(value(layer, hidden, following), before, atol=1e-10)
        assert not torch.allclose(uncorrected, before, atol=1e-3)
        now = following


def test_a_method_without_a_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="one ScaledValueLoss"):
        PopArt((nn.Linear(1, 1),), ascent.method("ppo"))
