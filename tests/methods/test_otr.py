"""One-token rollouts: unbiased by enumeration, closed-form gradients, and what they reduce to (SFT, DFT)."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import MethodState
from ascent.core.random import mix
from ascent.core.registry import method
from ascent.methods.otr import OneToken, draw_shares

V = 5


def position(seed: int = 0, rows: int = 1) -> tuple[Tensor, Tensor]:
    """Logits [M, V] with gradient, and the true tokens."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, V, generator=draw, dtype=torch.float64).requires_grad_()
    return logits, torch.randint(0, V, (rows,), generator=draw)


def keys(count: int) -> Tensor:
    return mix(torch.arange(count))


def grad(loss: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0]


def exact(part: OneToken, logits: Tensor, target: Tensor) -> Tensor:
    return part.loss(logits, target, (logits.detach() / part.kappa).softmax(-1))


@pytest.mark.parametrize(("kappa", "beta"), [(1.0, -0.1), (1.3, -0.1), (1.3, 0.0), (0.7, 0.4)])
def test_the_mean_over_all_draws_is_the_exact_loss(kappa: float, beta: float) -> None:
    """V = 3, K = 2: all 9 outcomes with their probabilities, value and gradient."""
    logits = torch.tensor([[0.3, -0.4, 0.9]], dtype=torch.float64, requires_grad=True)
    target, part = torch.tensor([1]), OneToken(2, beta, kappa)
    chance = (logits.detach() / kappa).softmax(-1)[0]
    value, gradient = 0.0, torch.zeros(1, 3, dtype=torch.float64)
    for draws in itertools.product(range(3), repeat=2):
        shares = torch.bincount(torch.tensor(draws), minlength=3).double()[None] / 2
        weight = float(chance[draws[0]] * chance[draws[1]])
        loss = part.loss(logits, target, shares)
        value, gradient = value + weight * float(loss.detach()), gradient + weight * grad(loss, logits)
    truth = exact(part, logits, target)
    assert value == pytest.approx(float(truth.detach()), abs=1e-12)
    assert torch.allclose(gradient, grad(truth, logits), atol=1e-12)


def test_the_mean_over_hashed_draws_approaches_it_and_its_variance_falls_as_one_over_k() -> None:
    logits, target = position()
    part = OneToken(beta=-0.1, kappa=1.3)
    truth = grad(exact(part, logits, target), logits)
    count = 4000
    spread = {}
    for samples in (1, 4, 16):
        shares = draw_shares(logits.expand(count, V), keys(count), samples, 1.3)
        wide = logits.detach().expand(count, V).clone().requires_grad_()
        gradients = grad(part.loss(wide, target.expand(count), shares), wide)
        error = gradients.std(0) / count**0.5
        assert bool(((gradients.mean(0) - truth[0]).abs() < 4.5 * error + 1e-9).all())
        spread[samples] = float(gradients.var(0).sum())
    assert spread[1] / spread[4] == pytest.approx(4, rel=0.15)
    assert spread[4] / spread[16] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize("beta", [-0.5, -0.1, 0.0, 0.3, 1.0])
def test_on_policy_it_is_dft_for_any_beta(beta: float) -> None:
    """kappa = 1: gradient (1 - beta) times that of -sg[pi(x)] log pi(x); beta = 1 teaches nothing."""
    logits, target = position(1, 6)
    ours = grad(exact(OneToken(beta=beta, kappa=1.0), logits, target), logits)
    log_prob = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    dft, _ = method("sft", weight="probability", reduction="token-sum").loss(
        Evaluation(log_prob=log_prob[:, None]), Decisions(mask=torch.ones(6, 1, dtype=torch.bool))
    )
    assert torch.allclose(ours, (1 - beta) * grad(dft, logits), atol=1e-12)


def test_off_policy_beta_is_more_than_a_factor() -> None:
    logits, target = position(1, 6)
    ours, other = (grad(exact(OneToken(beta=beta, kappa=1.3), logits, target), logits) for beta in (0.0, -0.5))
    factor = float(other.norm() / ours.norm())
    assert not torch.allclose(other, factor * ours, atol=1e-3)


def test_forced_on_the_truth_it_is_supervised_fine_tuning() -> None:
    logits, target = position(2, 6)
    shares = torch.nn.functional.one_hot(target, V).double()
    ours = OneToken(beta=-0.1).loss(logits, target, shares)
    assert torch.allclose(ours, torch.nn.functional.cross_entropy(logits, target, reduction="none"), atol=1e-12)


def test_beta_zero_on_policy_is_dft_in_value_too() -> None:
    logits, target = position(3, 6)
    log_prob = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(
        exact(OneToken(beta=0.0, kappa=1.0), logits, target), -log_prob.detach().exp() * log_prob, atol=1e-12
    )


@pytest.mark.parametrize(("kappa", "beta"), [(1.0, -0.1), (1.3, -0.1), (0.5, 0.7)])
def test_the_closed_form_of_the_gradient(kappa: float, beta: float) -> None:
    """dL/dz_j = -(pi'(j) R(j) - pi(j) sum_a pi'(a) R(a)), by autograd and by finite differences of -sum c R log pi."""
    logits, target = position(4)
    part = OneToken(beta=beta, kappa=kappa)
    sampler, policy = (logits.detach() / kappa).softmax(-1), logits.detach().softmax(-1)
    reward = torch.where(torch.arange(V) == target, 1.0, beta).double()
    closed = -(sampler * reward - policy * (sampler * reward).sum())
    assert torch.allclose(grad(exact(part, logits, target), logits), closed, atol=1e-12)
    for place in range(V):
        bump = 1e-6 * torch.nn.functional.one_hot(torch.tensor([place]), V)
        ends = [float(part.loss(logits.detach() + sign * bump, target, sampler)) for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(closed[0, place]), abs=1e-8)


