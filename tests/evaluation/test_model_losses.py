"""Landscapes of model losses around one state, of a value function that is known."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ascent.evaluation.model_losses import draw, landscape, spectrum

CENTRE, SPAN = torch.tensor([0.5, -1.0]).double(), torch.tensor([1.0, 2.0]).double()


def slopes(state: Tensor) -> tuple[Tensor, Tensor]:
    """V = x^2 + 3 y."""
    x, y = state.unbind(-1)
    return (x**2 + 3 * y)[..., None], torch.stack((2 * x, torch.full_like(x, 3.0)), -1).unsqueeze(-2)


def test_every_loss_is_its_formula_on_the_square() -> None:
    found = landscape(slopes, lambda where: where, CENTRE, SPAN, 5)
    assert found["first"].tolist() == [-0.5, 0.0, 0.5, 1.0, 1.5] and found["second"].tolist() == [-3, -2, -1, 0, 1]
    for i, y in enumerate(found["second"].tolist()):
        for j, x in enumerate(found["first"].tolist()):
            dx, dy = x - 0.5, y + 1.0
            expected = {
                "mse": dx**2 + dy**2,
                "itervaml": (x**2 + 3 * y - (0.25 - 3.0)) ** 2,
                "taylor": (1.0 * dx + 3.0 * dy) ** 2,
                "vagram": (1.0 * dx) ** 2 + (3.0 * dy) ** 2,
            }
            for name, number in expected.items():
                torch.testing.assert_close(found[name][i, j], torch.tensor(number).double())


def test_only_the_weighted_losses_have_a_single_least_place() -> None:
    found = landscape(slopes, lambda where: where, CENTRE, SPAN, 241)
    zeros = {name: int((found[name] < 1e-9).sum()) for name in ("mse", "vagram", "taylor", "itervaml")}
    assert zeros["mse"] == zeros["vagram"] == 1 and zeros["taylor"] > 20
    low = {name: int((found[name] < 0.01).sum()) for name in zeros}
    assert low["itervaml"] > 5 * low["vagram"]


def test_the_spectrum_is_the_root_mean_square_of_each_number() -> None:
    slope = torch.tensor([[[3.0, 0.0], [4.0, 0.0]], [[0.0, 2.0], [5.0, 0.0]]])
    torch.testing.assert_close(spectrum(slope), torch.tensor([12.5**0.5, 1.0]))


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    draw(landscape(slopes, lambda where: where, CENTRE, SPAN, 9), tmp_path / "landscape.png")
    assert (tmp_path / "landscape.png").stat().st_size > 5000
