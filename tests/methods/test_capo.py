"""CAPO: what is rejected, what is left of the base method, and the state of its step model."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from ascent.core.curvature import AdamModel, Moments, mean_gradient, residual
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState
from ascent.core.plan import Adam, Linear
from ascent.core.registry import method
from ascent.core.trust_region import TrustRegion
from ascent.methods.capo import mirrored

TIGHT = {"objective_threshold": math.inf, "policy_threshold": 0.02, "learning_rate": 0.02}
"""Thresholds that reject some of the example's decisions."""
OPEN = {"objective_threshold": math.inf, "policy_threshold": math.inf}
PATH = "losses.policy.keep"


def sample(built: Method, seed: int = 0) -> tuple[Evaluation, Decisions]:
    evaluation, decisions = built.example(12, 7, seed, torch.float64)
    decisions = decisions.replace(action=decisions.action % 3)
    return evaluation, built.credit(decisions)


def gradient(built: Method, evaluation: Evaluation, decisions: Decisions) -> tuple[Tensor, Tensor]:
    log_prob = evaluation.log_prob.detach().clone().requires_grad_()
    now = Evaluation(log_prob=log_prob, outputs=evaluation.outputs, features=evaluation.features)
    loss, _ = built.loss(now, built.prepare(decisions, now))
    loss.backward()
    assert evaluation.outputs.grad is None and evaluation.features.grad is None, "no graph through the mask"
    return loss.detach(), log_prob.grad


def accepted(built: Method, evaluation: Evaluation, decisions: Decisions) -> Tensor:
    return built.prepare(decisions, evaluation).extras["curvature_accepted"]


