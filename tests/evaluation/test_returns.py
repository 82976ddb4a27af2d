"""Deterministic returns over held-out seeds."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from ascent.evaluation.returns import _held_out, evaluate_returns
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.recurrent import RecurrentActorCritic
from ascent.worlds.gym import Environments
from ascent.worlds.normalisation import RunningStatistics


def play_one(policy, name, seed, statistics=None):
    """One episode, step by step, with torch."""
    world = gymnasium.make(name)
    seen, _ = world.reset(seed=seed)
    total, length, ended = 0.0, 0, False
    while not ended:
        x = np.asarray(seen, np.float32) if statistics is None else statistics.normalise(seen)
        with torch.no_grad():
            mode = policy.head.distribution(policy.actor(torch.as_tensor(x)[None]), policy.log_std).mode()[0].numpy()
        action = int(mode) if policy.head.sizes else np.clip(mode, world.action_space.low, world.action_space.high)
        seen, reward, terminated, truncated, _ = world.step(action)
        total, length, ended = total + float(reward), length + 1, terminated or truncated
    return total, length


@pytest.mark.parametrize(
    ("name", "head"), [("CartPole-v1", Head("categorical", (2,))), ("Pendulum-v1", Head("gaussian", (), 1))]
)
@pytest.mark.parametrize("copies", [1, 3])
def test_every_seeded_episode_counts_once(name, head, copies):
    policy = ActorCritic(4 if name == "CartPole-v1" else 3, head, gain=1.0, seed=5)
    found = evaluate_returns(policy, name, episodes=5, seed=9, environments=copies)
    wanted = [play_one(policy, name, _held_out(9, number)) for number in range(5)]
    np.testing.assert_allclose(found.returns, [total for total, _ in wanted], rtol=1e-4)
    assert found.lengths.tolist() == [length for _, length in wanted]
    assert found.mean == pytest.approx(np.mean([total for total, _ in wanted]), rel=1e-4)


def test_statistics_are_used_and_left_alone():
    policy = ActorCritic(4, Head("categorical", (2,)), gain=1.0, seed=1)
    statistics = RunningStatistics(4)
    statistics.update(np.random.default_rng(0).normal(0.5, 0.1, (50, 4)))
    before = statistics.state_dict()
    found = evaluate_returns(policy, "CartPole-v1", 3, 0, statistics)
    wanted = [play_one(policy, "CartPole-v1", _held_out(0, number), statistics)[0] for number in range(3)]
    assert found.returns.tolist() == wanted
    assert statistics.state_dict() == before


def test_a_recurrent_policy_forgets_between_episodes():
    policy = RecurrentActorCritic(4, Head("categorical", (2,)), hidden=8, gain=3.0)
    many = evaluate_returns(policy, "CartPole-v1", 4, environments=1)
    few = evaluate_returns(policy, "CartPole-v1", 4, environments=4)
    np.testing.assert_array_equal(many.returns, few.returns)


def test_given_environments_are_used():
    policy = ActorCritic(4, Head("categorical", (2,)))
    worlds = Environments("CartPole-v1", 2)
    first, again = (evaluate_returns(policy, worlds, 3, seed=1).returns for _ in range(2))
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="episodes must be an integer >= 1"):
        evaluate_returns(policy, worlds, 0)
