"""Credit of moments: one for all agents that decided together."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.returns import GAE, LambdaReturn, gae
from ascent.core.teams import Team, moments, team_reward


def batch(agents: int = 2, length: int = 3) -> Decisions:
    """One row of `length` moments; the reward of a moment is 1, 2, 3, ... for every agent."""
    time = torch.arange(length).repeat_interleave(agents)[None]
    value = 0.5 * time.double()
    last_one = time == length - 1
    return Decisions(
        mask=torch.ones_like(time, dtype=torch.bool),
        segment=time + 7,
        reward=(time + 1).double(),
        value=value,
        next_value=torch.where(last_one, 0.0, value + 0.5),
        terminated=last_one,
        truncated=torch.zeros_like(last_one),
    )


def test_moments_are_numbered_and_end_with_their_last_agent() -> None:
    number, end = moments(batch())
    assert number.tolist() == [[0, 0, 1, 1, 2, 2]]
    assert end.tolist() == [[False, True] * 3]


def test_every_agent_gets_the_estimate_of_the_single_agent_stream() -> None:
    decisions = batch(agents=3)
    found = Team(GAE(0.9, 0.8))(decisions)
    one = decisions.replace(
        **{name: decisions.column(name)[:, ::3] for name in ("reward", "value", "next_value", "segment")},
        mask=decisions.mask[:, ::3],
        terminated=decisions.terminated[:, ::3],
        truncated=decisions.truncated[:, ::3],
    )
    alone = gae(one.reward, one.value, one.next_value, one.terminated, one.truncated, one.mask, 0.9, 0.8)
    assert torch.allclose(found, alone.repeat_interleave(3, 1), atol=1e-14)
    # By hand: deltas 1 + 0.9 * 0.5 - 0, 2 + 0.9 - 0.5, 3 - 1, trace 0.72.
    last = 2.0
    middle = 2.4 + 0.72 * last
    assert found[0, 8].item() == pytest.approx(last)
    assert found[0, 3].item() == pytest.approx(middle)
    assert found[0, 0].item() == pytest.approx(1.45 + 0.72 * middle)


def test_unequal_rewards_of_a_moment_count_by_their_mean_over_who_is_there() -> None:
    decisions = batch()
    reward = torch.tensor([[1.0, 3.0, 5.0, 100.0, 2.0, 2.0]]).double()
    mask = torch.tensor([[True, True, True, False, True, True]])
    assert team_reward(decisions.replace(reward=reward, mask=mask)).tolist() == [[2, 2, 5, 0, 2, 2]]


def test_an_agent_that_left_changes_nothing_but_its_own_place() -> None:
    decisions = batch()
    whole = Team(GAE(0.9, 0.8))(decisions)
    mask = torch.tensor([[True, True, False, True, True, False]])
    found = Team(GAE(0.9, 0.8))(decisions.replace(mask=mask))
    assert torch.allclose(found, whole * mask, atol=1e-14)


def test_lambda_returns_of_the_team_are_above_its_values() -> None:
    decisions = batch()
    target = Team(LambdaReturn(0.9, 0.8))(decisions)
    assert torch.allclose(target, Team(GAE(0.9, 0.8))(decisions) + decisions.value, atol=1e-14)


def test_nobody_decided() -> None:
    decisions = batch()
    assert not Team(GAE())(decisions.replace(mask=torch.zeros_like(decisions.mask))).any()
