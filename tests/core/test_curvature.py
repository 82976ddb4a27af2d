"""The curvature of the head against autograd, finite differences, enumeration and torch's own Adam."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core import curvature
from ascent.core.curvature import AdamModel, Moments, mean_gradient, residual, sgd_shifts, shifts

K, D = 6, 4


def one(seed: int = 0, advantage: float = -0.7) -> tuple[Tensor, Tensor, int, float]:
    """W [K, d], h [d], an action and its advantage."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(K, D, generator=draw, dtype=torch.float64)
    hidden = torch.randn(D, generator=draw, dtype=torch.float64)
    return weight, hidden, int(torch.randint(K, (1,), generator=draw)), advantage


def log_prob(weight: Tensor, hidden: Tensor, action: int) -> Tensor:
    return (weight @ hidden).log_softmax(0)[action]


def parts(weight: Tensor, hidden: Tensor, action: int) -> tuple[Tensor, Tensor]:
    chance, u = residual((weight @ hidden)[None], torch.tensor([action]))
    return chance[0], u[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_autograds(seed: int) -> None:
    weight, hidden, action, advantage = one(seed)
    _, u = parts(weight, hidden, action)
    leaf = weight.clone().requires_grad_()
    (advantage * log_prob(leaf, hidden, action)).backward()
    assert torch.allclose(leaf.grad, advantage * torch.outer(u, hidden), atol=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_the_hessian_is_that_of_the_objective(seed: int) -> None:
    """A exp(log pi_new - log pi_old) - A = m_H + O(e^3), and 1/2 v^T F v = KL + O(e^3): halving e divides by eight."""
    weight, hidden, action, advantage = one(seed)
    chance, u = parts(weight, hidden, action)
    step = torch.randn(K, D, generator=torch.Generator().manual_seed(seed + 50), dtype=torch.float64)
    errors = []
    for size in (1e-2, 5e-3):
        change = size * step
        found = shifts(u[None], chance[None], (change @ hidden)[None], torch.tensor([advantage], dtype=torch.float64))
        expected = shifts(
            u[None], chance[None], (change @ hidden)[None], torch.tensor([advantage], dtype=torch.float64), True
        )
        ratio = (log_prob(weight + change, hidden, action) - log_prob(weight, hidden, action)).exp()
        moved = ((weight + change) @ hidden).log_softmax(0)
        divergence = (chance * (chance.log() - moved)).sum()
        errors.append((float(advantage * (ratio - 1) - found.objective), float(divergence - expected.policy)))
    for large, small in zip(*errors, strict=True):
        assert abs(large) < 1e-3 and large / small == pytest.approx(8.0, rel=0.2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 3.0))
def test_the_sampled_fisher_has_the_expected_one_as_its_mean(seed: int, factor: float) -> None:
    weight, hidden, _, _ = one(seed)
    along = torch.randn(K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chance, u = residual((weight @ hidden).expand(K, K), torch.arange(K))
    many, unit = along.expand(K, K), torch.ones(K, dtype=torch.float64)
    sampled, expected = shifts(u, chance, many, unit).policy, shifts(u, chance, many, unit, True).policy
    assert torch.allclose((chance[0] * sampled).sum(), expected[0], atol=1e-12)
    assert bool((sampled >= 0).all())
    # Of a step c times as long the policy shift is c^2 times as great.
    assert torch.allclose(shifts(u, chance, factor * many, unit).policy, factor**2 * sampled, atol=1e-12)


def test_the_sgd_model_is_the_closed_form() -> None:
    """m_F = 1/2 (rate A n s)^2;  m_H = rate A^2 n s + 1/2 A ((rate A n s)^2 - (rate A n)^2 u^T F u)."""
    weight, hidden, action, advantage = one()
    chance, u = parts(weight, hidden, action)
    rate = 0.3
    found = sgd_shifts(u[None], chance[None], hidden[None], torch.tensor([advantage], dtype=torch.float64), rate)
    n, s = float(hidden.square().sum()), float(u.square().sum())
    spread = float(u @ (torch.diag(chance) - torch.outer(chance, chance)) @ u)
    a = advantage
    assert float(found.policy) == pytest.approx(0.5 * (rate * a * n * s) ** 2, rel=1e-12)
    second = 0.5 * a * ((rate * a * n * s) ** 2 - (rate * a * n) ** 2 * spread)
    assert float(found.objective) == pytest.approx(rate * a * a * n * s + second, rel=1e-12)


@pytest.mark.parametrize("updates", [0, 1, 5])
def test_the_adam_model_is_torchs_adam(updates: int) -> None:
    """After so many updates by one gradient, the model's step is the one that torch takes next."""
    gradient = torch.randn(K, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weight = torch.zeros(K, D, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=1.0, betas=(0.8, 0.95), eps=1e-6, maximize=True)
    model, moments = AdamModel((0.8, 0.95), 1e-6), Moments(None, None, 0)
    for _ in range(updates):
        weight.grad = gradient.clone()
        optimiser.step()
        moments = model.after(gradient, moments)
    before, other = weight.detach().clone(), 0.5 * gradient + 0.1
    weight.grad = other.clone()
    optimiser.step()
    assert torch.allclose(model.direction(other, moments), weight.detach() - before, atol=1e-10)


def test_the_official_start_is_the_raw_gradient() -> None:
    gradient = torch.tensor([[0.5, -2.0]], dtype=torch.float64)
    assert torch.equal(AdamModel(raw_start=True).direction(gradient, Moments(None, None, 0)), gradient)
    first = AdamModel().direction(gradient, Moments(None, None, 0))
    assert torch.allclose(first, gradient.sign(), atol=1e-6)
    later = AdamModel().after(gradient, Moments(None, None, 0))
    assert not torch.equal(AdamModel(raw_start=True).direction(gradient, later), gradient)


def test_the_adam_shifts_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunk by chunk or at once, and by the generic formula with the step written out."""
    draw = torch.Generator().manual_seed(0)
    logits, hidden = (torch.randn(9, size, generator=draw, dtype=torch.float64) for size in (K, D))
    advantage = torch.randn(9, generator=draw, dtype=torch.float64)
    chance, u = residual(logits, torch.randint(K, (9,), generator=draw))
    model = AdamModel()
    moments = model.after(mean_gradient(u, hidden, advantage), Moments(None, None, 0))
    whole = model.shifts(u, chance, hidden, advantage, 0.1, moments)
    monkeypatch.setattr(curvature, "CHUNK", 2 * K * D)
    parts_ = model.shifts(u, chance, hidden, advantage, 0.1, moments)
    assert torch.allclose(whole.objective, parts_.objective) and torch.allclose(whole.policy, parts_.policy)
    for row in range(9):
        gradient = advantage[row] * torch.outer(u[row], hidden[row])
        step = 0.1 * model.direction(gradient, moments)
        second = torch.outer(u[row], u[row]) - torch.diag(chance[row]) + torch.outer(chance[row], chance[row])
        v = step @ hidden[row]
        objective = (gradient * step).sum() + 0.5 * advantage[row] * (v @ second @ v)
        assert float(whole.objective[row]) == pytest.approx(float(objective), rel=1e-10)
        assert float(whole.policy[row]) == pytest.approx(float(0.5 * (u[row] @ v) ** 2), rel=1e-10)


def test_top_k_rows() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, -1.0]], dtype=torch.float64)
    chance, u = residual(logits, torch.tensor([1]), top_k=2)
    assert chance[0].tolist() == pytest.approx([1 / (1 + 2.718281828459045**-1), 0, 1 / (1 + 2.718281828459045), 0])
    assert torch.equal(u, -chance), "an action outside the list has no one-hot"
    _, u = residual(logits, torch.tensor([2]), top_k=2)
    assert float(u[0, 2]) > 0 and u[0, [1, 3]].tolist() == [0.0, 0.0]
    advantage = torch.tensor([2.0, 4.0], dtype=torch.float64)
    rows = torch.tensor([[0.5, -0.5, 0.0], [0.5, 0.0, -0.5]], dtype=torch.float64)
    hidden = torch.ones(2, 1, dtype=torch.float64)
    assert mean_gradient(rows, hidden, advantage)[:, 0].tolist() == [1.5, -1.0, -2.0]
