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
from ascent.core.term import Term
from ascent.core.trust_region import LOGGED, WIDER, TrustRegion
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
    with pytest.raises(ValueError, match=r"objective_floor must be < objective_threshold=0\.01; got 0\.01"):
        method("capo", objective_floor=0.01)
    with pytest.raises(ValueError, match="objective_floor must be <"):
        method("capo", objective_floor=math.nan)
    with pytest.raises(ValueError, match="control must be False with level='global'"):
        method("capo", level="global", control=True)
    with pytest.raises(ValueError, match="level must be one of"):
        method("capo", level="word")
    with pytest.raises(ValueError, match="penalty must be one of"):
        method("capo", penalty="both")


def of_rows(built: Method, evaluation: Evaluation, decisions: Decisions, kept: Tensor, rate: float) -> list[Tensor]:
    """m_H and m_F of each row's SGD step by loops, with the matrices: [rows] each, NaN where nothing is kept."""
    found = [[], []]
    for row in range(len(decisions)):
        gradients, tokens = [], torch.nonzero(kept[row])[:, 0].tolist()
        for t in tokens:
            logits, hidden = evaluation.outputs.detach()[row, t], evaluation.features.detach()[row, t]
            chance = logits.softmax(0)
            u = -chance
            u[decisions.action[row, t]] += 1.0
            gradients.append((decisions.advantage[row, t], u, hidden, chance))
        if not tokens:
            for numbers in found:
                numbers.append(torch.tensor(torch.nan, dtype=torch.float64))
            continue
        step = rate * sum(a * torch.outer(u, h) for a, u, h, _ in gradients) / len(gradients)
        objective, policy = 0.0, 0.0
        for a, u, h, chance in gradients:
            v = step @ h
            spread = (chance * v * v).sum() - (chance * v).sum() ** 2
            objective += a * (u @ v) + 0.5 * a * ((u @ v) ** 2 - spread)
            policy += 0.5 * (u @ v) ** 2
        found[0].append(objective / len(tokens))
        found[1].append(policy / len(tokens))
    return [torch.stack(numbers) for numbers in found]


SGD_OPEN = {"model": "sgd", "objective_threshold": math.inf, "learning_rate": 0.05}


def test_responses_are_judged_by_their_own_mean_step() -> None:
    evaluation, decisions = sample(method("capo", **SGD_OPEN, policy_threshold=math.inf))
    _, policy = of_rows(method("capo"), evaluation, decisions, decisions.mask, 0.05)
    limit = float(policy.nanmedian()) * 1.0001
    built = method("capo", **SGD_OPEN, policy_threshold=limit, level="sentence", diagnostics=True)
    kept = accepted(built, evaluation, decisions)
    assert torch.equal(kept, decisions.mask & (policy < limit)[:, None])
    assert bool(kept.any()) and bool((decisions.mask & ~kept).any())
    numbers = built.prepare(decisions, evaluation).extras["curvature_logged"][0, len(LOGGED) :]
    there = ~policy.isnan()
    assert float(numbers[WIDER.index("sentence_policy")]) == pytest.approx(float(policy[there].mean()))
    assert float(numbers[WIDER.index("sentence_policy_max")]) == pytest.approx(float(policy[there].max()))
    below = policy[there & (policy < limit)].mean()
    assert float(numbers[WIDER.index("sentence_policy_accepted")]) == pytest.approx(float(below))
    # As many responses at random, but others.
    other = accepted(built.replace(losses=controlled(built)), evaluation, decisions)
    assert int(other.any(1).sum()) == int(kept.any(1).sum()) and not torch.equal(other, kept)
    assert torch.equal(other, decisions.mask & other.any(1, keepdim=True))


def controlled(built: Method) -> dict[str, Term]:
    policy = built.losses["policy"]
    return {"policy": dataclasses.replace(policy, keep=dataclasses.replace(policy.keep, control=True))}


def test_the_update_is_judged_as_one() -> None:
    evaluation, decisions = sample(method("capo", **SGD_OPEN, policy_threshold=math.inf))
    mask = decisions.mask
    wide = method("capo", **SGD_OPEN, policy_threshold=math.inf, level="global", diagnostics=True)
    numbers = wide.prepare(decisions, evaluation).extras["curvature_logged"][0, len(LOGGED) :]
    shift = float(numbers[WIDER.index("global_policy")])
    for limit, expected in ((shift * 0.999, torch.zeros_like(mask)), (shift * 1.001, mask)):
        built = method("capo", **SGD_OPEN, policy_threshold=limit, level="global")
        assert torch.equal(accepted(built, evaluation, decisions), expected)


