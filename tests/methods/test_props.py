"""PROPS: the behaviour objective's gradient identities, its limits, its divergence, and the tabular samplers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from ascent.core.decisions import Decisions
from ascent.core.densities import DiagonalGaussian
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.plan import SGD, Stop
from ascent.core.random import generator
from ascent.core.registry import method
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term
from ascent.methods.props import BehaviourKL, most_under_sampled, props, sampling_error


def behaviour(**parameters: object) -> Method:
    return method("props", **parameters).companions["behaviour"]


def buffer(seed: int = 0, spread: float = 0.4) -> tuple[Tensor, Decisions]:
    draw = torch.Generator().manual_seed(seed)
    old = -torch.rand(6, 5, generator=draw, dtype=torch.float64) - 0.3
    now = old + spread * torch.randn(6, 5, generator=draw, dtype=torch.float64)
    return now, Decisions(
        mask=torch.ones(6, 5, dtype=torch.bool), action=torch.zeros(6, 5, dtype=torch.int64), old_log_prob=old
    )


def gradient(built: Method, log_prob: Tensor, decisions: Decisions) -> tuple[Tensor, Tensor]:
    leaf = log_prob.clone().requires_grad_()
    loss, _ = built.loss(Evaluation(log_prob=leaf), decisions)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def test_objective_by_hand() -> None:
    """mean of max(r, clip(r, 0.7, 1.3)): ratios 0.5, 1, 1.5 give 0.7, 1, 1.5."""
    ratio = torch.tensor([[0.5, 1.0, 1.5]], dtype=torch.float64)
    decisions = Decisions(
        mask=torch.ones(1, 3, dtype=torch.bool), old_log_prob=torch.full((1, 3), -1.0, dtype=torch.float64)
    )
    loss, grad = gradient(behaviour(kl_coefficient=0.0), ratio.log() - 1.0, decisions)
    assert torch.allclose(loss, torch.tensor((0.7 + 1.0 + 1.5) / 3, dtype=torch.float64))
    # Exactly 0 below 1 - eps, not cut above 1 + eps.
    assert torch.allclose(grad, torch.tensor([[0.0, 1.0, 1.5]], dtype=torch.float64) / 3)
    assert float(grad[0, 0]) == 0.0


def test_gradient_at_the_target_pushes_the_buffer_down() -> None:
    """At phi = theta the loss gradient is + mean grad log pi, so descent makes the buffer's actions rarer, like ROS."""
    _, decisions = buffer()
    _, ours = gradient(behaviour(kl_coefficient=0.0), decisions.old_log_prob, decisions)
    _, ros = gradient(behaviour(objective="ros"), decisions.old_log_prob, decisions)
    assert torch.allclose(ours, torch.full((6, 5), 1 / 30, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(ours, ros, atol=1e-12)


def test_it_is_ppo_with_advantage_minus_one() -> None:
    now, decisions = buffer()
    ppo = Method("ppo", {"policy": Term(ClippedRatio(0.3, 0.3))})
    expected = gradient(ppo, now, decisions.replace(advantage=-torch.ones(6, 5, dtype=torch.float64)))
    found = gradient(behaviour(kl_coefficient=0.0), now, decisions)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_gradient_vanishes_where_the_buffer_is_exactly_on_policy() -> None:
    """Two states whose actions stand in the buffer in exact proportion to the policy, or with one action too many."""
    counts = torch.tensor([[1, 2, 5], [4, 4, 8]])
    logits = (counts / counts.sum(1, keepdim=True)).double().log()

    def policy_gradient(times: Tensor) -> Tensor:
        leaf = logits.clone().requires_grad_()
        state, action = torch.nonzero(torch.ones_like(times)).T
        state, action = state.repeat_interleave(times.reshape(-1)), action.repeat_interleave(times.reshape(-1))
        log_prob = leaf.log_softmax(1)[state, action][:, None]
        decisions = Decisions(mask=torch.ones(len(state), 1, dtype=torch.bool), old_log_prob=log_prob.detach())
        loss, _ = behaviour(kl_coefficient=0.0).loss(Evaluation(log_prob=log_prob), decisions)
        return torch.autograd.grad(loss, leaf)[0]

    assert torch.allclose(policy_gradient(counts), torch.zeros(2, 3, dtype=torch.float64), atol=1e-15)
    more = policy_gradient(counts + torch.tensor([[0, 1, 0], [0, 0, 0]]))
    # Descent lowers the over-represented action and raises the others of its state.
    assert float(more[0, 1]) > 1e-3 and float(more[0, 0]) < 0 and float(more[0, 2]) < 0
    assert torch.allclose(more[1], torch.zeros(3, dtype=torch.float64), atol=1e-15)


def test_limits_reduce_to_ros() -> None:
    """No clip, no KL, one full-batch walk: at phi = theta one step of ROS; ROS is that plan, with plain SGD."""
    open_ = behaviour(
        clip=math.inf, kl_coefficient=0.0, behaviour_passes=1, behaviour_minibatches=1, behaviour_target_kl=None
    )
    ros = behaviour(objective="ros", behaviour_learning_rate=1e-5)
    _, decisions = buffer()
    assert torch.allclose(
        gradient(open_, decisions.old_log_prob, decisions)[1], gradient(ros, decisions.old_log_prob, decisions)[1]
    )
    assert (
        (open_.plan.passes, open_.plan.minibatches, open_.plan.stop)
        == (1, 1, None)
        == (ros.plan.passes, ros.plan.minibatches, ros.plan.stop)
    )
    assert ros.step == SGD(learning_rate=1e-5)


def test_none_is_ppo_with_a_buffer() -> None:
    built = method("props", objective="none")
    assert not built.companions
    assert built.losses == method("props").losses


def test_target_is_ppo_with_the_papers_constants() -> None:
    constants = {"value_clip": 0.2, "entropy_coefficient": 0.01, "target_kl": 0.03}
    target, plain = method("props", anneal=False), method("ppo", learning_rate=1e-3, **constants)
    for part in ("losses", "advantage", "value_target", "normalise", "plan", "step"):
        assert target.__dict__[part] == plain.__dict__[part], part
    assert "behaviour_log_prob" not in target.needs


def test_another_target_learner() -> None:
    """The behaviour companion goes with any on-policy method, here REINFORCE."""
    plain = method("reinforce", discount=0.99).replace(companions=props().companions)
    assert plain.companions["behaviour"].slug == "props_behaviour"


@pytest.mark.parametrize("direction", ["behaviour", "target"])
def test_divergence_equals_torch_and_is_a_mean_over_action_numbers(direction: str) -> None:
    draw = torch.Generator().manual_seed(0)
    mean, other = (torch.randn(4, 2, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    log_std, other_std = (0.3 * torch.randn(3, generator=draw, dtype=torch.float64) for _ in range(2))
    now, target = DiagonalGaussian(mean, log_std.expand(4, 2, 3)), DiagonalGaussian(other, other_std.expand(4, 2, 3))
    first, second = (Independent(Normal(m, s.exp().expand_as(m)), 1) for m, s in ((mean, log_std), (other, other_std)))
    name, ours, truth = {
        "behaviour": ("kl_reference", now.kl(target), kl_divergence(first, second)),
        "target": ("reverse_kl_reference", target.kl(now), kl_divergence(second, first)),
    }[direction]
    action = torch.zeros(4, 2, 3, dtype=torch.float64)
    decisions = Decisions(mask=torch.ones(4, 2, dtype=torch.bool), action=action)
    evaluation = Evaluation(log_prob=torch.zeros(4, 2, dtype=torch.float64), probes={name: ours})
    part = BehaviourKL(direction)
    assert f"probe:{name}" in part.needs
    assert torch.allclose(part(evaluation, decisions), truth / 3, atol=1e-12)
    # The official formula, per dimension.
    if direction == "behaviour":
        per = other_std - log_std + ((2 * log_std).exp() + (mean - other) ** 2) / (2 * (2 * other_std).exp()) - 0.5
        assert torch.allclose(part(evaluation, decisions), per.mean(-1), atol=1e-12)


def test_taken_is_the_partial_sum_of_the_divergence_to_the_target() -> None:
    """Summed over all actions it is KL(theta || phi)."""
    draw = torch.Generator().manual_seed(1)
    target, now = (torch.randn(5, generator=draw, dtype=torch.float64).log_softmax(0) for _ in range(2))
    decisions = Decisions(mask=torch.ones(1, 5, dtype=torch.bool), old_log_prob=target[None])
    value = BehaviourKL("taken")(Evaluation(log_prob=now[None]), decisions)
    truth = kl_divergence(Categorical(logits=target), Categorical(logits=now))
    assert torch.allclose(value.sum(), truth, atol=1e-12)


def test_early_stop() -> None:
    now, decisions = buffer()
    built = behaviour(kl_coefficient=0.0)
    assert built.plan.stop == Stop("approximate_kl", 0.05, "before")
    assert behaviour(stop_when="after").plan.stop == Stop("approximate_kl", 0.05, "after")
    _, metrics = built.loss(Evaluation(log_prob=now), decisions)
    ratio = (now - decisions.old_log_prob).exp()
    assert float(metrics["approximate_kl"]) == pytest.approx(float((ratio - 1 - ratio.log()).mean()), rel=1e-6)
    _, first = built.loss(Evaluation(log_prob=decisions.old_log_prob), decisions)
    # The first minibatch has r = 1, so even delta = 0 lets it through.
    assert float(first["approximate_kl"]) == 0.0


def test_estimated_divergence_is_never_negative() -> None:
    for seed in range(20):
        now, decisions = buffer(seed, spread=2.0)
        _, metrics = behaviour(kl_coefficient=0.0).loss(Evaluation(log_prob=now), decisions)
        assert float(metrics["approximate_kl"]) >= 0.0


def test_advantage_weighted() -> None:
    _, decisions = buffer()
    advantage = torch.randn(6, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    built = behaviour(kl_coefficient=0.0, advantage_weighted=True)
    _, grad = gradient(built, decisions.old_log_prob, decisions.with_extras({"target_advantage": advantage}))
    assert torch.allclose(grad, advantage.abs() / (advantage.std() + 1e-8) / 30, atol=1e-12)
    assert bool((built.credit(decisions.with_extras({"target_advantage": advantage})).advantage < 0).all())


def test_gradient_by_finite_differences() -> None:
    built = behaviour(kl="taken")
    now, decisions = buffer()
    decisions = built.credit(decisions)
    assert torch.autograd.gradcheck(
        lambda x: built.loss(Evaluation(log_prob=x), decisions)[0], (now.requires_grad_(),), eps=1e-7, atol=1e-6
    )


PROBABILITY = torch.tensor([0.05, 0.15, 0.3, 0.5], dtype=torch.float64)


def test_greedy_sampler_stays_within_one_of_the_exact_count() -> None:
    count = torch.zeros(4, dtype=torch.float64)
    for step in range(1, 2001):
        count[most_under_sampled(PROBABILITY, count)] += 1
        assert float((count - step * PROBABILITY).abs().max()) <= 1.5
    assert float(sampling_error(PROBABILITY[None], count[None])) < 1e-5


def test_greedy_sampler_starts_with_the_likeliest_action_and_is_batched() -> None:
    counts = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 8], [5, 0, 0, 0]], dtype=torch.float64)
    assert most_under_sampled(PROBABILITY.expand(3, 4), counts).tolist() == [3, 2, 3]


def test_sampling_error_is_the_divergence_of_the_counts() -> None:
    count = torch.tensor([[3.0, 1.0, 0.0, 4.0], [0.0, 0.0, 0.0, 2.0]], dtype=torch.float64)
    policy = torch.stack([PROBABILITY, torch.full((4,), 0.25, dtype=torch.float64)])
    per_state = [
        kl_divergence(Categorical(probs=c / c.sum()), Categorical(probs=p)) for c, p in zip(count, policy, strict=True)
    ]
    expected = (8 * per_state[0] + 2 * per_state[1]) / 10
    assert torch.allclose(sampling_error(policy, count), expected, atol=1e-6)
    assert float(sampling_error(policy, torch.zeros(2, 4))) == 0.0


def fit(logits: Tensor, actions: Tensor, built: Method, seed: int) -> Tensor:
    """The behaviour policy of a bandit: the plan of the companion, walked by hand with the right optimiser."""
    phi = logits.clone().requires_grad_()
    plain = isinstance(built.step, SGD)
    rate = float(built.step.learning_rate)  # type: ignore[arg-type]
    optimiser = torch.optim.SGD([phi], lr=rate) if plain else torch.optim.Adam([phi], lr=rate, eps=1e-5)
    old, stop = logits.log_softmax(0), built.plan.stop
    for pass_ in range(built.plan.passes):
        order = torch.randperm(len(actions), generator=generator(seed, len(actions), pass_))
        for part in order.chunk(built.plan.minibatches):
            action = actions[part][:, None]
            decisions = Decisions(
                mask=torch.ones_like(action, dtype=torch.bool), action=action, old_log_prob=old[action]
            )
            loss, metrics = built.loss(Evaluation(log_prob=phi.log_softmax(0)[action]), decisions)
            if stop is not None and float(metrics["approximate_kl"]) > stop.above:
                return phi.detach()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return phi.detach()


def test_fitted_behaviour_cuts_the_sampling_error_of_a_bandit() -> None:
    """The central claim at a size for a test: 10 arms, m = 16, 256 samples, 4 seeds."""
    built = behaviour(
        kl_coefficient=0.0,
        behaviour_passes=16,
        behaviour_minibatches=2,
        behaviour_learning_rate=0.03,
        behaviour_target_kl=0.1,
    )
    errors: dict[str, list[float]] = {"on-policy": [], "props": []}
    for seed in range(4):
        logits = torch.randn(10, generator=generator(seed, "target"), dtype=torch.float64)
        for arm, found in errors.items():
            actions = torch.zeros(0, dtype=torch.int64)
            for round_ in range(16):
                phi = logits if arm == "on-policy" or not round_ else fit(logits, actions, built, seed)
                drawn = torch.multinomial(phi.softmax(0), 16, replacement=True, generator=generator(seed, arm, round_))
                actions = torch.cat([actions, drawn])
            count = torch.bincount(actions, minlength=10)[None].double()
            found.append(float(sampling_error(logits.softmax(0)[None], count)))
    assert np.mean(errors["props"]) < 0.5 * np.mean(errors["on-policy"])


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"behaviour_batch must divide batch=2048; got 300\. Use 256 with 2048"):
        method("props", behaviour_batch=300)
    with pytest.raises(ValueError, match=r"clip must be a number in \(0, inf\]; got 0"):
        method("props", clip=0)
