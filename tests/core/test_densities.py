"""Densities equal torch.distributions, in value and in gradient."""

from __future__ import annotations

import pytest
import torch
from torch import distributions as reference
from torch.testing import assert_close

from ascent.core.densities import Categorical, DiagonalGaussian, MultiCategorical, SquashedGaussian
from ascent.core.random import generator


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "densities"), dtype=torch.float64)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_categorical(batch: tuple[int, ...]) -> None:
    logits, others = normal(*batch, 5), normal(*batch, 5, seed=1)
    ours, theirs = Categorical(logits), reference.Categorical(logits=logits)
    action = torch.randint(0, 5, batch, generator=generator("action"))
    assert_close(ours.log_prob(action), theirs.log_prob(action))
    assert_close(ours.entropy(), theirs.entropy())
    wanted = reference.kl_divergence(theirs, reference.Categorical(logits=others))
    assert_close(ours.kl(Categorical(others)), wanted)
    assert torch.equal(ours.mode(), theirs.mode)
    assert torch.equal(Categorical(**ours.parameters()).log_probs, ours.log_probs)


def test_forbidden_actions_cost_nothing_and_give_no_nan() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    ours, allowed = Categorical(logits), Categorical(logits[:, :2])
    assert_close(ours.entropy(), allowed.entropy())
    other = torch.tensor([[0.0, 1.0, -torch.inf]], dtype=torch.float64)
    assert_close(ours.kl(Categorical(other)), allowed.kl(Categorical(other[:, :2])))
    (ours.entropy() + ours.log_prob(torch.tensor([0])) + ours.kl(Categorical(other))).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad[0, 2] == 0


def test_multi_categorical_is_the_sum_of_its_choices() -> None:
    sizes = (2, 4, 3)
    logits, others = normal(5, 9), normal(5, 9, seed=1)
    ours = MultiCategorical(logits, sizes)
    action = torch.stack([torch.randint(0, size, (5,), generator=generator(size)) for size in sizes], -1)
    theirs = [reference.Categorical(logits=part) for part in logits.split(sizes, -1)]
    further = [reference.Categorical(logits=part) for part in others.split(sizes, -1)]
    assert_close(ours.log_prob(action), sum(part.log_prob(action[:, i]) for i, part in enumerate(theirs)))
    assert_close(ours.entropy(), sum(part.entropy() for part in theirs))
    wanted = sum(reference.kl_divergence(*pair) for pair in zip(theirs, further, strict=True))
    assert_close(ours.kl(MultiCategorical(others, sizes)), wanted)
    assert torch.equal(ours.mode(), torch.stack([part.mode for part in theirs], -1))
    with pytest.raises(ValueError, match=r"sizes must add up to the last dimension 9; got \(2, 4\)"):
        MultiCategorical(logits, (2, 4))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_diagonal_gaussian(batch: tuple[int, ...], shared: bool) -> None:
    width = () if shared else batch
    mean, log_std, action = normal(*batch, 3), 0.5 * normal(*width, 3, seed=1), normal(*batch, 3, seed=2)
    further = DiagonalGaussian(normal(*batch, 3, seed=3), 0.5 * normal(*width, 3, seed=4))
    ours = DiagonalGaussian(mean, log_std)
    theirs = reference.Independent(reference.Normal(mean, log_std.exp().expand_as(mean)), 1)
    other = reference.Independent(reference.Normal(further.mean, further.log_std.exp().expand_as(mean)), 1)
    assert_close(ours.log_prob(action), theirs.log_prob(action))
    assert_close(ours.entropy(), theirs.entropy())
    assert_close(ours.kl(further), reference.kl_divergence(theirs, other))
    assert torch.equal(ours.mode(), mean)
    assert set(ours.parameters()) == {"mean", "log_std"}


def test_squashed_gaussian_log_prob_and_kl() -> None:
    mean, log_std, before = normal(6, 2), 0.3 * normal(2, seed=1), normal(6, 2, seed=2)
    ours = SquashedGaussian(mean, log_std)
    base = reference.Normal(mean, log_std.exp().expand_as(mean))
    squashed = reference.TransformedDistribution(base, [reference.TanhTransform(cache_size=1)])
    theirs = reference.Independent(squashed, 1)
    action = before.tanh()
    assert_close(ours.log_prob(action), theirs.log_prob(action))
    assert_close(ours.log_prob_before(before), theirs.log_prob(action))
    further = SquashedGaussian(normal(6, 2, seed=3), log_std + 0.1)
    assert_close(ours.kl(further), ours.before.kl(further.before))
    assert torch.equal(ours.mode(), mean.tanh())


@pytest.mark.parametrize("mean", [0.0, 0.7, -2.0])
@pytest.mark.parametrize(("log_std", "tolerance"), [(-2.0, 1e-9), (-0.5, 1e-5), (0.0, 1e-4), (0.69, 1e-3)])
def test_squashed_gaussian_entropy_equals_numeric_integration(mean: float, log_std: float, tolerance: float) -> None:
    density = SquashedGaussian(*torch.tensor([[[mean]], [[log_std]]], dtype=torch.float64))
    std = torch.tensor(log_std, dtype=torch.float64).exp()
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64) * std + mean
    share = DiagonalGaussian(density.mean, density.log_std).log_prob(grid[:, None]).exp()
    wanted = -torch.trapezoid(share * density.log_prob_before(grid[:, None]), grid)
    assert float(density.entropy()) == pytest.approx(float(wanted), abs=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squashed_actions_at_the_ends_are_finite(dtype: torch.dtype) -> None:
    mean = torch.zeros(1, 2, dtype=dtype, requires_grad=True)
    density = SquashedGaussian(mean, torch.zeros(2, dtype=dtype))
    log_prob = density.log_prob(torch.tensor([[1.0, -1.0]], dtype=dtype))
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and mean.grad is not None and mean.grad.isfinite().all()
    assert density.entropy().dtype == dtype


def test_gradients_equal_finite_differences() -> None:
    logits = normal(3, 4).requires_grad_()
    other = Categorical(normal(3, 4, seed=1))
    action = torch.tensor([0, 3, 1])
    for number in (
        lambda leaf: Categorical(leaf).log_prob(action),
        lambda leaf: Categorical(leaf).entropy(),
        lambda leaf: Categorical(leaf).kl(other),
    ):
        assert torch.autograd.gradcheck(number, logits)
    mean, log_std = normal(3, 2).requires_grad_(), (0.3 * normal(2, seed=1)).requires_grad_()
    point = normal(3, 2, seed=2).tanh()
    for family in (DiagonalGaussian, SquashedGaussian):
        further = family(normal(3, 2, seed=3), torch.zeros(2, dtype=torch.float64))
        for number in (
            lambda m, s, family=family: family(m, s).log_prob(point),
            lambda m, s, family=family: family(m, s).entropy(),
            lambda m, s, family=family, further=further: family(m, s).kl(further),
        ):
            assert torch.autograd.gradcheck(number, (mean, log_std))


def test_an_unguarded_categorical_has_the_same_entropy_where_nothing_is_forbidden():
    logits = torch.tensor([[0.3, -2.0, 40.0]], dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(Categorical(logits).entropy().sum(), logits)
    (bare,) = torch.autograd.grad(Categorical(logits, guarded=False).entropy().sum(), logits)
    assert torch.equal(Categorical(logits).entropy(), Categorical(logits, guarded=False).entropy())
    assert torch.equal(plain, bare)
