"""Gymnasium environments: names, spaces, seeded masked resets, replay."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from ascent.worlds.gym import Environments, action_space, make


class Count(gymnasium.Env):
    """Observes its own step number; ends after `horizon` steps. Records the actions that it was given."""

    def __init__(self, horizon: int = 3, actions: spaces.Space | None = None, observations: spaces.Space | None = None):
        self.observation_space = observations or spaces.Box(0, np.inf, (1,), np.float32)
        self.action_space = actions or spaces.Discrete(2)
        self.horizon, self.number, self.given, self.offset = horizon, 0, [], 0.0

    def _see(self):
        return np.array([self.number + self.offset], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.offset = 0, float(self.np_random.integers(10)) / 100
        return self._see(), {}

    def step(self, action):
        self.given.append(action)
        self.number += 1
        return self._see(), 1.0, self.number == self.horizon, False, {}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("CartPole-v9", "CartPole-v1"), ("HalfCheetah", "HalfCheetah-v5"), ("pendulum-v1", "Pendulum-v1")],
)
def test_an_unknown_id_is_refused_with_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=f"got '{wrong}'. Did you mean '{right}'"):
        make(wrong)


def test_a_missing_package_is_named(monkeypatch):
    def absent(*_, **__):
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed.")

    monkeypatch.setattr(gymnasium, "make", absent)
    with pytest.raises(ImportError, match=r'pip install "gymnasium\[box2d\]"'):
        make("LunarLander-v3")


def test_discrete_observations_become_one_hot():
    world = make("FrozenLake-v1")
    seen, _ = world.reset(seed=0)
    assert seen.shape == (16,)
    assert seen.sum() == 1


def test_dict_observations_need_flatten():
    def build():
        return Count(observations=spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(0, 1, (2,))}))

    with pytest.raises(ValueError, match="flatten=True"):
        Environments(build, 1)
    assert Environments(build, 1, flatten=True).observation_size == 4


def test_unsupported_actions_are_refused():
    with pytest.raises(ValueError, match="Discrete, MultiDiscrete"):
        action_space(spaces.Dict({"a": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match="finite bounds"):
        Environments(lambda: Count(actions=spaces.Box(-np.inf, np.inf, (1,))), 1, squashed=True)


def test_box_actions_are_clipped_and_squashed_ones_scaled():
    box = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32))
    clipped = Environments(lambda: Count(actions=box), 1)
    np.testing.assert_array_equal(clipped.native(np.array([[5.0, -1.0]], np.float32)), [[2.0, 0.0]])
    scaled = Environments(lambda: Count(actions=box), 1, squashed=True)
    np.testing.assert_allclose(scaled.native(np.array([[-1.0, 0.5]], np.float32)), [[-2.0, 0.75]])


def test_discrete_actions_start_where_the_space_does():
    worlds = Environments(lambda: Count(actions=spaces.Discrete(3, start=-1)), 2)
    worlds.reset([0, 1], np.ones(2, bool))
    worlds.step(np.array([0, 2]))
    assert [world.unwrapped.given for world in worlds.vector.envs] == [[-1], [1]]
    several = Environments(lambda: Count(actions=spaces.MultiDiscrete([2, 3], start=[1, 5])), 1)
    np.testing.assert_array_equal(several.native(np.array([[1, 2]])), [[2, 7]])


def test_the_last_observation_is_the_true_one_and_only_chosen_copies_restart():
    horizons = iter((2, 3))
    worlds = Environments(lambda: Count(next(horizons)), 2)
    worlds.reset([0, 1], np.ones(2, bool))
    worlds.step(np.zeros(2, int))
    seen, _, terminated, truncated = worlds.step(np.zeros(2, int))
    assert seen.round().ravel().tolist() == [2, 2]
    assert terminated.tolist() == [True, False]
    assert not truncated.any()
    seen = worlds.reset([7, None], terminated)
    assert seen.round().ravel().tolist() == [0, 2]
    seen, _, terminated, _ = worlds.step(np.zeros(2, int))
    assert seen.round().ravel().tolist() == [1, 3]
    assert terminated.tolist() == [False, True]


def test_a_seed_decides_the_start():
    worlds = Environments("CartPole-v1", 2)
    first = worlds.reset([3, 4], np.ones(2, bool)).copy()
    second = worlds.reset([4, 3], np.ones(2, bool)).copy()
    np.testing.assert_array_equal(first, second[::-1])
    assert not np.array_equal(first[0], first[1])


def test_replay_gives_the_observation_and_refuses_an_early_end():
    worlds = Environments("CartPole-v1", 2)
    worlds.reset([3, 4], np.ones(2, bool))
    for action in (0, 1, 1):
        seen, *_ = worlds.step(np.full(2, action))
    wanted = seen[1].copy()
    worlds.reset([None, 4], np.array([False, True]))
    np.testing.assert_array_equal(worlds.replay(1, [np.int64(0), np.int64(1), np.int64(1)]), wanted)
    short = Environments(lambda: Count(2), 1)
    short.reset([0], np.ones(1, bool))
    with pytest.raises(ValueError, match="action 2 of 3"):
        short.replay(0, [np.int64(0)] * 3)


def test_no_environment_is_refused():
    with pytest.raises(ValueError, match="environments must be an integer >= 1; got 0"):
        Environments("CartPole-v1", 0)


def test_a_copy_whose_episode_is_over_must_be_reset():
    worlds = Environments(lambda: Count(2), 2)
    with pytest.raises(RuntimeError, match="copy 0"):
        worlds.step(np.zeros(2, int))
    worlds.reset([0, 1], np.ones(2, bool))
    worlds.step(np.zeros(2, int))
    worlds.step(np.zeros(2, int))
    worlds.reset([0, None], np.array([True, False]))
    with pytest.raises(RuntimeError, match="copy 1"):
        worlds.step(np.zeros(2, int))
