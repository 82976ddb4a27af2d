"""The equation: rules by hand, exact arithmetic, every start can be solved, and Gymnasium's own checks."""

from __future__ import annotations

import itertools
import warnings
from fractions import Fraction
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ascent.systems.config import ControlConfig
from ascent.systems.run import train
from ascent.worlds.gym import Environments
from ascent.worlds.linear_equation import ADD, DIVIDE, MULTIPLY, SUBTRACT, LinearEquation


def act(kind: int, number: int, negate: bool = False) -> np.ndarray:
    return np.array([kind, number - 1, negate])


def equation(a: int, b: int, c: int, steps: int = 50) -> LinearEquation:
    world = LinearEquation(steps)
    world.reset(seed=0)
    world.coefficients = [Fraction(a), Fraction(b), Fraction(c)]
    return world


def test_gymnasiums_checker_passes() -> None:
    assert Environments("ascent/LinearEquation-v0", 2).observation_size == 3
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Box observation space m..imum value is.*infinity.*")
        check_env(gymnasium.make("ascent/LinearEquation-v0").unwrapped, skip_render_check=True)


def test_a_solution_by_hand() -> None:
    """-3 x + 6 = 9: less 6, signs changed, divided by 3: x = -1, with the reward of the third step."""
    world = equation(-3, 6, 9)
    observation, reward, terminated, truncated, _ = world.step(act(SUBTRACT, 6))
    assert (observation.tolist(), reward, terminated, truncated) == ([-3.0, 0.0, 3.0], 0.0, False, False)
    # With the signs changed the rest of the action says nothing.
    assert world.step(act(MULTIPLY, 9, negate=True))[0].tolist() == [3.0, 0.0, -3.0]
    observation, reward, terminated, truncated, told = world.step(act(DIVIDE, 3))
    assert observation.tolist() == [1.0, 0.0, -1.0]
    assert reward == pytest.approx(1 - 0.9 * 2 / 50)
    assert (terminated, truncated, told) == (True, False, {"success": True})


def test_numbers_are_exact() -> None:
    world = equation(1, 3, 5)
    for _ in range(3):
        for kind in (DIVIDE, MULTIPLY):
            world.step(act(kind, 7))
    assert world.step(act(SUBTRACT, 3))[2]


def test_every_start_is_solved_in_three_steps() -> None:
    digits = [sign * number for sign in (-1, 1) for number in range(1, 10)]
    for a, b in itertools.product(digits, digits):
        world = equation(a, b, 1)
        found = world.step(act(SUBTRACT if b > 0 else ADD, abs(b)))
        if a < 0:
            found = world.step(act(ADD, 1, negate=True))
        if abs(a) > 1:
            found = world.step(act(DIVIDE, abs(a)))
        assert found[4]["success"]


def test_how_it_ends_unsolved() -> None:
    world = equation(2, 1, 1, steps=2)
    assert world.step(act(ADD, 1))[2:4] == (False, False)
    assert world.step(act(ADD, 1))[1:4] == (0.0, False, True)
    world = equation(9, 9, 9)
    # 9^41 > 3.4e38 > 9^40
    assert not any(world.step(act(MULTIPLY, 9))[2] for _ in range(39))
    observation, reward, terminated, _, told = world.step(act(MULTIPLY, 9))
    assert (terminated, reward, told["success"]) == (True, -1.0, False)
    assert np.isfinite(observation).all()
    with pytest.raises(ValueError, match="steps must be >= 1; got 0"):
        LinearEquation(0)


def test_starts_differ_and_repeat() -> None:
    world = LinearEquation()
    starts = [tuple(world.reset(seed=seed)[0].tolist()) for seed in range(200)]
    assert {abs(number) for start in starts for number in start} == set(range(1, 10))
    assert tuple(world.reset(seed=7)[0].tolist()) == starts[7]


def test_trees_learn_on_it(tmp_path: Path) -> None:
    """What is done, the number and the sign are three choices of one policy of trees."""
    result = train(
        ControlConfig(
            method="gbrl",
            env="ascent/LinearEquation-v0",
            environments=4,
            horizon=16,
            steps=2,
            episodes=2,
            set=("passes=1", "minibatches=2", "depth=2"),
            output=str(tmp_path / "run"),
            tensorboard=False,
            quiet=True,
        )
    )
    assert (result.model / "trees.safetensors").exists()
