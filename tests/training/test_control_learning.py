"""Small control runs through the loop that must learn past a threshold."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import ascent
from ascent.evaluation.returns import evaluate_returns
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.recurrent import RecurrentActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.gym import Environments


class Recall(gymnasium.Env):
    """Shows a cue once; after two blank observations the action must repeat it. Without memory: return 0.5."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.age = int(self.np_random.integers(2)), 0
        return np.array([2 * self.cue - 1], np.float32), {}

    def step(self, action):
        self.age += 1
        done = self.age == 3
        return np.zeros(1, np.float32), float(done and action == self.cue), done, False, {}


def train(policy, worlds, method, steps, rounds, seed=0):
    memory = Fresh()
    stages = (
        Collect("collect", VectorSampler(policy, worlds, steps, seed), memory),
        Learn("policy", policy, method, memory, seed=seed),
    )
    Loop(System({"policy": policy}, {"fresh": memory}, (Phase("train", stages, rounds),))).run()


@pytest.mark.slow
def test_ppo_balances_the_pole():
    worlds = Environments("CartPole-v1", 8)
    policy = ActorCritic(4, Head.of(worlds.actions), seed=0)
    constants = {"discount": 0.98, "trace": 0.8, "learning_rate": 1e-3, "value_coefficient": 1.0}
    method = ascent.method("ppo", passes=20, minibatches=1, anneal="both", **constants)
    train(policy, worlds, method, steps=32, rounds=160)
    assert evaluate_returns(policy, "CartPole-v1", 10, seed=123).mean >= 475


@pytest.mark.parametrize("remembers", [True, False])
def test_only_a_policy_with_memory_recalls(remembers):
    worlds = Environments(Recall, 16)
    head = Head.of(worlds.actions)
    policy = RecurrentActorCritic(1, head, hidden=16) if remembers else ActorCritic(1, head, (16,))
    method = ascent.method("ppo", passes=4, minibatches=2, unit="row", learning_rate=1e-2)
    train(policy, worlds, method, steps=12, rounds=40)
    score = evaluate_returns(policy, Recall, 40, seed=5, environments=8).mean
    assert score >= 0.95 if remembers else score <= 0.8
