"""The pendulum and the reactor: Gymnasium's checker, their equations, their counts."""

from __future__ import annotations

import math
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from scipy.integrate import solve_ivp

from ascent.policies.affine.linear import discretise, linearise
from ascent.worlds.gym import Environments, make
from ascent.worlds.regulated import ClippedPendulum, Regulated, SafetyReactor

NAMES = ("ascent/ClippedPendulum-v0", "ascent/SafetyReactor-v0")


@pytest.mark.parametrize("name", NAMES)
def test_gymnasiums_checker_passes(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*not within the recommended range|.*symmetric and normalized.*")
        check_env(gymnasium.make(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_episodes(name: str) -> None:
    first, second = make(name), make(name)
    assert (first.reset(seed=3)[0] == second.reset(seed=3)[0]).all()
    assert (first.reset(seed=4)[0] != second.reset(seed=5)[0]).any()
    first.reset(seed=6), second.reset(seed=6)
    for _ in range(20):
        action = first.action_space.sample()
        assert (first.step(action)[0] == second.step(action)[0]).all()


def test_the_pendulum_is_gymnasiums() -> None:
    ours, theirs = ClippedPendulum(), gymnasium.make("Pendulum-v1").unwrapped
    draw = np.random.default_rng(0)
    for _ in range(50):
        state, torque = draw.uniform([-3.1, -8.0], [3.1, 8.0]), draw.uniform(-3, 3, 1)
        ours.reset(options={"state": state})
        theirs.reset(seed=0)
        theirs.state = state.copy()  # type: ignore[attr-defined]
        seen, reward, *_ = ours.step(torque)
        wanted, cost, *_ = theirs.step(torque)
        assert reward == pytest.approx(float(cost), rel=1e-9)
        assert np.allclose([math.cos(seen[0]), math.sin(seen[0]), seen[1]], wanted, atol=1e-5)


def test_the_pendulum_counts_its_falls() -> None:
    plant = ClippedPendulum(fallen=1.0)
    plant.reset(options={"state": [0.9, 3.0]})
    counts = [plant.step(np.zeros(1))[4]["violations"] for _ in range(3)]
    assert counts == [1, 2, 3]
    assert plant.reset()[1]["violations"] == 3


def test_an_action_beyond_its_limits_is_clipped_and_so_is_its_cost() -> None:
    one, two = ClippedPendulum(), ClippedPendulum()
    for plant in (one, two):
        plant.reset(options={"state": [0.0, 0.0]})
    assert one.step(np.array([50.0]))[1] == two.step(np.array([2.0]))[1] == pytest.approx(-0.004)


def test_the_reactor_rests_at_its_set_point() -> None:
    plant = SafetyReactor()
    assert plant.coolant == pytest.approx(301.57, abs=0.01)
    assert plant.concentration == pytest.approx(0.5896, abs=1e-4)
    plant.reset(options={"state": [0.0, 0.0]})
    for _ in range(10):
        seen, reward, *_ = plant.step(np.zeros(1))
    assert np.abs(seen).max() < 1e-9 and reward > -1e-15


def test_the_reactors_step_is_its_differential_equation() -> None:
    plant, design = SafetyReactor(), SafetyReactor().design()
    draw = np.random.default_rng(1)
    for _ in range(5):
        state, control = draw.uniform([-0.1, -8.0], [0.1, 4.0]), draw.uniform(*design.control_limits)

        def rates(_: float, at: np.ndarray, held: np.ndarray = control) -> np.ndarray:
            return design.rates(torch.from_numpy(at), torch.from_numpy(held)).numpy()

        exact = solve_ivp(rates, (0.0, 0.1), state, rtol=1e-11, atol=1e-12).y[:, -1]
        assert np.allclose(plant._advance(state, control), exact, atol=1e-6)


def test_the_reactor_is_unstable_there() -> None:
    design = SafetyReactor().design()
    rate, inlet = linearise(design.rates, np.zeros(2), np.zeros(1))
    assert np.linalg.eigvals(rate).real.max() == pytest.approx(2.05, abs=0.01)
    a, _ = discretise(rate, inlet, design.seconds)
    assert np.abs(np.linalg.eigvals(a)).max() > 1.2


@pytest.mark.parametrize("plant", [ClippedPendulum(), SafetyReactor()])
def test_the_linear_model_is_the_plant_near_its_set_point(plant: Regulated) -> None:
    """Its error of one step shrinks with the square of the deviation, except for the pendulum's own integrator."""
    design = plant.design()
    a, b = discretise(*linearise(design.rates, np.zeros(2), np.zeros(1)), design.seconds)
    errors = []
    for scale in (1e-2, 1e-3):
        state, control = scale * np.array([1.0, -2.0]), scale * np.array([0.5])
        errors.append(np.abs(plant._advance(state, control) - (a @ state + b @ control)).max())
    if isinstance(plant, ClippedPendulum):
        assert errors[0] < 0.05 * 1e-2 and errors[1] < 0.05 * 1e-3
    else:
        assert errors[0] / errors[1] == pytest.approx(100.0, rel=0.05)


def test_passing_the_ceiling_ends_the_episode_and_costs() -> None:
    plant = SafetyReactor(ceiling=345.5)
    plant.reset(options={"state": [0.0, 0.4]})
    hot = plant.action_space.high  # type: ignore[attr-defined]
    _, reward, terminated, truncated, info = plant.step(hot)
    assert terminated and not truncated and reward < -1e5 and info["violations"] == 1
    going = SafetyReactor(ceiling=345.5, stop=False)
    going.reset(options={"state": [0.0, 0.4]})
    _, reward, terminated, _, info = going.step(hot)
    assert not terminated and reward > -10 and info["violations"] == 1


def test_copies_add_their_counts_up() -> None:
    worlds = Environments("ascent/ClippedPendulum-v0", 2, squashed=True, arguments={"fallen": 0.01, "spread": 0.5})
    worlds.reset([1, 2], np.ones(2, bool))
    for _ in range(3):
        worlds.step(np.ones((2, 1)))
    counts = [environment.unwrapped.violations for environment in worlds.vector.envs]  # type: ignore[attr-defined]
    assert worlds.violations() == sum(counts) > max(counts) > 0
    assert Environments("Pendulum-v1", 1).violations() is None


@pytest.mark.parametrize(
    ("make_one", "message"),
    [
        (lambda: ClippedPendulum(spread=0.0), "spread must be in"),
        (lambda: ClippedPendulum(fallen=4.0), "fallen must be in"),
        (lambda: SafetyReactor(target=330.0), "target must be in"),
        (lambda: SafetyReactor(ceiling=344.0), "ceiling must be above target"),
        (lambda: SafetyReactor(spread=2.0), "spread must be in"),
        (lambda: SafetyReactor(penalty=-1.0), "penalty must be >= 0"),
    ],
)
def test_bad_arguments_are_refused(make_one, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make_one()