def test_a_response_of_one_token_is_judged_as_the_token() -> None:
    evaluation, decisions = sample(method("capo"))
    single = decisions.replace(mask=decisions.mask & (decisions.mask.cumsum(1) == 1))
    for model in ("adam", "sgd"):
        free = method("capo", **OPEN, model=model, learning_rate=0.05).prepare(single, evaluation)
        tight = {**TIGHT, "policy_threshold": float(free.extras["curvature_policy"][single.mask].median())}
        built = (
            method("capo", **{**tight, "learning_rate": 0.05}, model=model, level=x) for x in ("token", "sentence")
        )
        token, sentence = (accepted(each, evaluation, single) for each in built)
        assert torch.equal(token, sentence) and bool(token.any()) and bool((single.mask & ~token).any())


def test_in_turn_each_level_judges_what_is_left() -> None:
    free = method("capo", **SGD_OPEN, policy_threshold=math.inf)
    evaluation, decisions = sample(free)
    limit = float(free.prepare(decisions, evaluation).extras["curvature_policy"][decisions.mask].quantile(0.9))
    built = method("capo", **SGD_OPEN, policy_threshold=limit, level="sequential")
    token = accepted(method("capo", **SGD_OPEN, policy_threshold=limit), evaluation, decisions)
    _, policy = of_rows(built, evaluation, decisions, token, 0.05)
    wanted = token & (policy < limit)[:, None]
    left = decisions.replace(mask=wanted)
    whole = method("capo", **SGD_OPEN, policy_threshold=math.inf, level="global", diagnostics=True)
    numbers = whole.prepare(left, evaluation).extras["curvature_logged"][0, len(LOGGED) :]
    if not float(numbers[WIDER.index("global_policy")]) < limit:
        wanted = wanted & False
    assert torch.equal(accepted(built, evaluation, decisions), wanted)
    assert bool(wanted.any()) and not torch.equal(wanted, decisions.mask)


def test_a_lower_bound_of_its_own() -> None:
    free = method("capo", **OPEN, learning_rate=0.05)
    evaluation, decisions = sample(free)
    objective = free.prepare(decisions, evaluation).extras["curvature_objective"]
    middle = float(objective[decisions.mask].median())
    built = method("capo", **OPEN, learning_rate=0.05, objective_floor=middle)
    assert torch.equal(accepted(built, evaluation, decisions), decisions.mask & (objective > middle))


@pytest.mark.parametrize("of", ["objective", "policy"])
def test_the_soft_penalty_is_the_predicted_shift_and_has_its_slope(of: str) -> None:
    """Value: the mean shift; slope: central differences through the logits, with the step U h held."""
    plain = method("capo", **OPEN, learning_rate=0.05, base="dr_grpo")
    built = method("capo", **OPEN, learning_rate=0.05, base="dr_grpo", penalty=of, penalty_coefficient=3.0)
    evaluation, decisions = sample(built)
    prepared = built.prepare(decisions, evaluation)

    def penalty(outputs: Tensor) -> Tensor:
        now = Evaluation(log_prob=evaluation.log_prob, outputs=outputs, features=evaluation.features)
        return built.loss(now, prepared)[1]["loss/penalty"]

    shift = torch.where(decisions.mask, prepared.extras[f"curvature_{of}"], 0.0).sum(1)
    horizon = decisions.mask.sum(1).max()
    assert float(penalty(evaluation.outputs)) == pytest.approx(3.0 * float((shift / horizon).mean()), rel=1e-9)
    outputs = evaluation.outputs.detach().clone().requires_grad_()
    now = Evaluation(log_prob=evaluation.log_prob.detach(), outputs=outputs, features=evaluation.features.detach())
    built.loss(now, prepared)[0].backward()
    row, column = torch.nonzero(decisions.mask)[3].tolist()
    for action in range(2):
        nudge = torch.zeros_like(outputs)
        nudge[row, column, action] = 1e-5
        slope = (penalty(outputs.detach() + nudge) - penalty(outputs.detach() - nudge)) / 2e-5
        assert float(outputs.grad[row, column, action]) == pytest.approx(float(slope), rel=1e-5, abs=1e-10)
    assert bool(outputs.grad[decisions.mask].any()) and "loss/penalty" not in plain.loss(evaluation, decisions)[1]


def test_refused_tokens_are_counted_by_action() -> None:
    built = method("capo", **TIGHT)
    evaluation, decisions = sample(built)
    state = stepped(built, evaluation, decisions, stepped(built, evaluation, decisions, built.start()))
    first = decisions.mask & ~accepted(built, evaluation, decisions)
    again = stepped(built, evaluation, decisions, built.start())
    second = decisions.mask & ~built.prepare(decisions, evaluation, again).extras["curvature_accepted"]
    actions = torch.cat([decisions.action[first], decisions.action[second]])
    wanted = torch.bincount(actions, minlength=evaluation.outputs.shape[-1])
    assert torch.equal(state.parts[PATH]["refused_by_action"], wanted) and int(wanted.sum()) > 0
    assert int(state.parts[PATH]["refused"]) == int(wanted.sum())
