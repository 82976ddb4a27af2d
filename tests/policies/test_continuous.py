"""Actors in [-1, 1]: what acts in numpy is what learns in torch, and every draw has its name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.policies.continuous import ContinuousActor, ContinuousHead, Judged, Temperature, standard_normal
from ascent.policies.critics import Critics


@pytest.mark.parametrize("soft", [True, False])
def test_acting_in_numpy_is_the_same_function(soft: bool) -> None:
    head = ContinuousHead(2, soft)
    actor = ContinuousActor(3, head, (16, 8), seed=5)
    observation = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    noise = head.noise(torch.arange(6), torch.zeros(6, dtype=torch.int64))
    acting = actor.numpy_actor()
    outputs = acting.outputs(observation.numpy())
    ours = head.sample(outputs, acting.log_std, noise)
    theirs, log_prob = actor.fresh(observation, torch.from_numpy(noise[:, 0]))
    assert np.abs(ours - theirs.detach().numpy()).max() < 1e-6
    assert (log_prob is not None) == soft
    still, _ = actor.fresh(observation, torch.zeros(6, 2))
    assert np.abs(head.mode(outputs) - still.detach().numpy()).max() < 1e-6


def test_the_first_decisions_are_uniform() -> None:
    head = ContinuousHead(2, soft=True, start=4000)
    index = torch.arange(8000)[:, None]
    noise = head.noise(torch.full((8000, 1), 9), index)
    outputs = np.tile(np.float32([3.0, 3.0, -3.0, -3.0]), (8000, 1))
    actions = head.sample(outputs, None, noise[:, 0])
    first = actions[:4000].ravel()
    # Eight cells of 1000 on average; six standard deviations are 177.
    assert np.abs(np.histogram(first, 8, (-1, 1))[0] - 1000).max() < 178
    assert not np.isnan(actions).any() and actions[4000:].mean() > 0.5
    assert np.isnan(noise[4000:, 0, 1]).all()


def test_a_draw_does_not_depend_on_what_is_drawn_with_it() -> None:
    for head in (ContinuousHead(2, soft=True, start=3), ContinuousHead(1, soft=False, pull=0.15)):
        keys, index = torch.arange(3).expand(10, 3), torch.arange(10)[:, None].expand(10, 3)
        whole = head.noise(keys, index)
        for step in range(10):
            np.testing.assert_array_equal(head.noise(keys[step : step + 1], index[step : step + 1])[0], whole[step])


def test_named_draws_are_standard_normal() -> None:
    draws = standard_normal(torch.full((20_000,), 3), torch.arange(20_000), 2)
    assert float(draws.mean().abs()) < 0.03 and float(draws.std()) == pytest.approx(1.0, abs=0.03)
    assert float((draws[:, 0] * draws[:, 1]).mean().abs()) < 0.04


def test_noise_of_a_deterministic_action_stays_in_bounds() -> None:
    head = ContinuousHead(1, soft=False, exploration=10.0)
    noise = head.noise(torch.full((100, 1), 3), torch.arange(100)[:, None])[:, 0]
    actions = head.sample(np.zeros((100, 1), np.float32), None, noise)
    assert actions.min() == -1.0 and actions.max() == 1.0


def test_a_head_without_squashing_clips() -> None:
    head = ContinuousHead(1, soft=False, squash=False)
    outputs = np.array([[-3.0], [-0.5], [0.9], [1.5]])
    assert head.mode(outputs)[:, 0].tolist() == [-1.0, -0.5, 0.9, 1.0]
    noise = np.stack((np.ones((4, 1)), np.full((4, 1), np.nan)), axis=1).astype(np.float32)
    assert (head.sample(outputs, None, noise) == head.mode(outputs)).all()
    noisy = ContinuousHead(1, soft=False, exploration=0.25, squash=False)
    assert noisy.sample(outputs, None, noise)[:, 0].tolist() == [-0.75, -0.25, 1.0, 1.0]


def test_a_judged_actor_says_what_its_fresh_action_is_worth() -> None:
    actor = ContinuousActor(3, ContinuousHead(2, soft=True), (8,), seed=1).double()
    critics = Critics(3, 2, 3, (8,), seed=2).double()
    draw = torch.Generator().manual_seed(0)
    observation, noise = (torch.randn(4, 1, n, generator=draw, dtype=torch.float64) for n in (3, 2))
    decisions = Decisions(mask=torch.ones(4, 1, dtype=torch.bool), context={"observation": observation})
    now = Judged(actor, critics).evaluate(decisions.with_extras({"action_noise": noise}), frozenset({"outcome"}))
    action, log_prob = actor.fresh(observation, noise)
    assert torch.equal(now.outcome, critics(observation, action))
    assert log_prob is not None and torch.equal(now.column("own_log_prob"), log_prob)
    with pytest.raises(LookupError, match="action_noise"):
        Judged(actor, critics).evaluate(decisions, frozenset({"outcome"}))
    with pytest.raises(ValueError, match="noise must be"):
        actor.fresh(observation, None)


def test_the_temperature_is_one_number() -> None:
    decisions = Decisions(mask=torch.ones(4, 2, dtype=torch.bool))
    now = Temperature(0.2).evaluate(decisions, frozenset({"probe:temperature"}))
    assert torch.allclose(now.column("temperature"), torch.full((4, 2), 0.2))


def test_initial_weights_have_the_bounds_of_torch_or_the_given_ones() -> None:
    actor = ContinuousActor(4, ContinuousHead(1, soft=False), (100,), final=3e-3)
    first, last = actor.network.layers
    assert 0.45 < float(first.weight.abs().max()) <= 0.5
    assert float(last.weight.abs().max()) <= 3e-3 and float(last.bias.abs().max()) <= 3e-3
