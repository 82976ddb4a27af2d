"""Several agents in the one batch: layout, masks, draws by name, and going on after a stop."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("pettingzoo")

from ascent.policies.bayesian_network import BayesianNetwork
from ascent.policies.graphs import Kind
from ascent.sampling.teams import TeamSampler
from ascent.worlds.teams.parallel import Teams
from tests.worlds.teams.test_parallel import Leaving


def made(
    environment: object = "ascent/Coordination-v0",
    copies: int = 2,
    graph: Kind = "learned",
    critic: str = "central",
    recurrent: bool = False,
    **more: object,
):
    teams = Teams(environment, copies)  # type: ignore[arg-type]
    policy = BayesianNetwork(
        teams.agents,
        teams.observation_size,
        teams.actions,
        teams.state_size,
        graph,
        hidden=(8,),
        seed=1,
        critic=critic,  # type: ignore[arg-type]
        recurrent=recurrent,
    )
    return policy, TeamSampler(policy, teams, **{"steps": 10, "seed": 3, **more})  # type: ignore[arg-type]


def test_agents_of_a_moment_are_consecutive_decisions_of_one_segment() -> None:
    _, sampler = made(steps=30)
    first, second = sampler.act(), sampler.act()
    assert first.mask.shape == (2, 90) and first.whole
    assert first.segment[0, :7].tolist() == [0, 0, 0, 1, 1, 1, 2] and second.segment[0, 0].item() == 30
    assert first.extras["agent"][0, :5].tolist() == [0, 1, 2, 0, 1]
    assert (first.reward.view(2, 30, 3) == first.reward.view(2, 30, 3)[..., :1]).all()
    ended = first.truncated.view(2, 30, 3)
    assert ended[:, 24].all() and ended.sum() == 6 and not first.terminated.any()
    assert first.trajectory.view(2, 30, 3)[0, :, 0].diff().tolist() == [0] * 24 + [1] + [0] * 4
    state = first.context["state"].view(2, 30, 3, -1)
    successor = first.context["next_state"].view(2, 30, 3, -1)
    assert torch.equal(successor[:, :24], state[:, 1:25])
    assert torch.equal(state[:, :, 0], state[:, :, 2]) and first.extras["graph_noise"].shape == (2, 90, 9)
    assert sampler.consumed == 120 and sampler.statistics()["episode_length"] == 25


def test_the_policy_gives_the_recorded_actions_the_recorded_chances() -> None:
    policy, sampler = made(copies=4)
    decisions = sampler.act()
    now = policy.evaluate(decisions, frozenset({"log_prob"})).log_prob
    assert torch.allclose(now, decisions.behaviour_log_prob, atol=1e-5)


def test_a_copy_draws_the_same_whoever_runs_beside_it() -> None:
    _, two = made(copies=2)
    whole = two.act()
    _, second = made(copies=1, share=(1, 2))
    part = second.act()
    assert torch.equal(part.action[0], whole.action[1]) and torch.equal(part.reward[0], whole.reward[1])
    assert torch.equal(part.trajectory[0], whole.trajectory[1])
    assert second.consumed == two.consumed


@pytest.mark.parametrize("graph", ["learned", "empty"])
def test_memory_is_replayed_over_collections_and_episodes(graph: Kind) -> None:
    policy, sampler = made(copies=4, steps=17, graph=graph, recurrent=True)
    with torch.no_grad():  # so that what is remembered matters
        policy.weight.mul_(100.0)
    first, second = sampler.act(), sampler.act()
    assert not first.context["memory"].any() and second.context["memory"].any() and second.truncated.any()
    for decisions in (first, second):
        now = policy.evaluate(decisions, frozenset({"log_prob"})).log_prob
        assert torch.allclose(now, decisions.behaviour_log_prob, atol=1e-5)
    none = second.replace(context={**second.context, "memory": torch.zeros_like(second.context["memory"])})
    off = (policy.evaluate(none, frozenset({"log_prob"})).log_prob - second.behaviour_log_prob).abs().view(4, 17, 3)
    assert off[:, :8].max() > 1e-2 and off[:, 8:].max() < 1e-5  # a new episode begins at moment 8


def test_an_episode_that_ends_with_a_collection_leaves_no_memory() -> None:
    _, sampler = made(steps=25, recurrent=True)
    assert sampler.act().truncated[:, -1].all() and not sampler.act().context["memory"].any()


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_restored_sampler_goes_on_bit_for_bit(recurrent: bool) -> None:
    _, sampler = made(steps=17, recurrent=recurrent)
    sampler.act()
    state = copy.deepcopy(sampler.state_dict())
    wanted = sampler.act()
    _, restored = made(steps=17, recurrent=recurrent)
    restored.load_state_dict(state)
    found = restored.act()
    flat = found.to_tensors()
    assert all(torch.equal(tensor, flat[name]) for name, tensor in wanted.to_tensors().items())
    assert restored.statistics() == sampler.statistics()
    _, other = made(copies=3)
    with pytest.raises(ValueError, match="use as many"):
        other.load_state_dict(state)


def test_who_left_is_masked_and_forbidden_actions_are_not_taken() -> None:
    policy, sampler = made(Leaving, steps=7, graph="complete")
    decisions = sampler.act()
    mask = decisions.mask.view(2, 7, 2)
    assert mask[0, :, 0].tolist() == [True, False, False, True, False, False, True] and mask[..., 1].all()
    assert set(decisions.action[decisions.mask].unique().tolist()) <= {0, 2}
    assert decisions.terminated.view(2, 7, 2)[0, :, 1].tolist() == [False, False, True] * 2 + [False]
    assert sampler.statistics() == {"episode_return": 6.0, "episode_length": 3.0}
    now = policy.evaluate(decisions, frozenset({"log_prob", "entropy"}))
    found = (now.log_prob - decisions.behaviour_log_prob)[decisions.mask]
    assert float(found.detach().abs().max()) < 1e-5 and torch.isfinite(now.entropy).all()


def test_own_critics_get_successors_and_where_their_agent_left() -> None:
    _, sampler = made(Leaving, steps=7, graph="complete", critic="own")
    decisions = sampler.act()
    left = decisions.extras["left"].view(2, 7, 2)
    assert left[0, :, 0].tolist() == [True, False, False] * 2 + [True] and not left[..., 1].any()
    now, after = (decisions.context[name].view(2, 7, 2, -1) for name in ("observation", "next_observation"))
    assert torch.equal(after[:, [0, 1, 3, 4], 1], now[:, [1, 2, 4, 5], 1]) and not after[:, :, 0].any()
    plain = made(Leaving, steps=7, graph="complete")[1].act()
    assert "left" not in plain and "next_observation" not in plain.context
    assert torch.equal(plain.action, decisions.action) and torch.equal(plain.reward, decisions.reward)


def test_the_successor_of_a_cut_episode_is_what_was_seen_last() -> None:
    _, sampler = made(steps=26, critic="own")
    decisions = sampler.act()
    now, after = (decisions.context[name].view(2, 26, 3, -1) for name in ("observation", "next_observation"))
    assert torch.equal(after[:, :24], now[:, 1:25]) and not torch.equal(after[:, 24], now[:, 25])
    assert torch.equal(after[:, 24, 0], decisions.context["next_state"].view(2, 26, 3, -1)[:, 24, 0])
    assert decisions.truncated.view(2, 26, 3)[:, 24].all() and not decisions.extras["left"].any()


def test_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be"):
        made(steps=0)
