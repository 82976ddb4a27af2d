"""Sampling error by counts and by fit; the greedy sampler."""

from __future__ import annotations

import math

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.random import generator
from ascent.evaluation.sampling_error import fitted_sampling_error, tabular_sampling_error
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.greedy import GreedyTabular
from ascent.sampling.vector import VectorSampler
from ascent.worlds.gym import Environments


def batch(states, actions, size):
    observation = torch.eye(size)[torch.tensor(states)][None]
    action = torch.tensor(actions)[None]
    return Decisions(
        mask=torch.ones(action.shape[:2], dtype=torch.bool), context={"observation": observation}, action=action
    )


def linear_policy(logits):
    """A tabular policy with these logits [S, A]."""
    policy = ActorCritic(len(logits), Head("categorical", (len(logits[0]),)), hidden=(), critic=False)
    with torch.no_grad():
        policy.actor.layers[0].weight.copy_(torch.tensor(logits).T)
    return policy


def test_tabular_error_by_hand():
    policy = linear_policy([[0.0, math.log(3.0)], [0.0, 0.0]])
    decisions = batch([0, 0, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0], 2)
    assert tabular_sampling_error(policy, decisions) == pytest.approx(2 / 6 * math.log(2.0), abs=1e-7)
    exact = batch([0, 0, 0, 0, 1, 1], [1, 1, 1, 0, 1, 0], 2)
    assert tabular_sampling_error(policy, exact) == pytest.approx(0.0, abs=1e-7)


def test_masked_decisions_do_not_count():
    policy = linear_policy([[0.0, 0.0]])
    decisions = batch([0, 0, 0], [0, 1, 0], 1)
    decisions = decisions.replace(mask=torch.tensor([[True, True, False]]))
    assert tabular_sampling_error(policy, decisions) == pytest.approx(0.0, abs=1e-7)


def test_the_fit_of_a_table_is_its_counts():
    policy = linear_policy([[0.3, -0.2, 0.0], [0.0, 0.5, -1.0]])
    draw = generator(0, "states")
    states = torch.randint(0, 2, (60,), generator=draw).tolist()
    actions = torch.randint(0, 3, (60,), generator=draw).tolist()
    decisions = batch(states, actions, 2)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    fitted = fitted_sampling_error(policy, decisions, steps=1500, learning_rate=0.03)
    assert fitted == pytest.approx(tabular_sampling_error(policy, decisions), abs=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_the_fit_of_a_gaussian_without_inputs_is_its_moments():
    policy = ActorCritic(1, Head("gaussian", (), 1), hidden=(), critic=False)
    action = torch.randn(1, 50, 1, generator=generator(1, "actions")) * 0.5 + 0.7
    decisions = Decisions(
        mask=torch.ones(1, 50, dtype=torch.bool), context={"observation": torch.zeros(1, 50, 1)}, action=action
    )
    fitted = fitted_sampling_error(policy, decisions, steps=1500, learning_rate=0.03)
    mean, std = float(action.mean()), float(action.std(correction=0))
    wanted = -math.log(std) - 0.5 + 0.5 * (std**2 + mean**2)
    assert fitted == pytest.approx(wanted, abs=1e-3)


def test_counts_need_choices_and_the_fit_needs_steps():
    policy = ActorCritic(1, Head("gaussian", (), 1))
    decisions = Decisions(
        mask=torch.ones(1, 2, dtype=torch.bool),
        context={"observation": torch.zeros(1, 2, 1)},
        action=torch.zeros(1, 2, 1),
    )
    with pytest.raises(ValueError, match="fitted_sampling_error"):
        tabular_sampling_error(policy, decisions)
    with pytest.raises(ValueError, match="steps must be an integer >= 1"):
        fitted_sampling_error(policy, decisions, steps=0)


def test_greedy_sampling_beats_sampling():
    worlds = Environments("ascent/GridWorld5-v0", 2)
    target = ActorCritic(25, Head.of(worlds.actions), hidden=(), gain=0.5)
    greedy = GreedyTabular(target, 25)
    errors = {}
    for name, behaviour in (("sampled", target), ("greedy", greedy)):
        decisions = VectorSampler(behaviour, worlds, 300).act(0)
        errors[name] = tabular_sampling_error(target, decisions)
    assert errors["greedy"] < 0.3 * errors["sampled"]
    assert float(decisions.behaviour_log_prob.abs().max()) < 1e-6
    counted = greedy.count.clone()
    greedy.recount(decisions)
    assert torch.equal(counted, greedy.count)


def test_greedy_counts_stay_within_one_of_the_proportions():
    worlds = Environments("ascent/TwoStep-v0", 1)
    target = ActorCritic(7, Head.of(worlds.actions), hidden=(), gain=0.7, seed=3)
    greedy = GreedyTabular(target, 7)
    VectorSampler(greedy, worlds, 200).act(0)
    probability = target.actor(torch.eye(7)).softmax(-1).double().detach()
    visits = greedy.count.sum(-1, keepdim=True)
    assert float((greedy.count - visits * probability).abs().max()) <= 1.0
