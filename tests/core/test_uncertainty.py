"""Inverse-variance weights, the effective batch, estimates of a variance, and the two losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.generalised_gaussian import GeneralisedGaussian, negative_log_likelihood
from ascent.core.method import Method
from ascent.core.term import Term
from ascent.core.uncertainty import (
    LAPLACE,
    InverseVarianceLoss,
    UncertainValueLoss,
    effective_batch,
    ensemble_variance,
    error_variance,
    excess_kurtosis,
    inverse_variance_weights,
    least_shift,
)

variances = st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=40).map(lambda x: torch.tensor(x, dtype=torch.float64))


@given(variance=variances, first=st.floats(0, 10), second=st.floats(0, 10))
@settings(max_examples=60, deadline=None)
def test_the_effective_batch_lies_in_its_range_and_rises_with_the_shift(
    variance: Tensor, first: float, second: float
) -> None:
    low, high = sorted((first, second))
    found = float(effective_batch(variance + low)), float(effective_batch(variance + high))
    assert 1 - 1e-9 <= found[0] <= found[1] + 1e-9 and found[1] <= len(variance) + 1e-9


@given(variance=variances)
@settings(max_examples=60, deadline=None)
def test_the_shift_is_the_least_that_suffices(variance: Tensor) -> None:
    least = min(len(variance) - 1, 16)
    shift = least_shift(variance, least)
    assert float(effective_batch(variance + shift)) >= least - 1e-6
    if float(shift) > 0:
        assert float(effective_batch(variance + 0.999 * shift)) < least


def test_equal_variances_make_the_whole_batch_effective_and_need_no_shift() -> None:
    equal = torch.full((7,), 0.3, dtype=torch.float64)
    assert float(effective_batch(equal)) == pytest.approx(7.0)
    assert float(least_shift(equal, 6)) == 0.0
    torch.testing.assert_close(inverse_variance_weights(equal), torch.full((7,), 1 / 7, dtype=torch.float64))


def test_no_shift_where_the_batch_is_effective_enough_already() -> None:
    uneven = torch.tensor([1.0, 1.1, 0.9, 1.2, 4.0], dtype=torch.float64)
    found = float(effective_batch(uneven))
    assert 4.0 < found < 5.0
    assert float(least_shift(uneven, found - 1e-6)) == 0.0 and float(least_shift(uneven, found + 1e-6)) > 0.0


def test_kurtosis_is_scipys_unbiased_one() -> None:
    from scipy.stats import kurtosis

    values = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) ** 3
    expected = torch.from_numpy(kurtosis(values.numpy(), axis=1, bias=False))
    torch.testing.assert_close(excess_kurtosis(values), expected)
    assert excess_kurtosis(values[:, :3]).tolist() == [0.0] * 5
    assert excess_kurtosis(torch.ones(2, 5)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("shape, kurtosis", [(2.0, 0.0), (1.0, 3.0)])
def test_the_divisor_lowers_the_squared_error_of_a_variance(shape: float, kurtosis: float) -> None:
    count = 5
    law = GeneralisedGaussian(torch.full((20000, count), shape, dtype=torch.float64))
    plain = law.sample(torch.Generator().manual_seed(0)).var(-1)
    true = float(law.variance[0, 0])
    factor = 1 / (kurtosis / count + (count + 1) / (count - 1))
    assert float((factor * plain - true).square().mean()) < float((plain - true).square().mean())
    # And it is the best of all factors, to the noise of the simulation.
    factors = torch.linspace(0.3, 1.2, 91, dtype=torch.float64)
    best = factors[torch.stack([(f * plain - true).square().mean() for f in factors]).argmin()]
    assert float(best) == pytest.approx(factor, abs=0.03)


def test_scaling_the_errors_scales_their_variance_and_leaves_the_weights() -> None:
    errors = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    one, three = error_variance(errors), error_variance(3 * errors)
    torch.testing.assert_close(three, 9 * one)
    torch.testing.assert_close(inverse_variance_weights(three), inverse_variance_weights(one))
    torch.testing.assert_close(ensemble_variance(3 * errors, 0.5), 9 * ensemble_variance(errors, 0.5))


def test_equal_members_stand_at_the_floor_and_weigh_alike() -> None:
    assert error_variance(torch.ones(4, 5)).tolist() == pytest.approx([1e-6] * 4)
    assert inverse_variance_weights(error_variance(torch.ones(4, 5))).tolist() == pytest.approx([0.25] * 4)


def batch(rows: int = 6, columns: int = 4, members: int = 5, seed: int = 0) -> tuple[Decisions, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=draw) < 0.8
    value, raw, target = (torch.randn(rows, columns, members, dtype=torch.float64, generator=draw) for _ in range(3))
    return Decisions(mask=mask, value_target=target), value.requires_grad_(), raw.requires_grad_()


def says(value: Tensor, raw: Tensor) -> Evaluation:
    return Evaluation(value=value, probes={"value_spread": raw})


def test_the_shapes_likelihood_by_a_plain_loop() -> None:
    decisions, value, raw = batch()
    found = UncertainValueLoss()(says(value, raw), decisions)
    for row in range(6):
        for column in range(4):
            shape = softplus(raw[row, column]).clamp(1e-3, 10)
            error = value[row, column] - decisions.value_target[row, column]
            expected = (shape / shape.sum() * negative_log_likelihood(error, shape)).sum()
            torch.testing.assert_close(found[row, column], expected)


def test_shapes_are_cut_on_both_sides_and_variances_below_only() -> None:
    decisions, value, _ = batch()
    error = (value - decisions.value_target).detach()
    for raw, shape, variance in ((100.0, 10.0, 100.0), (-100.0, 1e-3, 1e-3)):
        evaluation = says(value, torch.full_like(value, raw))
        assert float(UncertainValueLoss().said(evaluation)[0, 0, 0]) == pytest.approx(shape)
        loss = UncertainValueLoss("variance")(evaluation, decisions)
        torch.testing.assert_close(loss, (0.5 * (error.square() / variance + math.log(variance))).sum(-1))


def test_equal_shapes_weigh_every_member_alike_and_at_two_it_is_the_squared_error() -> None:
    decisions, value, _ = batch()
    two = torch.full_like(value, 1.8545865421312275).detach()  # softplus^-1(2)
    found = UncertainValueLoss()(says(value, two), decisions)
    squared = UncertainValueLoss(spread="none")(says(value, two), decisions) / 5
    gap = (found - squared).detach()
    torch.testing.assert_close(gap, gap[0, 0].expand_as(gap))
    laplace = UncertainValueLoss(over="none")(says(value, torch.full_like(two, LAPLACE)), decisions)
    torch.testing.assert_close(laplace, (value - decisions.value_target).abs().sum(-1))


def test_one_member_of_shape_two_is_the_squared_error_up_to_a_constant() -> None:
    decisions, value, _ = batch(members=1)
    two = torch.full_like(value, 1.8545865421312275).detach()  # softplus^-1(2)
    found = UncertainValueLoss()(says(value, two), decisions)
    gap = (found - (value - decisions.value_target).square().sum(-1)).detach()
    torch.testing.assert_close(gap, gap[0, 0].expand_as(gap))
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), value)[0], 2 * (value - decisions.value_target).detach()
    )


def test_weights_over_the_batch_have_a_mean_of_one_over_members_and_add_up_over_parts() -> None:
    decisions, value, raw = batch()
    part = UncertainValueLoss(over="batch")
    prepared = decisions.with_extras(part.prepare(decisions, says(value, raw), {}))
    width = softplus(raw).clamp(1e-3, 10)
    cost = negative_log_likelihood(value - decisions.value_target, width)
    weight = width / (5 * width[decisions.mask].mean())
    assert float(weight.detach()[decisions.mask].mean()) == pytest.approx(1 / 5)
    torch.testing.assert_close(part(says(value, raw), prepared), (weight.detach() * cost).sum(-1))
    half = part(says(value[:3], raw[:3]), prepared.rows(slice(0, 3)))
    torch.testing.assert_close(half, part(says(value, raw), prepared)[:3])


@pytest.mark.parametrize("spread", ("shape", "variance"))
@pytest.mark.parametrize("size", (1, 2, 5))
def test_extremes_of_an_update_are_the_same_in_micro_batches(spread: str, size: int) -> None:
    """Metrics of the parts add up to the update's: the extremes of all rows, masked decisions left out."""
    decisions, value, raw = batch()
    raw = raw.detach()
    raw[~decisions.mask] = 50.0  # of nobody
    method = Method(slug="widths", losses={"value": Term(UncertainValueLoss(spread, extremes=True))})  # type: ignore[arg-type]
    evaluation = says(value, raw)
    width = UncertainValueLoss(spread).said(evaluation)[decisions.mask]  # type: ignore[arg-type]
    prepared = method.prepare(decisions, evaluation)
    found = {"spread_least": 0.0, "spread_greatest": 0.0}
    for start in range(0, 6, size):
        part = slice(start, start + size)
        _, metrics = method.loss(says(value[part], raw[part]), prepared.rows(part))
        found = {name: total + float(metrics[name]) for name, total in found.items()}
    assert found["spread_least"] == pytest.approx(float(width.min()))
    assert found["spread_greatest"] == pytest.approx(float(width.max()))
    assert found["spread_least"] < float(width.mean()) < found["spread_greatest"] < 40


