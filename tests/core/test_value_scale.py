"""Scaled value targets: units, running moments, and the loss in them."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.returns import GAE, LambdaReturn
from ascent.core.value_scale import ScaledValueLoss, Unscaled


def batch() -> Decisions:
    shape = (2, 3)
    draw = torch.Generator().manual_seed(0)
    off = torch.zeros(shape, dtype=torch.bool)
    ended = torch.tensor([[False, False, True], [False, True, False]])
    return Decisions(
        mask=torch.ones(shape, dtype=torch.bool),
        reward=torch.randn(shape, generator=draw, dtype=torch.float64),
        value=torch.randn(shape, generator=draw, dtype=torch.float64),
        next_value=torch.randn(shape, generator=draw, dtype=torch.float64),
        value_target=torch.tensor([[1.0, 3.0, 5.0], [1.0, 3.0, 5.0]]).double(),
        terminated=ended,
        truncated=off,
    )


def test_before_the_first_update_nothing_is_scaled() -> None:
    decisions, loss = batch(), ScaledValueLoss()
    columns = loss.annotate(decisions, loss.start())
    assert columns["value_mean"].tolist() == [0, 0] and columns["value_deviation"].tolist() == [1, 1]
    whole = decisions.with_extras(columns)
    kept = whole.replace(next_value=decisions.next_value.masked_fill(decisions.terminated, 0.0))
    assert torch.equal(Unscaled(GAE())(whole), GAE()(kept))


def test_moments_are_debiased_and_run() -> None:
    decisions, loss = batch(), ScaledValueLoss(keep=0.9)
    state = loss.after(decisions, {}, loss.start())
    columns = loss.annotate(decisions, state)
    assert columns["value_mean"].tolist() == pytest.approx([3, 3])
    assert columns["value_deviation"].tolist() == pytest.approx([(8 / 3) ** 0.5] * 2)
    state = loss.after(decisions.replace(value_target=torch.full((2, 3), 9.0).double()), {}, state)
    # Weights 0.09 and 0.1 of means 3 and 9.
    assert loss.annotate(decisions, state)["value_mean"][0].item() == pytest.approx((0.09 * 3 + 0.1 * 9) / 0.19)


def test_values_return_to_the_units_of_rewards() -> None:
    decisions = batch().with_extras(
        {"value_mean": torch.full((2,), 4.0).double(), "value_deviation": torch.full((2,), 3.0)}
    )
    by_hand = batch().replace(
        value=3 * decisions.value + 4, next_value=(3 * decisions.next_value + 4).masked_fill(decisions.terminated, 0.0)
    )
    assert torch.allclose(Unscaled(LambdaReturn())(decisions), LambdaReturn()(by_hand), atol=1e-12)


def test_the_loss_is_that_of_the_scaled_error() -> None:
    decisions = batch().with_extras(
        {"value_mean": torch.full((2,), 3.0).double(), "value_deviation": torch.full((2,), 2.0)}
    )
    evaluation = Evaluation(value=torch.zeros(2, 3, dtype=torch.float64))
    assert ScaledValueLoss()(evaluation, decisions)[0].tolist() == pytest.approx([0.5, 0.0, 0.5])
    huber = ScaledValueLoss(kind="huber", delta=0.5)
    assert huber(evaluation, decisions)[0].tolist() == pytest.approx([0.375, 0.0, 0.375])


def test_constant_targets_keep_a_deviation() -> None:
    decisions, loss = batch(), ScaledValueLoss()
    flat = decisions.replace(value_target=torch.full((2, 3), 2.0).double())
    columns = loss.prepare(flat, None, loss.after(flat, {}, loss.start()))
    assert columns["value_deviation"][0].item() == pytest.approx(0.1)
    nobody = flat.replace(mask=torch.zeros(2, 3, dtype=torch.bool))
    assert loss.after(nobody, {}, loss.start()) == loss.start()


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="keep must be"):
        ScaledValueLoss(keep=1.0)
    with pytest.raises(ValueError, match="clip must be None"):
        ScaledValueLoss(clip=0.2)
