"""Credit of moments: one for all agents that decided together."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.returns import GAE, LambdaReturn, gae
from ascent.core.teams import EachAgent, Team, moments, team_reward


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


def apart(decisions: Decisions, agents: int = 2) -> Decisions:
    """The same with who decides, and nobody leaving."""
    agent = torch.arange(decisions.mask.shape[1]).expand(decisions.mask.shape) % agents
    return decisions.with_extras({"agent": agent, "left": torch.zeros_like(decisions.mask)})


def uneven(seed: int, rows: int = 4, length: int = 9, agents: int = 3) -> Decisions:
    """Random values and rewards of each agent; agents leave and come back, episodes end and are cut."""
    draw = torch.Generator().manual_seed(seed)
    shape = (rows, length, agents)
    ends = torch.rand(rows, length, 1, generator=draw).expand(shape)
    mask = torch.rand(shape, generator=draw) < 0.7
    following = torch.cat([mask[:, 1:], torch.ones(rows, 1, agents, dtype=torch.bool)], 1)
    left = mask & ~following & (ends > 0.3)
    time = torch.arange(length)[None, :, None].expand(shape)
    value, after, reward = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in range(3))
    return Decisions(
        mask=mask.flatten(1),
        segment=time.flatten(1),
        reward=reward.flatten(1),
        value=value.flatten(1),
        next_value=after.flatten(1),
        terminated=(ends < 0.15).flatten(1),
        truncated=((ends >= 0.15) & (ends < 0.3)).flatten(1),
        extras={"agent": torch.arange(agents).expand(shape).flatten(1), "left": left.flatten(1)},
    )


def test_each_agents_credit_by_hand() -> None:
    """Values 0, 0.5, 1 of agent 0 and 4, 4.5, 5 of agent 1; rewards 1, 2, 3 of the team; discount 0.9, trace 0.72."""
    decisions = apart(batch())
    second = decisions.extras["agent"] == 1
    decisions = decisions.replace(
        value=decisions.value + 4.0 * second,
        next_value=torch.where(decisions.terminated, 0.0, decisions.next_value + 4.0 * second),
    )
    found = EachAgent(GAE(0.9, 0.8))(decisions)
    # Deltas 1 + 0.45 - 0, 2 + 0.9 - 0.5, 3 - 1 and 1 + 4.05 - 4, 2 + 4.5 - 4.5, 3 - 5.
    first = [1.45 + 0.72 * (2.4 + 0.72 * 2.0), 2.4 + 0.72 * 2.0, 2.0]
    other = [1.05 + 0.72 * (2.0 + 0.72 * -2.0), 2.0 + 0.72 * -2.0, -2.0]
    assert found[0, ::2].tolist() == pytest.approx(first) and found[0, 1::2].tolist() == pytest.approx(other)


def test_nothing_follows_where_an_agent_left_and_the_others_go_on() -> None:
    decisions = apart(batch(length=4))
    mask, left = decisions.mask.clone(), decisions.mask & False
    mask[0, 4] = False  # agent 0 decides at 0 and 1, misses 2 and is back at 3
    left[0, 2] = True
    found = EachAgent(GAE(0.9, 0.8))(decisions.replace(mask=mask).with_extras({"left": left}))
    assert found[0, 2].item() == pytest.approx(2.0 - 0.5) and found[0, 4].item() == 0.0
    assert found[0, 0].item() == pytest.approx(1.0 + 0.45 + 0.72 * 1.5)
    whole = Team(GAE(0.9, 0.8))(decisions)
    assert torch.allclose(found[0, 1::2], whole[0, 1::2], atol=1e-14)
    assert found[0, 6].item() == pytest.approx(whole[0, 6].item())


@pytest.mark.parametrize("seed", range(5))
def test_each_agents_credit_is_the_plain_loops(seed: int) -> None:
    decisions, (gamma, trace) = uneven(seed), (0.9, 0.8)
    found = EachAgent(GAE(gamma, trace))(decisions)
    target = EachAgent(LambdaReturn(gamma, trace))(decisions)
    flat = {name: decisions.column(name).view(4, 9, 3).tolist() for name in decisions}
    wanted = torch.zeros(4, 9, 3, dtype=torch.float64)
    for row in range(4):
        for agent in range(3):
            running = 0.0
            for time in reversed(range(9)):
                now = {name: column[row][time] for name, column in flat.items()}
                if not now["mask"][agent]:
                    continue
                paid = [reward for reward, here in zip(now["reward"], now["mask"], strict=True) if here]
                over = now["terminated"][agent] or now["left"][agent]
                following = 0.0 if over else now["next_value"][agent]
                running = 0.0 if over or now["truncated"][agent] else running
                delta = sum(paid) / len(paid) + gamma * following - now["value"][agent]
                running = delta + gamma * trace * running
                wanted[row, time, agent] = running
    assert torch.allclose(found, wanted.flatten(1), atol=1e-12)
    assert torch.allclose(target, (found + decisions.value) * decisions.mask, atol=1e-12)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(EachAgent(GAE(gamma, trace))(decisions.rows(order)), found[order])


def test_agents_of_one_mind_get_the_teams_credit() -> None:
    decisions = apart(batch(agents=3), agents=3)
    assert torch.allclose(EachAgent(GAE(0.9, 0.8))(decisions), Team(GAE(0.9, 0.8))(decisions), atol=1e-14)
    assert not EachAgent(GAE())(decisions.replace(mask=torch.zeros_like(decisions.mask))).any()
