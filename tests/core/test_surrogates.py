"""Surrogate values and their gradients: plain-loop values, finite differences, reductions to known methods."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.core.surrogates import (
    CISPO,
    ClippedRatio,
    DecoupledClip,
    ImportanceWeighted,
    LogProb,
    Outcome,
    Ratio,
    likelihood_ratio,
)


def batch(seed: int = 0, rows: int = 4, columns: int = 5, spread: float = 0.4) -> tuple[Tensor, Decisions]:
    """Present log-probs and decisions whose ratios lie on all sides of the usual bounds."""
    draw = generator(seed, "surrogates")
    mask = torch.arange(columns) < torch.randint(1, columns + 1, (rows, 1), generator=draw)
    noise = torch.randn(4, rows, columns, generator=draw, dtype=torch.float64)
    log_prob = -noise[0].abs() - 0.1
    decisions = Decisions(
        mask=mask,
        old_log_prob=log_prob + spread * noise[1],
        behaviour_log_prob=log_prob + spread * noise[2],
        advantage=noise[3],
    )
    return log_prob, decisions


def gradient(value: Callable[[Evaluation, Decisions], Tensor], log_prob: Tensor, decisions: Decisions) -> Tensor:
    leaf = log_prob.clone().requires_grad_()
    torch.where(decisions.mask, value(Evaluation(log_prob=leaf), decisions), 0.0).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def by_differences(value: Callable[[Evaluation, Decisions], Tensor], log_prob: Tensor, decisions: Decisions) -> Tensor:
    result, step = torch.zeros_like(log_prob), 1e-6
    for place in torch.nonzero(decisions.mask):
        ends = []
        for sign in (1, -1):
            moved = log_prob.clone()
            moved[tuple(place)] += sign * step
            ends.append(torch.where(decisions.mask, value(Evaluation(log_prob=moved), decisions), 0.0).sum())
        result[tuple(place)] = (ends[0] - ends[1]) / (2 * step)
    return result


def plain_clip(advantage: float, ratio: float, low: float, high: float, dual: float | None) -> float:
    objective = min(advantage * ratio, advantage * min(max(ratio, 1 - low), 1 + high))
    if dual is not None and advantage < 0:
        objective = max(objective, dual * advantage)
    return -objective


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    low=st.floats(0, 0.9),
    high=st.floats(0, 3),
    dual=st.sampled_from([None, 1.05, 3.0]),
    level=st.sampled_from(["token", "sequence", "sequence-token"]),
)
def test_clipped_ratio_equals_the_plain_loop(
    seed: int, low: float, high: float, dual: float | None, level: str
) -> None:
    log_prob, decisions = batch(seed)
    value = ClippedRatio(low, high, dual, ratio=level)(Evaluation(log_prob=log_prob), decisions)
    difference = log_prob - decisions.old_log_prob
    for row, column in torch.nonzero(decisions.mask).tolist():
        log_ratio = difference[row, column]
        if level != "token":
            log_ratio = difference[row][decisions.mask[row]].mean()
        wanted = plain_clip(float(decisions.advantage[row, column]), math.exp(log_ratio), low, high, dual)
        assert float(value[row, column]) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


DIFFERENTIABLE = {
    "log-prob": LogProb(),
    "ratio": Ratio(),
    "sequence ratio": Ratio(ratio="sequence"),
    "clip": ClippedRatio(0.2, 0.3),
    "dual clip": ClippedRatio(0.2, 0.3, dual=1.1),
    "sequence clip": ClippedRatio(0.05, 0.05, ratio="sequence"),
    "decoupled": DecoupledClip(0.2, 0.3, cap=1.1),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_equal_finite_differences(name: str) -> None:
    value = DIFFERENTIABLE[name]
    log_prob, decisions = batch(3)
    wanted = by_differences(value, log_prob, decisions)
    torch.testing.assert_close(gradient(value, log_prob, decisions), wanted, rtol=1e-5, atol=1e-7)
    assert wanted.any()


def test_a_clipped_decision_has_no_gradient_and_an_unclipped_one_has_the_ratio_s() -> None:
    old = torch.zeros(1, 4, dtype=torch.float64)
    log_prob = torch.tensor([[1.5, 1.5, 0.5, 0.5]], dtype=torch.float64).log()
    advantage = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    decisions = Decisions(mask=torch.ones(1, 4, dtype=torch.bool), old_log_prob=old, advantage=advantage)
    slope = gradient(ClippedRatio(), log_prob, decisions)
    torch.testing.assert_close(slope, torch.tensor([[0.0, 1.5, -0.5, 0.0]], dtype=torch.float64))
    metrics = ClippedRatio().metrics(Evaluation(log_prob=log_prob), decisions)
    assert metrics["clip_fraction"].tolist() == [[True, False, False, True]]
    assert metrics["clip_fraction_high"].tolist() == [[True, False, False, False]]
    assert metrics["clip_fraction_low"].tolist() == [[False, False, False, True]]
    torch.testing.assert_close(metrics["ratio"], log_prob.exp())
    torch.testing.assert_close(metrics["approximate_kl"], log_prob.exp() - 1 - log_prob)


def test_gspo_token_has_the_sequence_number_and_the_token_gradient() -> None:
    log_prob, decisions = batch(5)
    evaluation = Evaluation(log_prob=log_prob)
    sequence, token = Ratio(ratio="sequence"), Ratio(ratio="sequence-token")
    torch.testing.assert_close(token(evaluation, decisions), sequence(evaluation, decisions))
    weight = likelihood_ratio(log_prob, decisions.old_log_prob, decisions.mask, "sequence")
    wanted = torch.where(decisions.mask, -decisions.advantage * weight, 0.0)
    torch.testing.assert_close(gradient(token, log_prob, decisions), wanted)
    # With one advantage for the whole sequence both have the same gradient (GSPO paper's remark).
    shared = decisions.replace(advantage=decisions.advantage[:, :1].expand(4, 5).contiguous())
    torch.testing.assert_close(gradient(token, log_prob, shared), gradient(sequence, log_prob, shared))


@pytest.mark.parametrize("level", ["token", "sequence", "sequence-token"])
def test_on_policy_every_ratio_loss_has_the_policy_gradient_s_direction(level: str) -> None:
    log_prob, decisions = batch(6)
    decisions = decisions.replace(
        old_log_prob=log_prob,
        behaviour_log_prob=log_prob,
        advantage=decisions.advantage[:, :1].expand(4, 5).contiguous(),
    )
    wanted = gradient(LogProb(), log_prob, decisions)
    for value in (Ratio(ratio=level), ClippedRatio(ratio=level), CISPO(ratio=level), DecoupledClip(ratio=level)):
        torch.testing.assert_close(gradient(value, log_prob, decisions), wanted)


def test_infinite_bounds_never_clip() -> None:
    log_prob, decisions = batch(7)
    evaluation = Evaluation(log_prob=log_prob)
    open_clip = ClippedRatio(math.inf, math.inf)
    torch.testing.assert_close(open_clip(evaluation, decisions), Ratio()(evaluation, decisions))
    assert "clip_fraction" in ClippedRatio(math.inf, 0.2).metrics(evaluation, decisions)
    for unclipped in (open_clip, CISPO(None, None), CISPO(math.inf, None)):
        told = unclipped.metrics(evaluation, decisions)
        assert set(told) == {"approximate_kl", "ratio"}, (
            "no clip has no clip fraction, which is not a clip fraction of 0"
        )


def test_bounds_from_prepared_columns() -> None:
    log_prob, decisions = batch(8)
    evaluation = Evaluation(log_prob=log_prob)
    columns = {"low": torch.full((4,), 0.1, dtype=torch.float64), "high": torch.full((4, 5), 0.3, dtype=torch.float64)}
    prepared = decisions.with_extras(columns)
    for named, fixed in (
        (ClippedRatio("low", "high"), ClippedRatio(0.1, 0.3)),
        (ClippedRatio("low", 0.3), ClippedRatio(0.1, 0.3)),
        (ClippedRatio(0.1, "high"), ClippedRatio(0.1, 0.3)),
        (CISPO(None, "high"), CISPO(None, 0.3)),
    ):
        assert torch.equal(named(evaluation, prepared), fixed(evaluation, decisions))
        assert torch.equal(gradient(named, log_prob, prepared), gradient(fixed, log_prob, decisions))
        ours, theirs = named.metrics(evaluation, prepared), fixed.metrics(evaluation, decisions)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(LookupError, match="'low'"):
        ClippedRatio("low", 0.3)(evaluation, decisions)


def test_cispo_weighs_the_log_prob_gradient_and_drops_nobody() -> None:
    log_prob, decisions = batch(9)
    ratio = (log_prob - decisions.old_log_prob).exp()
    wanted = torch.where(decisions.mask, -decisions.advantage * ratio.clamp(0.8, 1.1), 0.0)
    torch.testing.assert_close(gradient(CISPO(0.2, 0.1), log_prob, decisions), wanted)
    wanted = torch.where(decisions.mask, -decisions.advantage * ratio.clamp(max=1.2), 0.0)
    torch.testing.assert_close(gradient(CISPO(), log_prob, decisions), wanted)
    metrics = CISPO(0.2, 0.1).metrics(Evaluation(log_prob=log_prob), decisions)
    assert torch.equal(metrics["clip_fraction"], (ratio < 0.8) | (ratio > 1.1))
    assert torch.equal(metrics["clip_fraction_low"], ratio < 0.8)


def test_truncated_and_masked_weights() -> None:
    log_prob, decisions = batch(10)
    weight = (log_prob - decisions.behaviour_log_prob).exp()
    base = torch.where(decisions.mask, -decisions.advantage, 0.0)
    cases = (
        (ImportanceWeighted(), weight),
        (ImportanceWeighted(cap=1.1), weight.clamp(max=1.1)),
        (ImportanceWeighted(mask_above=1.1), torch.where(weight > 1.1, 0.0, weight)),
        (
            ImportanceWeighted(mask_above=1.1, mask_below=0.9),
            torch.where((weight > 1.1) | (weight < 0.9), 0.0, weight),
        ),
    )
    for part, wanted in cases:
        torch.testing.assert_close(gradient(part, log_prob, decisions), base * wanted)
        metrics = part.metrics(Evaluation(log_prob=log_prob), decisions)
        torch.testing.assert_close(metrics["importance_weight"], weight)
        assert torch.equal(metrics["importance_changed"], wanted != weight)


@pytest.mark.parametrize("numerator", ["new", "old"])
@pytest.mark.parametrize("level", ["sequence", "geometric"])
def test_sequence_weights_equal_the_plain_loop(level: str, numerator: str) -> None:
    log_prob, decisions = batch(11)
    above = log_prob if numerator == "new" else decisions.old_log_prob
    _, weight = ImportanceWeighted(level=level, numerator=numerator).weight(Evaluation(log_prob=log_prob), decisions)
    for row in range(4):
        differences = (above - decisions.behaviour_log_prob)[row][decisions.mask[row]]
        wanted = math.exp(differences.sum() if level == "sequence" else differences.mean())
        torch.testing.assert_close(weight[row], torch.full((5,), wanted, dtype=torch.float64))


def test_decoupled_clip_is_the_weighted_clip() -> None:
    log_prob, decisions = batch(12)
    evaluation = Evaluation(log_prob=log_prob)
    weight = (decisions.old_log_prob - decisions.behaviour_log_prob).exp()
    clip = ClippedRatio(0.2, 0.2)(evaluation, decisions)
    torch.testing.assert_close(DecoupledClip()(evaluation, decisions), weight * clip)
    torch.testing.assert_close(DecoupledClip(cap=1.0)(evaluation, decisions), weight.clamp(max=1.0) * clip)
    dropped = torch.where(weight > 1.2, 0.0, weight) * clip
    torch.testing.assert_close(DecoupledClip(mask_above=1.2)(evaluation, decisions), dropped)


def test_outcome_is_its_own_negative() -> None:
    outcome = torch.tensor([[1.0, -2.0]], requires_grad=True)
    decisions = Decisions(mask=torch.ones(1, 2, dtype=torch.bool))
    value = Outcome()(Evaluation(outcome=outcome), decisions)
    value.sum().backward()
    assert value.tolist() == [[-1.0, 2.0]] and outcome.grad is not None and outcome.grad.tolist() == [[-1.0, -1.0]]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_log_ratios_stay_finite(name: str, dtype: torch.dtype) -> None:
    decisions = Decisions(
        mask=torch.ones(2, 2, dtype=torch.bool),
        old_log_prob=torch.tensor([[-2000.0, 0.0], [-500.0, -500.0]], dtype=dtype),
        behaviour_log_prob=torch.tensor([[0.0, -2000.0], [-500.0, 0.0]], dtype=dtype),
        advantage=torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=dtype),
    )
    log_prob = torch.tensor([[0.0, -3000.0], [0.0, 0.0]], dtype=dtype)
    evaluation = Evaluation(log_prob=log_prob)
    assert DIFFERENTIABLE[name](evaluation, decisions).isfinite().all()
    assert gradient(DIFFERENTIABLE[name], log_prob, decisions).isfinite().all()


def test_range_errors() -> None:
    for part in (ClippedRatio, CISPO):
        with pytest.raises(ValueError, match=r"low must be >= 0 .*; got -0.1"):
            part(low=-0.1)
    with pytest.raises(ValueError, match=r"dual must be > 1 or None; got 1.0"):
        ClippedRatio(dual=1.0)
    with pytest.raises(ValueError, match="cap must be > 0 or None; got 0"):
        ImportanceWeighted(cap=0)
