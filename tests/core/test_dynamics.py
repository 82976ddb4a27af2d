"""Model losses: identities, bounds, numbers worked by hand, finite differences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core import dynamics


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(state: int = 4, values: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An error [5, 2, E = 3, n] and a slope [5, 2, V, n]."""
    return normal(5, 2, 3, state, seed=seed), normal(5, 2, values, state, seed=seed + 1)


def test_numbers_worked_by_hand() -> None:
    error = torch.tensor([[[[1.0, -2.0]]]])
    slope = torch.tensor([[[[3.0, 1.0], [0.0, 2.0]]]])
    assert dynamics.squared(error).item() == 5.0
    assert dynamics.expanded(error, slope).item() == pytest.approx((1.0**2 + 4.0**2) / 2)
    assert dynamics.weighted(error, slope).item() == pytest.approx((9.0 + 4.0 + 0.0 + 16.0) / 2)
    assert dynamics.gaussian(error, torch.tensor([[[[0.0, 0.0]]]])).item() == pytest.approx(2.5)
    half = torch.log(torch.tensor([[[[1.0, 4.0]]]]))
    assert dynamics.gaussian(error, half).item() == pytest.approx(0.5 * (1.0 + 1.0 + half[..., 1].item()))
    predicted, observed = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[2.0, 2.0]]])
    assert dynamics.value_difference(predicted, observed).item() == 5.0


def test_unit_slopes_are_the_squared_error() -> None:
    error, slope = case()
    unit = torch.ones_like(slope)
    torch.testing.assert_close(dynamics.weighted(error, unit), dynamics.squared(error), rtol=0, atol=1e-12)


def test_of_a_linear_value_the_expansion_is_exact() -> None:
    error, slope = case()
    weights, state = slope[:1, :1].expand_as(slope), normal(5, 2, 4, seed=9)
    predicted = torch.einsum("ntek,ntvk->ntev", state.unsqueeze(-2) + error, weights)
    observed = torch.einsum("ntk,ntvk->ntv", state, weights)
    found = dynamics.value_difference(predicted, observed)
    torch.testing.assert_close(dynamics.expanded(error, weights), found, rtol=1e-12, atol=1e-12)


def test_of_one_number_expansion_and_diagonal_agree() -> None:
    error, slope = case(state=1)
    torch.testing.assert_close(dynamics.expanded(error, slope), dynamics.weighted(error, slope))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), state=st.integers(1, 7))
def test_n_times_the_diagonal_bounds_the_expansion(seed: int, state: int) -> None:
    error, slope = case(state, seed=seed)
    assert (dynamics.expanded(error, slope) <= state * dynamics.weighted(error, slope) + 1e-12).all()


def test_the_bound_is_reached_where_all_products_agree() -> None:
    error, slope = torch.ones(1, 1, 1, 3).double(), torch.ones(1, 1, 1, 3).double()
    assert dynamics.expanded(error, slope).item() == 3 * dynamics.weighted(error, slope).item() == 9.0


