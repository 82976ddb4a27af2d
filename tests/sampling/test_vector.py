"""The vector sampler: what it records is what happened, and a resumed one goes on bit for bit."""

from __future__ import annotations

import copy
import io
import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.recurrent import RecurrentActorCritic
from ascent.sampling.vector import VectorSampler, since_start
from ascent.worlds.gym import Environments


class Corridor(gymnasium.Env):
    """Observes (episode's random tag, position); action 1 moves; ends at 3, or is cut after 5 steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.tag, self.position, self.age = float(self.np_random.random()), 0, 0
        return self._see(), {}

    def _see(self):
        return np.array([self.tag, self.position], np.float32)

    def step(self, action):
        self.position += int(action)
        self.age += 1
        return self._see(), float(self.position), self.position == 3, self.age == 5, {}


def sampler_for(world, count=3, steps=16, recurrent=False, seed=0, share=(0, 1), **arguments):
    worlds = Environments(world, count)
    build = RecurrentActorCritic if recurrent else ActorCritic
    return VectorSampler(
        build(worlds.observation_size, Head.of(worlds.actions)), worlds, steps, seed, share=share, **arguments
    )


def assert_same(first, second):
    one, other = first.to_tensors(), second.to_tensors()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_columns_tell_what_happened():
    sampler = sampler_for(Corridor)
    decisions = sampler.act(0)
    seen = decisions.context["observation"].numpy()
    following = decisions.context["next_observation"].numpy()
    action, reward = decisions.action.numpy(), decisions.reward.numpy()
    terminated, truncated = decisions.terminated.numpy(), decisions.truncated.numpy()
    assert terminated.any()
    assert truncated.any()
    assert not (terminated & truncated).any()
    for row in range(3):
        age = 0
        for column in range(16):
            age += 1
            tag, position = seen[row, column]
            assert following[row, column].tolist() == [tag, position + action[row, column]]
            assert reward[row, column] == following[row, column, 1]
            assert terminated[row, column] == (following[row, column, 1] == 3)
            assert truncated[row, column] == (age == 5 and not terminated[row, column])
            ended = terminated[row, column] or truncated[row, column]
            age = 0 if ended else age
            if column + 1 < 16:
                assert (decisions.trajectory[row, column + 1] == decisions.trajectory[row, column] + int(ended)).item()
                if ended:
                    assert seen[row, column + 1, 1] == 0
                    assert seen[row, column + 1, 0] != tag
                else:
                    assert (seen[row, column + 1] == following[row, column]).all()
    assert decisions.index[0].tolist() == list(range(16))
    assert sampler.consumed == 48
    assert len(torch.unique(decisions.trajectory)) == len(sampler.finished) + int(
        (~(terminated | truncated)[:, -1]).sum()
    )


def test_finished_episodes_have_their_returns_and_lengths():
    sampler = sampler_for(Corridor, steps=7)
    for _ in range(3):
        decisions = sampler.act(0)
        ended = decisions.terminated | decisions.truncated
        assert len(sampler.finished) == int(ended.sum())
    whole = sampler_for(Corridor, steps=21).act(0)
    wanted = []
    for column in range(21):
        for row in range(3):
            if whole.terminated[row, column] or whole.truncated[row, column]:
                same = (whole.trajectory[row] == whole.trajectory[row, column]).nonzero()[:, 0]
                wanted.append((float(whole.reward[row, same].sum()), len(same)))
    assert list(sampler.recent) == wanted
    found = sampler.statistics()
    assert found["episode_return"] == pytest.approx(np.mean([total for total, _ in wanted]))
    assert found["episode_length"] == pytest.approx(np.mean([length for _, length in wanted]))


@pytest.mark.parametrize("world", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_behaviour_log_prob_is_the_policys(world, recurrent):
    sampler = sampler_for(world, recurrent=recurrent)
    sampler.act(0)
    decisions = sampler.act(1)
    annotated = sampler.policy.annotate(decisions, frozenset({"old_log_prob"}))
    torch.testing.assert_close(decisions.behaviour_log_prob, annotated.old_log_prob, rtol=1e-5, atol=1e-5)


def test_acting_in_numpy_draws_the_actions_that_torch_would():
    sampler = sampler_for("CartPole-v1")
    decisions = sampler.act(0)
    head = sampler.policy.head
    noise = head.noise(sampler._keys[:, None].expand(3, 16), decisions.index)
    with torch.no_grad():
        outputs = sampler.policy.actor(decisions.context["observation"])
    assert torch.equal((outputs + torch.from_numpy(noise)).argmax(-1), decisions.action)


def through_files(state):
    """A state as a checkpoint keeps it: JSON, with tensors aside."""
    tensors = []

    def aside(item):
        tensors.append(item)
        return {"tensor": len(tensors) - 1}

    text = json.dumps(state, default=aside)
    file = io.BytesIO()
    torch.save(tensors, file)
    file.seek(0)
    saved = torch.load(file)
    return json.loads(text, object_hook=lambda item: saved[item["tensor"]] if set(item) == {"tensor"} else item)


@pytest.mark.parametrize(
    ("world", "recurrent", "normalise"),
    [
        ("CartPole-v1", False, False),
        ("CartPole-v1", True, True),
        ("Pendulum-v1", False, True),
        ("HalfCheetah-v5", False, True),
        ("Hopper-v5", False, True),
        (Corridor, True, False),
    ],
)
def test_a_resumed_sampler_goes_on_bit_for_bit(world, recurrent, normalise):
    arguments = {"normalise_observation": normalise, "normalise_reward": normalise, "count": 2, "steps": 37}
    sampler = sampler_for(world, recurrent=recurrent, **arguments)
    for step in range(3):
        sampler.act(step)
    state = through_files(sampler.state_dict())
    resumed = sampler_for(world, recurrent=recurrent, **arguments)
    resumed.policy.load_state_dict(copy.deepcopy(sampler.policy.state_dict()))
    resumed.load_state_dict(state)
    for step in range(3, 6):
        assert_same(sampler.act(step), resumed.act(step))
    assert sampler.statistics() == resumed.statistics()
    assert sampler.consumed == resumed.consumed
    assert json.dumps(sampler.state_dict(), default=lambda x: x.tolist()) == json.dumps(
        resumed.state_dict(), default=lambda x: x.tolist()
    )


def test_draws_depend_on_the_copys_number_only():
    together = sampler_for(Corridor, count=4).act(0)
    first, second = sampler_for(Corridor, count=2, share=(0, 2)), sampler_for(Corridor, count=2, share=(1, 2))
    parts = [first.act(0), second.act(0)]
    for name, column in together.to_tensors().items():
        torch.testing.assert_close(torch.cat([part.to_tensors()[name] for part in parts]), column, msg=name)
    assert first.consumed == 64


def test_raw_numbers_are_kept_where_they_were_normalised():
    sampler = sampler_for("Pendulum-v1", normalise_observation=True, normalise_reward=True)
    plain = sampler_for("Pendulum-v1")
    decisions, wanted = sampler.act(0), plain.act(0)
    first = wanted.context["observation"][:, 0]
    assert torch.equal(decisions.column("raw_observation")[:, 0], first)
    assert not torch.equal(decisions.context["observation"][:, 0], first)
    statistics = sampler.observation_statistics
    seen = np.concatenate(
        [decisions.column("raw_observation")[:, 0], *decisions.column("raw_next_observation").numpy()]
    )
    np.testing.assert_allclose(statistics.mean, seen.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics.variance, seen.var(0), rtol=1e-5)
    assert float(decisions.column("raw_reward").min()) < float(decisions.reward.min()) < 0


def test_next_values_may_be_shifted_because_the_successor_is_seen_as_the_next_observation():
    sampler = sampler_for("Pendulum-v1", normalise_observation=True)
    decisions = sampler.act(0)
    seen, following = decisions.context["observation"], decisions.context["next_observation"]
    assert torch.equal(seen[:, 1:], following[:, :-1])


def test_bad_arguments_and_foreign_states_are_refused():
    with pytest.raises(ValueError, match="steps must be an integer >= 1; got 0"):
        sampler_for(Corridor, steps=0)
    with pytest.raises(ValueError, match="share must be"):
        sampler_for(Corridor, share=(2, 2))
    with pytest.raises(ValueError, match="steps 3 environments, this one 2"):
        sampler_for(Corridor, count=2).load_state_dict(sampler_for(Corridor).state_dict())
    with pytest.raises(ValueError, match="no reward_scale"):
        sampler_for(Corridor, normalise_reward=True).load_state_dict(sampler_for(Corridor).state_dict())


def test_columns_are_contiguous_so_that_a_checkpoint_changes_no_sum():
    decisions = sampler_for("Pendulum-v1", normalise_observation=True, recurrent=True).act(0)
    assert all(tensor.is_contiguous() for tensor in decisions.to_tensors().values())


def test_elapsed_counts_from_the_start_of_each_episode_across_calls() -> None:
    ages, ended = np.array((2, 0)), np.array(((False, True), (True, False), (False, False)))
    assert since_start(ages, ended).tolist() == [[2, 0], [3, 0], [0, 1]]
    policy = ActorCritic(4, Head.of(Environments("CartPole-v1").actions), seed=0)
    sampler = VectorSampler(policy, Environments("CartPole-v1", 2), 37, seed=3, elapsed=True)
    before = [0, 0]
    for _ in range(3):
        batch = sampler.act()
        over = (batch.terminated | batch.truncated).tolist()
        for row in range(2):
            for column in range(37):
                assert int(batch.extras["elapsed"][row, column]) == before[row]
                before[row] = 0 if over[row][column] else before[row] + 1
