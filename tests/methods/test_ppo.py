"""PPO: golden clip values, the ratio when the bounds are open, clipped critic, gradients by finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Clock, MethodState
from ascent.core.plan import Stop
from ascent.core.registry import method

RATIO = [0.5, 0.9, 1.1, 1.5]


def batch(advantage: float) -> Decisions:
    return Decisions(
        mask=torch.ones(1, 4, dtype=torch.bool),
        advantage=torch.full((1, 4), advantage, dtype=torch.float64),
        old_log_prob=torch.full((1, 4), -2.0, dtype=torch.float64),
        value=torch.zeros(1, 4, dtype=torch.float64),
        value_target=torch.zeros(1, 4, dtype=torch.float64),
        reward=torch.zeros(1, 4, dtype=torch.float64),
        next_value=torch.zeros(1, 4, dtype=torch.float64),
        terminated=torch.zeros(1, 4, dtype=torch.bool),
        truncated=torch.zeros(1, 4, dtype=torch.bool),
    )


def now(value: float = 0.0) -> Evaluation:
    log_prob = torch.tensor([[math.log(r) - 2.0 for r in RATIO]], dtype=torch.float64, requires_grad=True)
    return Evaluation(log_prob=log_prob, value=torch.full((1, 4), value, dtype=torch.float64))


@pytest.mark.parametrize(
    ("advantage", "total", "gradient"),
    [(1.0, 0.5 + 0.9 + 1.1 + 1.2, [1, 1, 1, 0]), (-1.0, -(0.8 + 0.9 + 1.1 + 1.5), [0, 1, 1, 1])],
)
def test_clip_by_hand(advantage: float, total: float, gradient: list[int]) -> None:
    evaluation = now()
    loss, metrics = method("ppo", normalise=False).loss(evaluation, batch(advantage))
    assert torch.allclose(loss, torch.tensor(-total / 4, dtype=torch.float64))
    loss.backward()
    expected = torch.tensor(
        [[-advantage * r * g / 4 for r, g in zip(RATIO, gradient, strict=True)]], dtype=torch.float64
    )
    assert evaluation.log_prob.grad is not None
    assert torch.allclose(evaluation.log_prob.grad, expected)
    assert float(metrics["clip_fraction"]) == 0.25


def test_open_bounds_are_the_ratio() -> None:
    loss, _ = method("ppo", normalise=False, clip_low=math.inf, clip_high=math.inf).loss(now(), batch(2.0))
    assert torch.allclose(loss, torch.tensor(-2.0 * sum(RATIO) / 4, dtype=torch.float64))


def test_clipped_critic_takes_the_larger_loss() -> None:
    """The critic moved from 0 to 1, target 0.9: the plain error 0.1 is smaller than the clipped one 0.7."""
    decisions = batch(0.0).replace(value_target=torch.full((1, 4), 0.9, dtype=torch.float64))
    plain, _ = method("ppo", normalise=False, value_coefficient=1.0).loss(now(1.0), decisions)
    clipped, _ = method("ppo", normalise=False, value_coefficient=1.0, value_clip=0.2).loss(now(1.0), decisions)
    assert torch.allclose(plain, torch.tensor(0.5 * 0.01, dtype=torch.float64))
    assert torch.allclose(clipped, torch.tensor(0.5 * 0.49, dtype=torch.float64))


def test_advantages_are_standardised_within_the_update() -> None:
    evaluation, decisions = method("ppo").example(4, 5, 0, torch.float64)
    prepared = method("ppo").prepare(method("ppo").credit(decisions), evaluation)
    inside = prepared.advantage[prepared.mask]
    assert torch.allclose(inside.mean(), torch.zeros((), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(inside.std(), torch.ones((), dtype=torch.float64), atol=1e-6)


def test_early_stop_is_data() -> None:
    assert method("ppo", target_kl=0.03).plan.stop == Stop("approximate_kl", 0.03, "after")
    assert method("ppo").plan.stop is None
    _, metrics = method("ppo", normalise=False).loss(now(), batch(1.0))
    k3 = sum(r - 1 - math.log(r) for r in RATIO) / 4
    assert torch.allclose(metrics["approximate_kl"], torch.tensor(k3, dtype=torch.float64))


def test_gradient_by_finite_differences() -> None:
    built = method("ppo", entropy_coefficient=0.1, value_clip=0.3)
    evaluation, decisions = built.example(4, 3, 1, torch.float64)
    decisions = built.credit(decisions)
    names = ("log_prob", "value", "entropy")

    def loss(*columns: Tensor) -> Tensor:
        return built.loss(Evaluation(**dict(zip(names, columns, strict=True))), decisions)[0]

    columns = tuple(evaluation.column(name).detach().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(loss, columns, eps=1e-7, atol=1e-6)


def test_annealed_clip_range_falls_with_the_clock_to_the_plain_bound():
    """At half of the run a range of 0.4 is 0.2; at the end every ratio that moved the good way is cut."""
    decisions = batch(1.5)
    annealed = method("ppo", normalise=False, anneal="both", clip_low=0.4, clip_high=0.4)
    state = annealed.start()
    for progress, bound in ((0.0, 0.4), (0.5, 0.2), (0.75, 0.1)):
        late = MethodState(state.parts, Clock(progress=progress))
        found, _ = annealed.loss(now(), decisions, late)
        wanted, _ = method("ppo", normalise=False, clip_low=bound, clip_high=bound).loss(now(), decisions)
        assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
