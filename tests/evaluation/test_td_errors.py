"""Fits of TD errors, and their histogram."""

from __future__ import annotations

import math

import pytest
import torch

from ascent.core.generalised_gaussian import GeneralisedGaussian
from ascent.evaluation.td_errors import draw_errors, fit, histogram


def errors(shape: float, size: int = 20000) -> torch.Tensor:
    law = GeneralisedGaussian(torch.full((size,), shape, dtype=torch.float64), 2.0)
    return 3.0 + law.sample(torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape, kurtosis", [(1.0, 3.0), (2.0, 0.0)])
def test_a_fit_finds_the_law_and_what_it_gains(shape: float, kurtosis: float) -> None:
    found = fit(errors(shape))
    assert found.shape == pytest.approx(shape, rel=0.05) and found.scale == pytest.approx(2.0, rel=0.05)
    assert found.kurtosis == pytest.approx(kurtosis, abs=0.4)
    deviation = 2.0 * math.sqrt(math.gamma(3 / shape) / math.gamma(1 / shape))
    assert found.deviation == pytest.approx(deviation, rel=0.03)
    assert (found.gain > 0.05) == (shape == 1.0)
    assert found.gain > -1e-6


def test_a_histogram_is_a_density() -> None:
    bars = histogram(errors(1.0))
    width = bars["edges"][1] - bars["edges"][0]
    assert sum(bars["density"]) * width == pytest.approx(0.995, abs=1e-3)


def test_equal_errors_are_refused() -> None:
    with pytest.raises(ValueError, match="not all 0"):
        fit(torch.ones(10))


def test_it_can_be_drawn() -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_errors(axes, histogram(errors(1.0)), fit(errors(1.0)), "late")
    assert len(axes.lines) == 2 and axes.get_yscale() == "log"
