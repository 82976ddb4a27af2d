"""Noisy forces and rewards: the mean stays, the seed decides, Gymnasium accepts them."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ascent.worlds.noisy import NoisyForce, NoisyReward, timed


@pytest.mark.filterwarnings("ignore:.*")  # advice about a wrapped environment's bounds
@pytest.mark.parametrize("name", ("ascent/NoisyCartPole-v0", "ascent/NoisyMountainCar-v0", "ascent/NoisyPendulum-v0"))
def test_gymnasium_accepts_it(name: str) -> None:
    check_env(gymnasium.make(name), skip_render_check=True)


@pytest.mark.parametrize("low, high, mean", [(0.7, 1.3, 1.0), (1.7, 2.3, 2.0), (1.0, 1.0, 1.0)])
def test_the_pushs_mean_and_range(low: float, high: float, mean: float) -> None:
    noisy = NoisyForce("CartPole-v1", low, high)
    factors = []
    noisy.reset(seed=0)
    for _ in range(400):
        if noisy.step(1)[2]:
            noisy.reset()
        factors.append(vars(noisy.unwrapped)["force_mag"] / 10.0)
    assert min(factors) >= low and max(factors) <= high
    assert np.mean(factors) == pytest.approx(mean, abs=0.03)


def test_without_noise_it_is_the_environment_itself() -> None:
    plain, noisy = gymnasium.make("CartPole-v1"), NoisyForce("CartPole-v1", 1.0, 1.0)
    plain.reset(seed=3), noisy.reset(seed=3)
    for action in (0, 1, 1, 0, 1):
        np.testing.assert_array_equal(plain.step(action)[0], noisy.step(action)[0])


def test_seed_and_actions_decide() -> None:
    def play(seed: int) -> list[float]:
        noisy = NoisyReward()
        noisy.reset(seed=seed)
        return [float(noisy.step(np.array([0.5], np.float32))[1]) for _ in range(20)]

    assert play(1) == play(1) and play(1) != play(2)


def test_rewards_have_heavy_tails_round_the_true_ones() -> None:
    noisy, plain = NoisyReward(scale=1.0), NoisyReward(on=False)
    noisy.reset(seed=0), plain.reset(seed=0)
    action = np.array([0.0], np.float32)
    gaps = np.array([noisy.step(action)[1] - plain.step(action)[1] for _ in range(190)])
    assert abs(np.median(gaps)) < 0.25 and np.abs(gaps).max() > 3


def test_the_time_is_the_last_number_of_an_observation() -> None:
    world = gymnasium.make("ascent/Timed-v0", environment="Pendulum-v1", g=9.0)
    assert world.unwrapped.g == 9.0  # type: ignore[attr-defined]
    first, _ = world.reset(seed=0)
    assert first.shape == (4,) and first[-1] == 0.0
    for count in range(1, 201):
        observation, _, terminated, truncated, _ = world.step(world.action_space.sample())
        assert observation[-1] == pytest.approx(count / 200) and not terminated
    assert truncated


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: NoisyForce("Acrobot-v1"), "environment must be"),
        (lambda: NoisyForce(low=2.0, high=1.0), "low and high must be"),
        (lambda: NoisyReward(degrees=2.0), "degrees must be"),
        (lambda: NoisyReward(scale=-1.0), "scale must be"),
        (lambda: timed("Blackjack-v1"), "must have a time limit"),
    ],
)
def test_bad_arguments_are_refused_by_name(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