def test_extremes_ask_for_the_widths_before_the_update_and_change_no_loss() -> None:
    decisions, value, raw = batch()
    plain, told = UncertainValueLoss(over="batch"), UncertainValueLoss(over="batch", extremes=True)
    assert not UncertainValueLoss().prepares
    assert told.prepares == UncertainValueLoss("variance", extremes=True).prepares == {"probe:value_spread"}
    found = [
        part(says(value, raw), decisions.with_extras(part.prepare(decisions, says(value, raw), {})))
        for part in (plain, told)
    ]
    assert torch.equal(*found)
    nobody = decisions.replace(mask=torch.zeros_like(decisions.mask))
    assert set(told.prepare(nobody, says(value, raw), {})) == {"shape_mean", "spread_least", "spread_greatest"}
    with pytest.raises(ValueError, match="extremes must be False with spread='none'"):
        UncertainValueLoss("none", extremes=True)


def test_weights_of_two_ensembles_stay_apart() -> None:
    decisions, value, raw = batch(members=10)
    both = UncertainValueLoss(copies=2)(says(value, raw), decisions)
    halves = [
        UncertainValueLoss()(
            says(value[..., part], raw[..., part]),
            Decisions(mask=decisions.mask, value_target=decisions.value_target[..., part]),
        )
        for part in (slice(0, 5), slice(5, 10))
    ]
    torch.testing.assert_close(both, halves[0] + halves[1])