def test_counts_are_the_sample_form() -> None:
    """The mean of -R log pi over the K drawn tokens, in any order."""
    logits, target = position(5, 4)
    part, samples = OneToken(7, -0.1, 1.3), 7
    shares = draw_shares(logits, keys(4), samples, 1.3)
    assert torch.allclose(shares.sum(1), torch.ones(4).double())
    log_policy = logits.log_softmax(-1)
    for row in range(4):
        drawn = torch.repeat_interleave(torch.arange(V), (shares[row] * samples).round().long())
        for order in (torch.arange(samples), torch.arange(samples).flip(0)):
            rewards = [1.0 if int(token) == int(target[row]) else -0.1 for token in drawn[order]]
            by_sample = sum(-r * log_policy[row, t] for r, t in zip(rewards, drawn[order], strict=True)) / samples
            assert torch.allclose(part.loss(logits, target, shares)[row], by_sample, atol=1e-12)


def test_a_golden_number() -> None:
    """pi = (1/2, 1/4, 1/4); 4 draws: 1 on the true token 0, 3 on token 1: (ln 2 + 3 * (-0.1) * ln 4) / 4."""
    logits = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64).log()
    loss = OneToken(beta=-0.1).loss(logits, torch.tensor([0]), torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64))
    assert float(loss) == pytest.approx(0.6931471805599453 * (1 - 0.6) / 4, abs=1e-14)


def test_no_gradient_through_sampling_and_none_where_the_policy_is_sure() -> None:
    logits, _ = position(6, 3)
    assert not draw_shares(logits, keys(3), 8, 1.3).requires_grad
    sure = torch.full((2, V), -torch.inf, dtype=torch.float64)
    sure[:, 2] = 0.0
    sure.requires_grad_()
    for estimator in ("sampled", "exact"):
        found = OneToken(8, -0.1, 1.3, estimator).bandit(sure, torch.tensor([2, 2]), keys(2))  # type: ignore[arg-type]
        assert float(found["one_token"].detach().abs().max()) == 0.0 and float(found["one_token_hits"].min()) == 1.0
    soft = torch.tensor([[60.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert float(grad(exact(OneToken(), soft, torch.tensor([0])), soft).abs().max()) < 1e-12


def test_draws_are_named_by_what_they_are_for() -> None:
    part = OneToken(4)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    rows = Decisions(mask=mask, key=torch.tensor([7, 9]))
    first = part.annotate(rows, part.start())["one_token_key"]
    assert len(first[mask].unique()) == 4
    swapped = part.annotate(rows.rows(torch.tensor([1, 0])), part.start())["one_token_key"]
    assert torch.equal(swapped.flip(0)[mask], first[mask])
    later = part.annotate(rows, part.after(rows, {}, part.start()))["one_token_key"]
    assert not bool((later[mask] == first[mask]).any())
    assert not torch.equal(OneToken(4, seed=1).annotate(rows, part.start())["one_token_key"], first)


def test_small_probabilities_are_drawn_in_double_precision() -> None:
    """Of half-precision logits a token of chance 1e-4 still comes, about as often as it should."""
    logits = torch.zeros(64, 3)
    logits[:, 0] = 9.2
    shares = draw_shares(logits.bfloat16().float(), keys(64), 4096, 1.0)
    expected = float(logits[0].bfloat16().double().softmax(-1)[1])
    assert float(shares[:, 1].double().mean()) == pytest.approx(expected, rel=0.5)


@pytest.mark.parametrize("reduction", ["seq-mean-token-mean", "token-mean"])
def test_averages(reduction: str) -> None:
    """Two demonstrations of 1 and 3 tokens: the paper divides by each one's length first."""
    values = torch.tensor([[2.0, 0.0, 0.0], [1.0, 3.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, False], [True, True, True]])
    evaluation = Evaluation(log_prob=-values, probes={"one_token": values, "one_token_hits": values / 10})
    rows = Decisions(mask=mask, action=torch.zeros(2, 3, dtype=torch.int64))
    loss, metrics = method("otr", reduction=reduction).loss(evaluation, rows)
    assert float(loss) == pytest.approx(2.5 if reduction == "seq-mean-token-mean" else 11 / 4)
    assert float(metrics["hits"]) == pytest.approx(1.1 / 4) and float(metrics["hit_positions"]) == pytest.approx(1.0)


def test_state_travels_with_the_method() -> None:
    built = method("otr")
    state = built.start()
    assert isinstance(state, MethodState)
    evaluation, decisions = built.example(4, 3)
    after = built.after(decisions, {}, state)
    path = next(path for path, part in built.parts.items() if isinstance(part, OneToken))
    assert int(after.parts[path]["updates"]) == 1 and evaluation.log_prob.shape == (4, 3)


@pytest.mark.parametrize(("name", "value"), [("beta", 1.5), ("samples", 0), ("kappa", 0.0)])
def test_what_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        method("otr", **{name: value})
