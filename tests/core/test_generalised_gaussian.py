"""The generalised Gaussian against scipy's, and its likelihoods' special cases."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import gennorm

from ascent.core.generalised_gaussian import (
    GeneralisedGaussian,
    fitted,
    gaussian_negative_log_likelihood,
    negative_log_likelihood,
)

SHAPES = (0.7, 1.0, 1.5, 2.0, 4.0)


def of(shape: float, scale: float = 1.7, size: int = 1) -> GeneralisedGaussian:
    return GeneralisedGaussian(torch.full((size,), shape, dtype=torch.float64), scale)


@pytest.mark.parametrize("shape", SHAPES)
def test_density_and_moments_are_scipys(shape: float) -> None:
    x = torch.linspace(-6, 6, 40, dtype=torch.float64)
    expected = torch.from_numpy(gennorm.logpdf(x.numpy(), shape, scale=1.7))
    torch.testing.assert_close(of(shape, size=40).log_prob(x), expected, rtol=1e-10, atol=1e-10)
    variance, kurtosis = gennorm.stats(shape, scale=1.7, moments="vk")
    assert float(of(shape).variance) == pytest.approx(float(variance), rel=1e-10)
    assert float(of(shape).kurtosis) == pytest.approx(float(kurtosis), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_density_integrates_to_one(shape: float) -> None:
    total = 2 * quad(lambda x: float(of(shape, 1.0).log_prob(torch.tensor([x], dtype=torch.float64)).exp()), 0, 400)[0]
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shape", (0.7, 1.0, 2.0))
def test_draws_have_its_shape_and_the_fit_finds_it(shape: float) -> None:
    draws = of(shape, size=20000).sample(torch.Generator().manual_seed(0))
    found = fitted(draws)
    own, _, scale = gennorm.fit(draws.numpy(), floc=0)
    assert float(found.shape) == pytest.approx(own, rel=1e-3) and float(found.scale) == pytest.approx(scale, rel=1e-3)
    assert float(found.shape) == pytest.approx(shape, rel=0.05)
    assert float((draws > 0).double().mean()) == pytest.approx(0.5, abs=0.02)


def test_likelihoods_at_one_and_two() -> None:
    x = torch.tensor([-2.0, -0.3, 0.5, 3.0], dtype=torch.float64)
    one, two = torch.ones(4, dtype=torch.float64), torch.full((4,), 2.0, dtype=torch.float64)
    torch.testing.assert_close(negative_log_likelihood(x, one), x.abs())
    squares = x.square() - math.log(2) + math.lgamma(0.5)
    torch.testing.assert_close(negative_log_likelihood(x, two), squares)
    gap = negative_log_likelihood(x, two) - gaussian_negative_log_likelihood(x, torch.full_like(x, 0.5))
    torch.testing.assert_close(gap, gap[0].expand(4))
    torch.testing.assert_close(negative_log_likelihood(x, one, "product"), negative_log_likelihood(x, one))
    assert not torch.allclose(negative_log_likelihood(x, two, "product"), negative_log_likelihood(x, two))


@pytest.mark.parametrize("shape", (0.8, 2.0))
def test_the_power_form_recovers_the_shape_and_the_product_form_does_not(shape: float) -> None:
    draws = of(shape, 1.0, 20000).sample(torch.Generator().manual_seed(1))
    candidates = torch.linspace(0.3, 3.0, 271, dtype=torch.float64)
    costs = {
        form: torch.stack([negative_log_likelihood(draws, c.expand_as(draws), form).mean() for c in candidates])
        for form in ("power", "product")
    }
    assert float(candidates[costs["power"].argmin()]) == pytest.approx(shape, abs=0.05)
    assert abs(float(candidates[costs["product"].argmin()]) - shape) > 0.1


def test_its_gradient_is_that_of_finite_differences() -> None:
    draw = torch.Generator().manual_seed(2)
    error = torch.randn(6, dtype=torch.float64, generator=draw).requires_grad_()
    shape = (0.5 + 2 * torch.rand(6, dtype=torch.float64, generator=draw)).requires_grad_()
    for form in ("power", "product"):
        assert torch.autograd.gradcheck(lambda e, b, f=form: negative_log_likelihood(e, b, f), (error, shape))


def test_an_error_of_zero_has_a_finite_gradient() -> None:
    error = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    shape = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    negative_log_likelihood(error, shape).sum().backward()
    assert error.grad is not None and bool(error.grad.isfinite().all())
    assert shape.grad is not None and bool(shape.grad.isfinite().all())


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more numbers"):
        fitted(torch.zeros(5))
