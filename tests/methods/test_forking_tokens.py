"""Forking tokens: what is selected, what it leaves of DAPO's gradient, and both normalisers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.densities import Categorical
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.registry import method


def sample(seed: int = 0, rows: int = 12, columns: int = 9) -> tuple[Evaluation, Decisions]:
    built = method("forking_tokens")
    evaluation, decisions = built.example(rows, columns, seed, torch.float64)
    return evaluation, built.credit(decisions)


def gradient(built: Method, evaluation: Evaluation, decisions: Decisions) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, its gradient by log-prob, and the selected decisions."""
    log_prob = evaluation.log_prob.detach().clone().requires_grad_()
    entropy = evaluation.entropy.detach().clone().requires_grad_()
    now = Evaluation(log_prob=log_prob, entropy=entropy)
    prepared = built.prepare(decisions, now)
    loss, _ = built.loss(now, prepared)
    loss.backward()
    assert log_prob.grad is not None
    assert entropy.grad is None or not bool(entropy.grad.any()), "no gradient flows through the entropy"
    return loss.detach(), log_prob.grad, prepared.extras["weight:policy"] != 0


def test_a_golden_batch_worked_by_hand() -> None:
    """Five tokens, two of them padding-free forks: rho 0.4 keeps H = 1.5 and 0.9; ratios 1.1 and 0.5."""
    mask = torch.tensor([[True, True, True], [True, True, False]])
    decisions = Decisions(
        mask=mask,
        old_log_prob=torch.zeros(2, 3, dtype=torch.float64),
        reward=torch.zeros(2, 3, dtype=torch.float64),
        group=torch.zeros(2, dtype=torch.int64),
        advantage=torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]], dtype=torch.float64),
        extras={"budget": torch.tensor([3, 3])},
    )
    ratio = torch.tensor([[1.1, 1.4, 0.7], [1.0, 0.5, 9.0]], dtype=torch.float64)
    entropy = torch.tensor([[1.5, 0.1, 0.2], [0.0, 0.9, 7.0]], dtype=torch.float64)
    for normaliser, count in (("selected", 2), ("all", 5)):
        built = method("forking_tokens", rho=0.4, normalise_by=normaliser)
        loss, grad, kept = gradient(built, Evaluation(log_prob=ratio.log(), entropy=entropy), decisions)
        assert kept.tolist() == [[True, False, False], [False, True, False]]
        # Token one: -1 * 1.1. Token two: max(0.5, 0.8) = 0.8, clipped, so it has no gradient.
        assert float(loss) == pytest.approx((-1.1 + 0.8) / count, abs=1e-12)
        assert grad[0, 0].item() == pytest.approx(-1.1 / count, abs=1e-12)
        assert int((grad != 0).sum()) == 1


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.2, 0.5, 1.0])
def test_the_top_entropies_are_kept_and_no_others(rho: float) -> None:
    evaluation, decisions = sample()
    _, grad, kept = gradient(method("forking_tokens", rho=rho), evaluation, decisions)
    count = int(decisions.mask.sum())
    wanted = max(1, math.ceil(rho * count - 1e-9))
    ordered = sorted(evaluation.entropy[decisions.mask].tolist(), reverse=True)
    assert int(kept.sum()) == wanted
    assert torch.equal(kept, decisions.mask & (evaluation.entropy >= ordered[wanted - 1]))
    assert bool((grad[~kept] == 0).all())


def test_rho_one_is_dapo() -> None:
    evaluation, decisions = sample()
    plain = method("dapo")
    for built in (method("forking_tokens", rho=1.0), method("forking_tokens", select="all")):
        loss, grad, _ = gradient(built, evaluation, decisions)
        log_prob = evaluation.log_prob.detach().clone().requires_grad_()
        expected, _ = plain.loss(Evaluation(log_prob=log_prob), decisions)
        expected.backward()
        assert torch.allclose(loss, expected.detach(), atol=1e-14, rtol=0)
        assert torch.allclose(grad, log_prob.grad, atol=1e-14, rtol=0)
    # Credit, filter and shaping are DAPO's as well.
    fresh = decisions.replace(advantage=None)
    built = method("forking_tokens")
    assert torch.equal(built.credit(fresh).advantage, plain.credit(fresh).advantage)
    assert built.accept == plain.accept and built.plan == plain.plan and built.step == plain.step


@pytest.mark.parametrize("rho", [0.1, 0.2, 0.6])
def test_selected_and_rest_partition_the_loss(rho: float) -> None:
    """n_sel J_top + n_rest J_bottom = n J_all, values and gradients."""
    evaluation, decisions = sample()
    top, top_grad, kept = gradient(method("forking_tokens", rho=rho), evaluation, decisions)
    rest, rest_grad, others = gradient(method("forking_tokens", rho=rho, select="bottom"), evaluation, decisions)
    whole, whole_grad, _ = gradient(method("forking_tokens", select="all"), evaluation, decisions)
    count = int(decisions.mask.sum())
    assert torch.equal(kept | others, decisions.mask) and not bool((kept & others).any())
    assert torch.allclose(kept.sum() * top + others.sum() * rest, count * whole, atol=1e-12)
    assert torch.allclose(kept.sum() * top_grad + others.sum() * rest_grad, count * whole_grad, atol=1e-12)


