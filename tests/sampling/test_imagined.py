"""Imagined rollouts: who answers, where they start, when they end; draws are named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ascent.policies.continuous import ContinuousActor, ContinuousHead
from ascent.policies.dynamics import Dynamics
from ascent.sampling.imagined import ImaginedSampler
from ascent.worlds.termination import never

KNOWN = torch.arange(20.0)[:, None] * torch.ones(1, 2)


def sampler(horizon: int = 3, ends: object = never, gaussian: bool = False, count: int = 10) -> ImaginedSampler:
    """Members that move every number of the state by their own number, and pay it."""
    model = Dynamics(2, 1, members=4, elites=3, hidden=(4,), gaussian=gaussian)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bias[-1][:, 0, :3] = torch.arange(4.0)[:, None]
        if gaussian:
            model.bias[-1][:, 0, 3:] = -50.0
    model.elite.copy_(torch.tensor([3, 1, 2]))
    actor = ContinuousActor(2, ContinuousHead(1, True), (4,), seed=0)
    return ImaginedSampler(actor, model, lambda: KNOWN, ends, count, lambda: horizon, seed=5)  # type: ignore[arg-type]


def test_rollouts_start_at_known_states_and_follow_the_elites_in_equal_parts() -> None:
    made = sampler().act(0)
    assert made.mask.shape == (12, 3) and made.mask.all()  # 10 rounded up to a multiple of 3
    state, after = made.context["observation"], made.context["next_observation"]
    assert torch.isin(state[:, 0, 0], KNOWN[:, 0]).all()
    torch.testing.assert_close(state[:, 1:], after[:, :-1])
    torch.testing.assert_close((after - state)[..., 0], made.reward)
    for step in range(3):
        members, counts = made.reward[:, step].round().unique(return_counts=True)
        assert members.tolist() == [1.0, 2.0, 3.0] and counts.tolist() == [4, 4, 4]
    assert not torch.equal(made.reward[:, 0], made.reward[:, 1])  # dealt anew at each step


def test_an_act_repeats_by_its_number() -> None:
    first, again, other = sampler().act(2), sampler().act(2), sampler().act(3)
    assert torch.equal(first.action, again.action) and not torch.equal(first.action, other.action)


def test_nothing_follows_a_terminated_step() -> None:
    def beyond(state: Tensor) -> Tensor:
        return state[..., 0] > 20.0

    made = sampler(horizon=6, ends=beyond, count=60).act(0)
    ended = made.terminated & made.mask
    assert ended.any() and not ended.all(1).any()
    for row in range(len(made)):
        places = ended[row].nonzero().flatten().tolist()
        assert len(places) <= 1
        if places:
            assert not made.mask[row, places[0] + 1 :].any() and made.mask[row, : places[0] + 1].all()
    assert not made.truncated.any()


def test_a_prediction_that_is_not_finite_is_masked() -> None:
    made = sampler(horizon=2)
    with torch.no_grad():
        made.model.bias[-1][3, 0, 0] = torch.nan
    acted = made.act(0)
    assert (~acted.mask[:, 0]).sum() == 4 and acted.context["next_observation"].isfinite().all()
    assert not acted.mask[~acted.mask[:, 0], 1].any()


def test_a_gaussian_model_adds_its_noise() -> None:
    made = sampler(gaussian=True).act(0)
    change = (made.context["next_observation"] - made.context["observation"])[..., 0]
    gap = (change - made.reward).abs()
    assert 0 < float(gap.max()) < 0.05  # deviation exp(-5)


def test_the_horizon_is_asked_at_each_act() -> None:
    made = sampler()
    made.horizon = iter((1, 4)).__next__
    assert [made.act(turn).mask.shape[1] for turn in range(2)] == [1, 4]


def test_no_gradient_is_kept() -> None:
    acted = sampler().act(0)
    assert not acted.action.requires_grad and not acted.reward.requires_grad
    assert acted.flatten().mask.shape == (36, 1)
    with pytest.raises(ValueError, match="count must be"):
        ImaginedSampler(sampler().actor, sampler().model, lambda: KNOWN, never, 0, lambda: 1, 0)