def test_a_number_without_slope_does_not_count_and_the_gradient_is_2_g2_e() -> None:
    error, slope = case()
    slope[..., 2] = 0.0
    changed = error.clone()
    changed[..., 2] += 5.0
    torch.testing.assert_close(dynamics.weighted(error, slope), dynamics.weighted(changed, slope), rtol=0, atol=0)
    leaf = error.clone().requires_grad_()
    dynamics.weighted(leaf, slope).sum().backward()
    expected = 2 * slope.square().mean(-2, keepdim=True) * error
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=1e-12)
    step = 1e-6
    for place in range(error.shape[-1]):
        moved = torch.zeros_like(error)
        moved[..., place] = step
        up, down = (dynamics.weighted(error + sign * moved, slope) for sign in (1, -1))
        torch.testing.assert_close((up - down) / (2 * step), expected[..., place], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", [dynamics.weighted, dynamics.expanded])
def test_value_functions_are_averaged_and_not_their_slopes(loss: object) -> None:
    error, slope = case()
    each = torch.stack([loss(error, slope[..., v : v + 1, :]) for v in range(3)]).mean(0)  # type: ignore[operator]
    torch.testing.assert_close(loss(error, slope), each)  # type: ignore[operator]
    mean = slope.mean(-2, keepdim=True)
    assert not torch.allclose(loss(error, slope), loss(error, mean))  # type: ignore[operator]
    summed = loss(error, dynamics.cumulative(slope))  # type: ignore[operator]
    assert not torch.allclose(loss(error, slope), summed)  # type: ignore[operator]


@pytest.mark.parametrize("loss", [dynamics.weighted, dynamics.expanded])
def test_scaling_the_value_scales_the_loss_by_its_square(loss: object) -> None:
    error, slope = case()
    torch.testing.assert_close(loss(error, 3.0 * slope), 9.0 * loss(error, slope))  # type: ignore[operator]


def test_rotating_the_coordinates_changes_the_diagonal_only() -> None:
    error, slope = case()
    turn = torch.linalg.qr(normal(4, 4, seed=5))[0]
    turned = error @ turn, slope @ turn
    torch.testing.assert_close(dynamics.expanded(*turned), dynamics.expanded(error, slope))
    torch.testing.assert_close(dynamics.squared(turned[0]), dynamics.squared(error))
    assert not torch.allclose(dynamics.weighted(*turned), dynamics.weighted(error, slope), rtol=0.05)


def test_of_a_quadratic_value_the_expansion_errs_by_the_third_power() -> None:
    shape = normal(4, 4, seed=2)
    shape = shape + shape.T
    state, direction = normal(1, 1, 4, seed=3), normal(1, 1, 1, 4, seed=4)

    def value(where: Tensor) -> Tensor:
        return 0.5 * torch.einsum("...i,ij,...j->...", where, shape, where)

    def gap(size: float) -> float:
        error = size * direction
        exact = dynamics.value_difference(value(state.unsqueeze(-2) + error)[..., None], value(state)[..., None])
        return float((exact - dynamics.expanded(error, (state @ shape).unsqueeze(-2))).abs())

    ratios = [gap(size) / size**3 for size in (1e-2, 1e-3, 1e-4)]
    assert ratios[0] > 0 and ratios[2] == pytest.approx(ratios[1], rel=1e-2)
    assert gap(1e-3) / 1e-9 == pytest.approx(ratios[1])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), quantile=st.floats(0.05, 0.99))
def test_clipped_norms_end_at_the_quantile_and_directions_stay(seed: int, quantile: float) -> None:
    slope, mask = normal(12, 3, 2, 4, seed=seed), torch.ones(12, 3, dtype=torch.bool)
    mask[3:, 2] = False
    found = dynamics.clipped(slope, mask, quantile)
    for v in range(2):
        limit = torch.quantile(slope[mask][:, v].norm(dim=-1), quantile)
        norms = found[:, :, v].norm(dim=-1)
        assert (norms <= limit * (1 + 1e-12)).all()
        kept = slope[:, :, v].norm(dim=-1) <= limit
        assert torch.equal(found[:, :, v][kept], slope[:, :, v][kept])
    cosine = torch.nn.functional.cosine_similarity(found, slope, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


def test_clip_of_nothing_of_one_row_and_of_zero_slopes() -> None:
    slope, mask = normal(1, 1, 2, 3), torch.ones(1, 1, dtype=torch.bool)
    assert torch.equal(dynamics.clipped(slope, mask, 0.95), slope)
    assert torch.equal(dynamics.clipped(slope, ~mask, 0.5), slope)
    many = torch.zeros(20, 1, 1, 3).double()
    many[0] = 1.0
    assert torch.equal(dynamics.clipped(many, torch.ones(20, 1, dtype=torch.bool), 0.5), many)  # the quantile is 0
    assert torch.equal(dynamics.clipped(many, torch.ones(20, 1, dtype=torch.bool), 1.0), many)


def test_the_expansion_is_blind_in_a_plane_and_the_diagonal_is_not() -> None:
    slope = torch.tensor([[[[1.0, 1.0]]]])
    error = torch.tensor([[[[100.0, -100.0]]]])
    assert dynamics.expanded(error, slope).item() == 0.0
    assert dynamics.weighted(error, slope).item() == 20_000.0


def test_outputs_must_fit_the_members() -> None:
    assert dynamics.members(torch.zeros(2, 1, 6), 3).shape == (2, 1, 2, 3)
    with pytest.raises(ValueError, match="outputs must hold 4 numbers"):
        dynamics.members(torch.zeros(2, 1, 6), 4)
