"""TD3: the smoothed target by hand, squared errors, the first critic alone for the policy."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method
from ascent.methods.td3 import smoothed
from ascent.policies.continuous import ContinuousActor, ContinuousHead, Judged
from ascent.policies.critics import Critics


def test_smoothing_noise_is_clipped_and_so_is_the_action() -> None:
    action = torch.tensor([0.0, 0.0, 0.9, -0.9, 0.2], dtype=torch.float64)
    noise = torch.tensor([1.0, 5.0, 2.0, -4.0, 0.0], dtype=torch.float64)
    # 0.2 noise within 0.5, then within [-1, 1].
    assert torch.allclose(smoothed(action, noise, 0.2, 0.5), torch.tensor([0.2, 0.5, 1.0, -1.0, 0.2]).double())
    assert torch.equal(smoothed(action, noise, 0.0, 0.5), action)


def transitions(critics: int) -> Decisions:
    return Decisions(
        mask=torch.ones(2, 1, dtype=torch.bool),
        reward=torch.tensor([[1.0], [2.0]], dtype=torch.float64),
        terminated=torch.tensor([[False], [True]]),
        truncated=torch.tensor([[False], [False]]),
        next_value=torch.tensor([[[4.0, 3.0]], [[8.0, 9.0]]], dtype=torch.float64)[..., :critics],
    )


@pytest.mark.parametrize(("critics", "target"), [(2, 2.5), (1, 3.0)])
def test_the_target_is_that_of_the_smallest_critic(critics: int, target: float) -> None:
    credited = method("td3", discount=0.5).companions["critic"].credit(transitions(critics))
    assert credited.value_target.tolist() == [[target], [2.0]]


def test_the_critics_loss_is_the_squared_error() -> None:
    value = torch.tensor([[[4.5, 2.5]], [[2.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    loss, _ = method("td3", discount=0.5).companions["critic"].loss(Evaluation(value=value), transitions(2))
    assert float(loss.detach()) == pytest.approx((4.0 + 1.0) / 2)


def test_the_policy_follows_the_first_critic() -> None:
    actor = ContinuousActor(3, ContinuousHead(1, soft=False), (4,), seed=0).double()
    critics = Critics(3, 1, 2, (4,), seed=0).double()
    observation = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    decisions = Decisions(mask=torch.ones(5, 1, dtype=torch.bool), context={"observation": observation})
    td3 = method("td3")
    now = Judged(actor, critics, first=1).evaluate(decisions, td3.evaluates)
    loss, _ = td3.loss(now, decisions)
    expected = -critics(observation, actor.fresh(observation, None)[0])[..., 0].mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-7)


@pytest.mark.parametrize("name", ["smoothing", "smoothing_clip", "exploration"])
def test_negative_noise_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be a number in \[0, inf\); got -0.1"):
        method("td3", **{name: -0.1})
