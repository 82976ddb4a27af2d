"""KDRL: estimators by enumeration, masks, schedules, and what joint, single and sequential objectives are."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.divergences import Divergence, WholeDivergence, estimate
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState
from ascent.core.plan import Falling, Switch
from ascent.core.registry import method
from ascent.core.selectors import Failed
from ascent.core.surrogates import Ratio
from ascent.core.term import Term

ACTIONS = 5


def policies(seed: int = 0, apart: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits [5] with gradient, and a teacher's log-probs."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(ACTIONS, generator=draw, dtype=torch.float64)
    teacher = logits + apart * torch.randn(ACTIONS, generator=draw, dtype=torch.float64)
    return logits.requires_grad_(), teacher.log_softmax(0)


def kl(first: Tensor, second: Tensor) -> Tensor:
    return (first.exp() * (first - second)).sum()


def slope(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_estimators_enumerated(seed: int) -> None:
    """E[grad k2] is the reverse KL's gradient, E[grad k3] the forward KL's, E[grad k1] nothing."""
    logits, teacher = policies(seed)
    log_probs = logits.log_softmax(0)
    chance = log_probs.detach().exp()
    expected = {kind: slope((chance * estimate(log_probs, teacher, kind)).sum(), logits) for kind in ("k1", "k2", "k3")}
    assert torch.allclose(expected["k2"], slope(kl(log_probs, teacher), logits), atol=1e-12)
    assert torch.allclose(expected["k3"], slope(kl(teacher, log_probs), logits), atol=1e-12)
    assert torch.allclose(expected["k1"], torch.zeros(ACTIONS, dtype=torch.float64), atol=1e-12)
    # The three differ, so the equalities above say something.
    assert float((expected["k2"] - expected["k3"]).abs().max()) > 0.02
    values = {kind: (chance * estimate(log_probs, teacher, kind)).sum().detach() for kind in ("k1", "k3")}
    for value in values.values():
        assert torch.allclose(value, kl(log_probs, teacher).detach(), atol=1e-12)


def test_k2_equals_the_divergence_to_second_order() -> None:
    errors = []
    for apart in (1e-2, 5e-3):
        logits, teacher = policies(0, apart)
        log_probs = logits.log_softmax(0).detach()
        errors.append(abs(float((log_probs.exp() * estimate(log_probs, teacher, "k2")).sum() - kl(log_probs, teacher))))
    assert errors[0] < 1e-5 and errors[1] == pytest.approx(errors[0] / 8, rel=0.1), "the error is of third order"


def listed(teacher_seed: int = 0) -> tuple[Tensor, Evaluation, Decisions]:
    """Every action of one context as a row, weighted to be a sample of the policy by repetition: counts / 16."""
    counts = torch.tensor([1, 2, 3, 4, 6])
    logits = (counts / 16).double().log().requires_grad_()
    action = torch.repeat_interleave(torch.arange(ACTIONS), counts)[:, None]
    log_probs = logits.log_softmax(0)
    teacher = policies(teacher_seed)[1]
    reward = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64)[action]
    decisions = Decisions(
        mask=torch.ones(16, 1, dtype=torch.bool),
        action=action,
        reward=reward,
        group=torch.zeros(16, dtype=torch.int64),
        old_log_prob=log_probs[action].detach(),
        extras={"teacher_log_prob": teacher[action], "teacher_distribution": teacher.expand(16, 1, -1)},
    )
    now = Evaluation(log_prob=log_probs[action], outputs=logits.expand(16, 1, -1))
    return logits, now, decisions


def gradient(built: Method, now: Evaluation, decisions: Decisions, logits: Tensor, step: int = 0) -> Tensor:
    state = MethodState(built.start().parts, Clock(step))
    loss, _ = built.loss(now, built.credit(decisions, state), state)
    return slope(loss, logits)


@pytest.mark.parametrize("beta", [0.0, 5e-3, 0.7])
def test_the_joint_gradient_is_the_sum_and_that_of_the_token_advantage(beta: float) -> None:
    logits, now, decisions = listed()
    built = method("kdrl", kd_coefficient=beta, schedule="constant")
    found = gradient(built, now, decisions, logits)
    reward = gradient(method("kdrl", objective="rl"), now, decisions, logits)
    log_probs = logits.log_softmax(0)
    teacher = decisions.extras["teacher_distribution"][0, 0]
    assert torch.allclose(found, reward + beta * slope(kl(log_probs, teacher), logits), atol=1e-12)
    credited = built.credit(decisions)
    log_ratio = (credited.extras["teacher_log_prob"] - now.log_prob).detach()
    shaped = credited.replace(advantage=credited.advantage + beta * log_ratio)
    surrogate = Method("surrogate", {"policy": Term(Ratio())})
    assert torch.allclose(found, slope(surrogate.loss(now, shaped)[0], logits), atol=1e-12)
    # Never the joint branch that adds k1 as a loss: its distillation is zero in expectation.
    noisy = gradient(method("kdrl", kd_coefficient=beta, schedule="constant", estimator="k1"), now, decisions, logits)
    assert torch.allclose(noisy, reward, atol=1e-12)
    assert beta == 0.0 or float((found - noisy).abs().max()) > 1e-4


@pytest.mark.parametrize("estimator", ["exact", "top_k"])
def test_the_exact_estimators(estimator: str) -> None:
    logits, now, decisions = listed()
    found = gradient(method("kdrl", objective="kd", estimator=estimator), now, decisions, logits)
    k2 = gradient(method("kdrl", objective="kd"), now, decisions, logits)
    assert torch.allclose(found, k2, atol=1e-12), "of five actions the top eight are all"
    two = WholeDivergence("teacher", top=2)(now, decisions).detach()
    log_probs, teacher = logits.log_softmax(0).detach(), decisions.extras["teacher_distribution"][0, 0]
    assert float(two[0, 0]) == pytest.approx(float((log_probs.exp() * (log_probs - teacher))[3:].sum()), abs=1e-12)


def test_special_settings() -> None:
    logits, now, decisions = listed()
    plain = gradient(method("grpo", kl_coefficient=0.0, reduction="token-mean"), now, decisions, logits)
    assert torch.allclose(gradient(method("kdrl", kd_coefficient=0.0), now, decisions, logits), plain, atol=1e-12)
    assert torch.allclose(gradient(method("kdrl", objective="rl"), now, decisions, logits), plain, atol=1e-12)
    assert "teacher_log_prob" not in method("kdrl", objective="rl").needs
    # A constant reward leaves distillation alone.
    even = decisions.replace(reward=torch.ones_like(decisions.reward))
    joint = gradient(method("kdrl", schedule="constant", kd_coefficient=0.3), now, even, logits)
    assert torch.allclose(joint, 0.3 * gradient(method("kdrl", objective="kd"), now, even, logits), atol=1e-12)
    # A teacher that is the student teaches nothing.
    same = decisions.with_extras({"teacher_log_prob": now.log_prob.detach()})
    assert bool((gradient(method("kdrl", objective="kd"), now, same, logits) == 0).all())


def test_a_golden_loss_worked_by_hand() -> None:
    """Two responses of one token, A = +-1/sqrt(2), R = 0.2 and -0.4, beta 0.5."""
    decisions = Decisions(
        mask=torch.ones(2, 1, dtype=torch.bool),
        reward=torch.tensor([[1.0], [0.0]], dtype=torch.float64),
        group=torch.zeros(2, dtype=torch.int64),
        old_log_prob=torch.full((2, 1), -1.0, dtype=torch.float64),
        extras={"teacher_log_prob": torch.tensor([[-0.8], [-1.4]], dtype=torch.float64)},
    )
    now = Evaluation(log_prob=torch.full((2, 1), -1.0, dtype=torch.float64, requires_grad=True))
    for mask, norm, teacher in (
        ("none", "kept", (0.02 + 0.08) / 2),
        ("response", "kept", 0.08),
        ("response", "all", 0.08 / 2),
        ("group", "kept", 0.0),
    ):
        built = method("kdrl", schedule="constant", kd_coefficient=0.5, mask=mask, mask_norm=norm, eps=0.0)
        loss, metrics = built.loss(now, decisions)
        # The policy term is -(A_1 + A_2) / 2 = 0.
        assert float(loss.detach()) == pytest.approx(0.5 * teacher, abs=1e-12), (mask, norm)
        assert float(metrics["loss/policy"]) == pytest.approx(0.0, abs=1e-12)


def test_masks() -> None:
    mask = torch.ones(6, 2, dtype=torch.bool)
    mask[5] = False
    reward = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0])[:, None] * torch.tensor([0.0, 1.0])
    decisions = Decisions(mask=mask, reward=reward, group=torch.tensor([0, 0, 1, 1, 2, 2]))
    assert Failed("row")(None, decisions)[:, 0].tolist() == [False, True, True, True, True, False]
    assert Failed("group")(None, decisions)[:, 0].tolist() == [False, False, True, True, True, False]
    built = method("kdrl", mask="group")
    evaluation, made = built.example(8, 4, 0, torch.float64)
    credited = built.credit(made)
    failed = credited.extras["failed_group"]
    # Decided on the collection: a part of a group's rows still knows of the other rows' success.
    assert torch.equal(Failed("group")(None, credited.rows(slice(0, 3)))[:, 0], failed[:3] & credited.mask[:3, 0])
    everything = torch.where(Failed("group")(None, decisions), 1, 0) + torch.where(
        ~Failed("group")(None, decisions), 1, 0
    )
    assert bool((everything == 1).all())
    # No failure at all: nothing is distilled, and nothing is divided by zero.
    right = credited.replace(reward=torch.ones_like(credited.reward)).with_extras({"failed_group": failed & False})
    _, metrics = built.loss(evaluation, right)
    assert float(metrics["loss/teacher"]) == 0.0 and bool(torch.isfinite(metrics["loss"]))


def test_schedules() -> None:
    beta = method("kdrl").losses["teacher"].coefficient
    assert isinstance(beta, Falling)
    assert [beta.at(Clock(step)) for step in (0, 1, 40, 80, 81, 1000)] == pytest.approx(
        [5e-3, 4.95e-3, 3e-3, 1e-3, 1e-3, 1e-3]
    )
    losses = method("kdrl", objective="sequential", switch=0.3).losses
    for progress, of_reward, of_teacher in ((0.0, 0.0, 1.0), (0.29, 0.0, 1.0), (0.3, 1.0, 0.0), (1.0, 1.0, 0.0)):
        clock = Clock(7, progress)
        weights = [losses[name].coefficient for name in ("policy", "teacher")]
        assert all(isinstance(weight, Switch) for weight in weights)
        assert [weight.at(clock) for weight in weights if isinstance(weight, Switch)] == [of_reward, of_teacher]


def test_the_schedule_scales_the_loss() -> None:
    logits, now, decisions = listed()
    even = decisions.replace(reward=torch.zeros_like(decisions.reward))
    first, later = (gradient(method("kdrl"), now, even, logits, step) for step in (0, 80))
    assert torch.allclose(first, 5.0 * later, atol=1e-14) and bool(first.any())


def test_the_teacher_gets_no_gradient() -> None:
    _, now, decisions = listed()
    teacher = decisions.extras["teacher_log_prob"].clone().requires_grad_()
    built = method("kdrl")
    loss, _ = built.loss(now, built.credit(decisions.with_extras({"teacher_log_prob": teacher.detach()})))
    loss.backward()
    assert teacher.grad is None


def test_limited_log_ratios() -> None:
    now = Evaluation(log_prob=torch.tensor([[-1.0, -1.0]], dtype=torch.float64, requires_grad=True))
    decisions = Decisions(
        mask=torch.ones(1, 2, dtype=torch.bool),
        extras={"teacher_log_prob": torch.tensor([[-31.0, -2.0]], dtype=torch.float64)},
    )
    value = Divergence("k2", "teacher", limit=20.0)(now, decisions)
    assert value.tolist() == [[200.0, 0.5]]
    value.sum().backward()
    assert now.log_prob.grad.tolist() == [[0.0, 1.0]]


def test_reward_shaping_is_another_algorithm() -> None:
    logits, now, decisions = listed()
    shaped = gradient(method("kdrl", objective="rl", reward_shaping=0.5), now, decisions, logits)
    joint = gradient(method("kdrl", schedule="constant", kd_coefficient=0.5), now, decisions, logits)
    assert "teacher_log_prob" in method("kdrl", objective="rl", reward_shaping=0.5).needs
    assert float((shaped - joint).abs().max()) > 1e-3


def test_it_combines_with_parts_of_other_papers() -> None:
    built = method("forking_tokens", rho=0.5)
    teacher = method("kdrl", schedule="constant").losses["teacher"]
    both = built.with_terms(teacher=dataclasses.replace(teacher, keep=built.losses["policy"].keep))
    evaluation, decisions = both.example(8, 6, 0, torch.float64)
    loss, metrics = both.loss(evaluation, decisions)
    loss.backward()
    assert {"loss/policy", "loss/teacher"} <= set(metrics) and bool(evaluation.log_prob.grad.any())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="teacher must be 'embedded', a folder or a hub id; got ''"):
        method("kdrl", teacher="")
    with pytest.raises(ValueError, match=r"kd_least must be <= kd_coefficient=0\.005; got 0\.1"):
        method("kdrl", kd_least=0.1)
    with pytest.raises(ValueError, match=r"switch must be a number in \(0, 1\)"):
        method("kdrl", switch=1.0)
    with pytest.raises(ValueError, match="teacher_hidden must be a multiple of 8"):
        method("kdrl", teacher_hidden=50)
    with pytest.raises(ValueError, match="ratio_limit must be a number"):
        method("kdrl", ratio_limit=0.0)