BASES = {
    "grpo": ("grpo", {"kl_coefficient": 0.0, "eps": 1e-4}),
    "dr_grpo": ("dr_grpo", {}),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("model", ["adam", "sgd"])
def test_open_thresholds_are_the_base_method(base: str, model: str) -> None:
    built = method("capo", base=base, model=model, **OPEN)
    evaluation, decisions = sample(built)
    slug, parameters = BASES[base]
    plain = method(slug, **parameters)
    assert torch.allclose(built.credit(decisions).advantage, plain.credit(decisions).advantage, atol=1e-14)
    loss, grad = gradient(built, evaluation, decisions)
    log_prob = evaluation.log_prob.detach().clone().requires_grad_()
    expected, _ = plain.loss(Evaluation(log_prob=log_prob), decisions)
    expected.backward()
    assert torch.allclose(loss, expected.detach(), atol=1e-14) and torch.allclose(grad, log_prob.grad, atol=1e-14)


def test_reinforce_has_no_baseline() -> None:
    built = method("capo", base="reinforce", **OPEN)
    _, decisions = sample(built)
    total = torch.where(decisions.mask, decisions.reward, 0.0).sum(1, keepdim=True)
    assert torch.allclose(decisions.advantage, total * decisions.mask, atol=1e-14)


def test_a_golden_token_worked_by_hand() -> None:
    """Two actions of chance 1/2, h = (1), A = 1, SGD at rate 0.4: u = (1/2, -1/2), s = 1/2, u^T F u = 1/4.

    m_F = 1/2 (0.4 / 2)^2 = 0.02;  m_H = 0.2 + 1/2 (0.04 - 0.16 / 4) = 0.2.
    """
    decisions = Decisions(
        mask=torch.ones(1, 1, dtype=torch.bool),
        action=torch.zeros(1, 1, dtype=torch.int64),
        advantage=torch.ones(1, 1, dtype=torch.float64),
    )
    now = Evaluation(
        outputs=torch.zeros(1, 1, 2, dtype=torch.float64), features=torch.ones(1, 1, 1, dtype=torch.float64)
    )
    region = TrustRegion(model="sgd", learning_rate=0.4, objective=math.inf, policy=math.inf)
    columns = region.prepare(decisions, now, region.start())
    assert float(columns["curvature_policy"]) == pytest.approx(0.02, abs=1e-14)
    assert float(columns["curvature_objective"]) == pytest.approx(0.2, abs=1e-14)
    for changes, kept in (
        ({"policy": 0.021}, True),
        ({"policy": 0.02}, False),  # strict
        ({"objective": 0.21}, True),
        ({"objective": 0.2}, False),
    ):
        changed = dataclasses.replace(region, **changes)
        assert bool(changed.prepare(decisions, now, region.start())["curvature_accepted"]) is kept, changes
    # At half the temperature the state that made the logits counts twice: m_F times 16.
    warm = dataclasses.replace(region, temperature=0.5)
    assert float(warm.prepare(decisions, now, region.start())["curvature_policy"]) == pytest.approx(0.32, abs=1e-13)


@pytest.mark.parametrize("parameters", [{}, {"model": "sgd"}, {"fisher": "expected"}, {"symmetric": False}])
def test_what_is_rejected(parameters: dict[str, object]) -> None:
    free = method("capo", **OPEN, learning_rate=0.05, **parameters)
    evaluation, decisions = sample(free)
    open_ = free.prepare(decisions, evaluation)
    objective, policy, mask = open_.extras["curvature_objective"], open_.extras["curvature_policy"], decisions.mask
    assert bool((policy[mask] >= 0).all())
    low = 0.0 if parameters.get("symmetric") is False else -math.inf
    assert torch.equal(open_.extras["curvature_accepted"], mask & (objective >= low))
    limit = float(policy[mask].median()), float(objective[mask].abs().median())
    built = method("capo", learning_rate=0.05, policy_threshold=limit[0], objective_threshold=limit[1], **parameters)
    wanted = mask & (policy < limit[0]) & (objective < limit[1])
    wanted &= objective >= 0 if parameters.get("symmetric") is False else objective > -limit[1]
    kept = accepted(built, evaluation, decisions)
    assert torch.equal(kept, wanted) and bool(kept.any()) and bool((mask & ~kept).any())
    _, grad = gradient(built, evaluation, decisions)
    assert bool((grad[~kept] == 0).all())


def test_zero_advantage_is_never_rejected() -> None:
    built = method("capo", policy_threshold=1e-300, objective_threshold=1e-300)
    for symmetric in (True, False):
        tight = method("capo", policy_threshold=1e-300, objective_threshold=1e-300, symmetric=symmetric)
        evaluation, decisions = sample(built)
        half = decisions.replace(advantage=torch.where(decisions.group[:, None] == 0, 0.0, decisions.advantage))
        kept = accepted(tight, evaluation, half)
        assert torch.equal(kept, half.mask & (half.advantage == 0))


def test_all_rejected_is_no_gradient() -> None:
    built = method("capo", policy_threshold=1e-300)
    evaluation, decisions = sample(built)
    loss, grad = gradient(built, evaluation, decisions)
    assert float(loss) == 0.0 and not bool(grad.any())


def test_the_control_rejects_as_many() -> None:
    evaluation, decisions = sample(method("capo"))
    own, other = (
        accepted(method("capo", control=control, **TIGHT), evaluation, decisions) for control in (False, True)
    )
    assert 0 < int(own.sum()) < int(decisions.mask.sum())
    assert own.sum() == other.sum() and not torch.equal(own, other) and bool((decisions.mask | ~other).all())


def test_rejection_changes_the_denominators() -> None:
    """Each row's mean is over its accepted tokens, the mean over rows with any."""
    built = method("capo", **TIGHT)
    evaluation, decisions = sample(built)
    kept = accepted(built, evaluation, decisions)
    weights = built.prepare(decisions, evaluation).extras["weight:policy"]
    count = kept.sum(1)
    assert bool(kept.any()) and bool((decisions.mask & ~kept).any())
    rows = int((count > 0).sum())
    assert torch.allclose(weights[kept], (1.0 / (count.clamp(min=1) * rows))[:, None].expand_as(kept)[kept].double())


def stepped(built: Method, evaluation: Evaluation, decisions: Decisions, state: MethodState) -> MethodState:
    return built.after(built.prepare(decisions, evaluation, state), {}, state)


def test_the_moments_take_the_mean_of_the_accepted_once_an_update() -> None:
    built = method("capo", **TIGHT, beta1=0.8, beta2=0.9)
    evaluation, decisions = sample(built)
    kept = accepted(built, evaluation, decisions)
    state = stepped(built, evaluation, decisions, built.start())
    _, u = residual(evaluation.outputs.detach()[kept], decisions.action[kept])
    mean = mean_gradient(u, evaluation.features.detach()[kept], decisions.advantage[kept])
    own = state.parts[PATH]
    assert torch.allclose(own["first"], 0.2 * mean) and torch.allclose(own["second"], 0.1 * mean.square())
    assert int(own["step"]) == 1 and int(own["seen"]) == int(decisions.mask.sum())
    assert int(own["refused"]) == int((decisions.mask & ~kept).sum())
    # The next update is judged with these moments.
    again = built.prepare(decisions, evaluation, state).extras["curvature_policy"]
    assert not torch.allclose(again, built.prepare(decisions, evaluation).extras["curvature_policy"])
    direct = AdamModel((0.8, 0.9)).shifts(
        *reversed(residual(evaluation.outputs.detach()[decisions.mask], decisions.action[decisions.mask])),
        evaluation.features.detach()[decisions.mask],
        decisions.advantage[decisions.mask],
        0.02,
        Moments(own["first"], own["second"], 1),
    )
    assert torch.allclose(again[decisions.mask], direct.policy, atol=1e-12)
    budget = built.loss(evaluation, built.prepare(decisions, evaluation, state))[1]["rejected_so_far"]
    later = stepped(built, evaluation, decisions, state).parts[PATH]
    assert float(budget) == pytest.approx(float(later["refused"] / later["seen"]))


def test_the_learning_rate_is_that_of_the_update() -> None:
    fixed = method("capo", **OPEN, learning_rate=0.1, model="sgd", warmup=4)
    evaluation, decisions = sample(fixed)
    first = fixed.prepare(decisions, evaluation).extras["curvature_policy"]
    state = stepped(fixed, evaluation, decisions, fixed.start())
    second = fixed.prepare(decisions, evaluation, state).extras["curvature_policy"]
    assert torch.allclose(second, 4.0 * first, atol=1e-14), "rate 0.05 after 0.025"
    falling = mirrored(fixed.replace(step=Adam(Linear(0.2, 0.0))), 1.0)
    at_half = falling.prepare(decisions, evaluation, MethodState(falling.start().parts, Clock(3, 0.5)))
    plain = mirrored(fixed.replace(step=Adam(0.1)), 1.0).prepare(decisions, evaluation)
    assert torch.allclose(at_half.extras["curvature_policy"], plain.extras["curvature_policy"], atol=1e-14)


def test_mirrored_takes_over_optimiser_and_temperature() -> None:
    step = Adam(3e-3, betas=(0.5, 0.6), eps=1e-5, warmup=7)
    region = mirrored(method("capo").replace(step=step), 0.7).losses["policy"].keep
    assert isinstance(region, TrustRegion)
    assert (region.learning_rate, region.warmup, region.temperature) == (3e-3, 7, 0.7)
    assert region.adam == AdamModel((0.5, 0.6), 1e-5)


def test_what_is_logged() -> None:
    built = method("capo", **TIGHT)
    evaluation, decisions = sample(built)
    _, metrics = built.loss(evaluation, decisions)
    kept, mask = accepted(built, evaluation, decisions), decisions.mask
    assert float(metrics["rejected"]) == pytest.approx(1 - float(kept.sum() / mask.sum()))
    assert float(metrics["rejected"]) == pytest.approx(float(metrics["rejected_so_far"]))
    policy = built.prepare(decisions, evaluation).extras["curvature_policy"][mask]
    assert float(metrics["curvature_policy"]) == pytest.approx(float(policy.mean()))
    assert float(metrics["curvature_policy_max"]) == pytest.approx(float(policy.max()))
    assert float(metrics["curvature_policy_accepted"]) < float(metrics["curvature_policy_max"])
    assert float(metrics["curvature_policy_q95"]) <= float(metrics["curvature_policy_max"])


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"policy_threshold must be a number in \(0, inf\]; got 0\. Calibrate it"):
        method("capo", policy_threshold=0)
    with pytest.raises(ValueError, match="base must be one of"):
        method("capo", base="ppo")
    with pytest.raises(ValueError, match=r"beta2 must be a number in \[0, 1\)"):
        method("capo", beta2=1.0)
    with pytest.raises(ValueError, match="top_k must be an integer >= 0"):
        method("capo", top_k=-1)