@pytest.mark.parametrize("select", ["top", "bottom", "random"])
def test_both_normalisers_are_proportional(select: str) -> None:
    evaluation, decisions = sample()
    loss, grad, kept = gradient(method("forking_tokens", select=select), evaluation, decisions)
    other, other_grad, _ = gradient(method("forking_tokens", select=select, normalise_by="all"), evaluation, decisions)
    factor = float(kept.sum() / decisions.mask.sum())
    assert factor < 1
    assert torch.allclose(other, factor * loss, atol=1e-14) and torch.allclose(other_grad, factor * grad, atol=1e-14)


def test_random_keeps_as_many_and_ignores_entropy() -> None:
    evaluation, decisions = sample()
    built = method("forking_tokens", select="random")
    _, _, kept = gradient(built, evaluation, decisions)
    _, _, top = gradient(method("forking_tokens"), evaluation, decisions)
    assert kept.sum() == top.sum() and not torch.equal(kept, top)
    other = Evaluation(log_prob=evaluation.log_prob, entropy=evaluation.entropy.detach().flip(0))
    assert torch.equal(gradient(built, other, decisions)[2], kept)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.floats(0.05, 0.95), st.floats(0.1, 3.0), st.floats(-2.0, 2.0))
def test_the_mask_survives_monotone_transforms_and_other_advantages(
    seed: int, rho: float, power: float, shift: float
) -> None:
    evaluation, decisions = sample(seed)
    built = method("forking_tokens", rho=rho)
    _, _, kept = gradient(built, evaluation, decisions)
    moved = Evaluation(log_prob=evaluation.log_prob, entropy=evaluation.entropy.detach() ** power + shift)
    assert torch.equal(gradient(built, moved, decisions)[2], kept)
    reversed_ = decisions.replace(advantage=-2.0 * decisions.advantage)
    assert torch.equal(gradient(built, evaluation, reversed_)[2], kept)


def test_ties() -> None:
    evaluation, decisions = sample()
    even = Evaluation(log_prob=evaluation.log_prob, entropy=torch.ones_like(evaluation.log_prob))
    count = int(decisions.mask.sum())
    assert int(gradient(method("forking_tokens"), even, decisions)[2].sum()) == count
    exact = method("forking_tokens", ties="break")
    assert int(gradient(exact, even, decisions)[2].sum()) == math.ceil(0.2 * count)


def test_the_loss_does_not_move_with_the_entropy_while_the_set_stays() -> None:
    """Finite differences of the loss by H vanish."""
    evaluation, decisions = sample()
    built = method("forking_tokens")
    loss, _, kept = gradient(built, evaluation, decisions)
    for row, column in decisions.mask.nonzero().tolist()[:20]:
        entropy = evaluation.entropy.detach().clone()
        entropy[row, column] += 1e-9
        again, _, same = gradient(built, Evaluation(log_prob=evaluation.log_prob, entropy=entropy), decisions)
        assert torch.equal(same, kept) and torch.equal(again, loss)


def test_the_threshold_is_for_the_update_not_for_each_row() -> None:
    evaluation, decisions = sample()
    entropy = evaluation.entropy.detach().clone()
    entropy[0] += 100.0
    _, _, kept = gradient(
        method("forking_tokens", rho=0.05), Evaluation(log_prob=evaluation.log_prob, entropy=entropy), decisions
    )
    assert not bool(kept[1:].any()) and bool(kept[0].any())


def test_what_is_logged() -> None:
    evaluation, decisions = sample()
    built = method("forking_tokens")
    _, metrics = built.loss(evaluation, decisions)
    entropy, mask = evaluation.entropy.detach(), decisions.mask
    kept = gradient(built, evaluation, decisions)[2]
    assert float(metrics["entropy_threshold"]) == pytest.approx(float(entropy[kept].min()))
    assert float(metrics["entropy_selected"]) == pytest.approx(float(entropy[kept].mean()))
    assert float(metrics["entropy_rest"]) == pytest.approx(float(entropy[mask & ~kept].mean()))
    # Clip and divergence metrics stay those of all tokens.
    everything = method("dapo").loss(evaluation, decisions)[1]
    for name in ("clip_fraction", "approximate_kl", "ratio"):
        assert float(metrics[name]) == pytest.approx(float(everything[name])), name


@pytest.mark.parametrize("size", [2, 7, 64])
def test_entropy_closed_forms(size: int) -> None:
    assert float(Categorical(torch.zeros(size, dtype=torch.float64)).entropy()) == pytest.approx(math.log(size))
    p = 0.3
    two = Categorical(torch.tensor([p, 1 - p], dtype=torch.float64).log()).entropy()
    assert float(two) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    logits = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rising = [float(Categorical(logits / temperature).entropy()) for temperature in (0.2, 0.5, 1.0, 2.0, 5.0)]
    assert rising == sorted(rising) and rising[0] >= 0 and rising[-1] <= math.log(size)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"rho must be a number in \[0, 1\]; got 20\. Use 0\.2; it is the share"):
        method("forking_tokens", rho=20)
    with pytest.raises(ValueError, match="rho must be < 1 with select='bottom'"):
        method("forking_tokens", rho=1.0, select="bottom")
    with pytest.raises(ValueError, match="normalise_by must be one of"):
        method("forking_tokens", normalise_by="kept")