def test_gradient_flows_through_the_weight_unless_detached() -> None:
    decisions, value, raw = batch()
    gradients = {}
    for detach in (False, True):
        loss = UncertainValueLoss(detach=detach)(says(value, raw), decisions).sum()
        gradients[detach] = torch.autograd.grad(loss, (value, raw))
    torch.testing.assert_close(gradients[False][0], gradients[True][0])
    assert not torch.allclose(gradients[False][1], gradients[True][1])


@pytest.mark.parametrize("kind", ("biv", "biev"))
def test_inverse_variance_weights_add_up_and_carry_no_gradient(kind: str) -> None:
    decisions, value, raw = batch()
    part = InverseVarianceLoss(kind=kind, least=3)  # type: ignore[arg-type]
    prepared = decisions.with_extras(part.prepare(decisions, says(value, raw), {}))
    weight = prepared.column("epistemic_weight")
    assert float(weight.sum()) == pytest.approx(1.0) and not weight.requires_grad
    assert bool((weight[~decisions.mask] == 0).all())
    total = part(says(value, raw), prepared)[decisions.mask].sum()
    (gradient,) = torch.autograd.grad(total, value)
    sign = (value - decisions.value_target).detach().sign()
    torch.testing.assert_close(gradient, (weight * sign) * decisions.mask[..., None])


def test_a_single_decision_weighs_one() -> None:
    decisions = Decisions(mask=torch.ones(1, 1, dtype=torch.bool), value_target=torch.zeros(1, 1, 5))
    found = InverseVarianceLoss().prepare(decisions, Evaluation(value=torch.randn(1, 1, 5)), {})
    assert float(found["epistemic_weight"]) == 1.0


def test_an_ensemble_of_one_is_refused() -> None:
    decisions = Decisions(mask=torch.ones(2, 1, dtype=torch.bool), value_target=torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match="two or more members"):
        InverseVarianceLoss().prepare(decisions, Evaluation(value=torch.zeros(2, 1, 1)), {})
