"""The room of words: rules by hand, codes that agree, and Gymnasium's own checks."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ascent.worlds.door_key import EMPTY, GOAL, KEY, LOCKED, OPEN, PICK_UP, TOGGLE, WALL, WORDS, DoorKey
from ascent.worlds.gym import Environments

CODINGS = ["category", "integer", "one_hot", "words"]
UP, DOWN, LEFT, RIGHT = range(4)


@pytest.mark.parametrize("observation", CODINGS)
def test_gymnasiums_checker_passes(observation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("ascent/DoorKey-v0", observation=observation).unwrapped, skip_render_check=True)


def placed() -> DoorKey:
    """A row of four: the agent, the key, the door, the goal."""
    world = DoorKey(size=4, steps=10)
    world.reset(seed=0)
    world._grid[:] = WALL
    for column, thing in enumerate((EMPTY, KEY, LOCKED, GOAL)):
        world._set(0, column, thing)
    world._place, world._facing = (0, 0), DOWN
    return world


def test_the_way_to_the_goal_by_hand() -> None:
    world = placed()
    # The key is in the way, and is not picked up with the eyes elsewhere.
    assert world.step(PICK_UP)[1:4] == (0.0, False, False)
    world.step(RIGHT)
    assert (world._place, world.words()[-2:]) == ((0, 0), ("right", "nothing"))
    world.step(PICK_UP)
    assert world.words()[-1] == "key"
    world.step(RIGHT)
    assert world._place == (0, 1)
    world.step(RIGHT)
    assert world._place == (0, 1)
    world.step(TOGGLE)
    assert world._cell(0, 2) == OPEN
    world.step(RIGHT)
    observation, reward, terminated, truncated, told = world.step(RIGHT)
    assert (terminated, truncated, told["success"]) == (True, False, True)
    assert reward == pytest.approx(1 - 0.9 * 8 / 10)
    assert observation[12] == GOAL


def test_the_door_stays_shut_without_the_key() -> None:
    world = placed()
    world._set(0, 1, EMPTY)
    world.step(RIGHT)
    world.step(RIGHT)
    world.step(TOGGLE)
    assert (world._cell(0, 2), world._place) == (LOCKED, (0, 1))


def test_it_is_truncated_in_time() -> None:
    world = placed()
    ends = [world.step(UP)[2:4] for _ in range(10)]
    assert ends == [(False, False)] * 9 + [(False, True)]


def seen(observation: str, seed: int) -> Any:
    return DoorKey(observation, 5).reset(seed=seed)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_all_codings_say_the_same(seed: int) -> None:
    codes = seen("category", seed)
    assert np.array_equal(seen("integer", seed), codes)
    assert seen("words", seed) == tuple(listed[code] for listed, code in zip(WORDS, codes, strict=True))
    flat = np.concatenate([np.eye(len(listed))[code] for listed, code in zip(WORDS, codes, strict=True)])
    assert np.array_equal(seen("one_hot", seed), flat)


@pytest.mark.parametrize("seed", range(20))
def test_every_room_can_be_solved_and_begins_as_it_should(seed: int) -> None:
    world = DoorKey(size=4 + seed % 3)
    world.reset(seed=seed)
    things = world._grid[2:-2, 2:-2]
    assert [(things == thing).sum() for thing in (KEY, LOCKED, GOAL)] == [1, 1, 1]
    wall = int(np.argwhere(things == LOCKED)[0, 1])
    assert (np.delete(things[:, wall], np.argwhere(things == LOCKED)[0, 0]) == WALL).all()
    assert np.argwhere(things == KEY)[0, 1] < wall < np.argwhere(things == GOAL)[0, 1]
    assert world._place[1] < wall
    assert things[world._place] == EMPTY


def test_codes_stay_codes_for_those_who_ask() -> None:
    kept = Environments("ascent/DoorKey-v0", 2, codes=True)
    assert (kept.observation_size, all(kept.categorical)) == (27, True)
    spread = Environments("ascent/DoorKey-v0", 2)
    assert (spread.observation_size, any(spread.categorical)) == (sum(map(len, WORDS)), False)
    plain = Environments("CartPole-v1", 1, codes=True)
    assert plain.categorical == (False,) * 4
    start = kept.reset([0, 1], np.ones(2, bool))
    assert np.array_equal(start[0], seen("category", 0))
    # Discrete states are a single category.
    grid = Environments("ascent/GridWorld5-v0", 1, codes=True)
    assert (grid.observation_size, grid.categorical) == (1, (True,))
    assert grid.reset([0], np.ones(1, bool)).tolist() == [[12.0]]


def test_it_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="observation must be category"):
        DoorKey("pixels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size must be >= 4"):
        DoorKey(size=3)
