"""The toy worlds: Gymnasium's own checker, and the numbers that they are known by."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import ascent.worlds.toy

WORLDS = ("ascent/Bandit-v0", "ascent/TwoStep-v0", "ascent/GridWorld5-v0", "ascent/GridWorld8-v0")


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_it(name):
    check_env(gymnasium.make(name, disable_env_checker=True).unwrapped, skip_render_check=True)


def test_registering_twice_changes_nothing():
    before = len(gymnasium.registry)
    ascent.worlds.toy.register()
    assert len(gymnasium.registry) == before


def play(name, actions):
    world = gymnasium.make(name)
    state, _ = world.reset(seed=0)
    steps = [world.step(action) for action in actions]
    return state, steps


def test_two_step_branches():
    ends = {}
    for first in (0, 1):
        for second in (0, 1):
            start, steps = play("ascent/TwoStep-v0", (first, second))
            assert start == 0
            assert [step[2] for step in steps] == [False, True]
            assert not steps[-1][3]
            ends[first, second] = (steps[1][0], steps[0][1] + steps[1][1])
    assert ends == {(0, 0): (3, 2.0), (0, 1): (4, 0.5), (1, 0): (5, 1.0), (1, 1): (6, 1.0)}


def test_grid_goals_walls_and_horizon():
    state, steps = play("ascent/GridWorld5-v0", (0, 0, 2, 2))
    assert state == 12
    assert [step[0] for step in steps] == [7, 2, 1, 0]
    assert [step[1] for step in steps] == [-0.01, -0.01, -0.01, 0.5]
    assert steps[-1][2]
    assert not steps[-1][3]
    _, steps = play("ascent/GridWorld5-v0", (1, 1, 3, 3))
    assert steps[-1][:3] == (24, 1.0, True)
    _, steps = play("ascent/GridWorld5-v0", (0, 1) * 8)
    assert [step[3] for step in steps[:15]] == [False] * 14 + [True]


def test_large_grid_punishes_bumps():
    state, steps = play("ascent/GridWorld8-v0", (0, 1, 3))
    assert state == 0
    assert [step[:2] for step in steps] == [(0, -1.0), (8, -0.1), (9, -0.1)]
    _, steps = play("ascent/GridWorld8-v0", (1,) * 7 + (3,) * 7)
    assert steps[-1][:3] == (63, 1.0, True)


def test_a_bandit_pays_its_arm_and_ends():
    world = ascent.worlds.toy.Bandit(3, (0.0, 2.0, -1.0))
    world.reset(seed=0)
    assert [world.step(arm)[1:4] for arm in range(3)] == [(0.0, True, False), (2.0, True, False), (-1.0, True, False)]
    with pytest.raises(ValueError, match="rewards must be 2 numbers"):
        ascent.worlds.toy.Bandit(2, (1.0,))
