"""DDPG: its target and loss by hand; the Ornstein-Uhlenbeck noise is the recursion that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.plan import Adam
from ascent.core.registry import method
from ascent.policies.continuous import ContinuousHead, standard_normal


def test_target_and_loss_by_hand() -> None:
    critic = method("ddpg", discount=0.9).companions["critic"]
    decisions = Decisions(
        mask=torch.ones(2, 1, dtype=torch.bool),
        reward=torch.tensor([[1.0], [2.0]], dtype=torch.float64),
        terminated=torch.tensor([[False], [True]]),
        truncated=torch.tensor([[True], [False]]),
        next_value=torch.tensor([[[10.0]], [[7.0]]], dtype=torch.float64),
    )
    credited = critic.credit(decisions)
    assert credited.value_target.tolist() == [[10.0], [2.0]]
    value = torch.tensor([[[9.0]], [[5.0]]], dtype=torch.float64, requires_grad=True)
    assert float(critic.loss(Evaluation(value=value), credited)[0].detach()) == pytest.approx((1.0 + 9.0) / 2)


def test_the_noise_is_an_ornstein_uhlenbeck_process() -> None:
    """n[t + 1] = (1 - theta) n[t] + xi[t + 1] with the named draws xi, from anywhere in the sequence."""
    head = ContinuousHead(2, soft=False, exploration=0.2, pull=0.15)
    index = torch.arange(500, 540)[:, None]
    keys = torch.full((40, 1), 7)
    process = head.noise(keys, index)[:, 0, 0].astype(np.float64)
    increments = standard_normal(keys, index, 2)[:, 0].double().numpy()
    assert np.abs(process[1:] - (0.85 * process[:-1] + increments[1:])).max() < 2e-6


def test_the_noise_has_the_process_deviation() -> None:
    head = ContinuousHead(1, soft=False, exploration=0.2, pull=0.15)
    process = head.noise(torch.full((20_000, 1), 3), torch.arange(20_000)[:, None])[:, 0, 0]
    # sqrt(1 / (1 - 0.85^2)) = 1.898; the draws are correlated over about 12 steps.
    assert float(process.std()) == pytest.approx(1.898, rel=0.06)


def test_weight_decay_is_the_critics_alone() -> None:
    ddpg = method("ddpg", critic_weight_decay=0.02)
    assert isinstance(ddpg.step, Adam) and ddpg.step.weight_decay == 0.0
    critic = ddpg.companions["critic"].step
    assert isinstance(critic, Adam) and critic.weight_decay == 0.02


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"noise must be one of .*; got 'pink'"):
        method("ddpg", noise="pink")
