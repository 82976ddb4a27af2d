"""Distractors: the task is untouched, the further numbers follow their own system, Gymnasium accepts them."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from ascent.worlds.distracted import KINDS, Distracted
from ascent.worlds.gym import make


@pytest.mark.filterwarnings("ignore:.*")  # advice about a wrapped environment's bounds
@pytest.mark.parametrize("kind", KINDS)
def test_gymnasium_accepts_it(kind: str) -> None:
    check_env(make("ascent/Distracted-v0", distractors=3, kind=kind), skip_render_check=True)


def played(steps: int = 60, seed: int = 4, **arguments: Any) -> NDArray[np.float32]:
    world = Distracted(**arguments)
    seen = [world.reset(seed=seed)[0]]
    seen += [world.step(np.array([0.3 * (-1) ** step], np.float32))[0] for step in range(steps)]
    return np.array(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_is_untouched(kind: Any) -> None:
    plain = gymnasium.make("Pendulum-v1")
    distracted = Distracted(distractors=5, kind=kind)
    first, second = plain.reset(seed=2)[0], distracted.reset(seed=2)[0]
    # Noise is drawn from the environment's own generator, which only its reset reads besides.
    np.testing.assert_allclose(second[:3], first, atol=1e-6)
    for step in range(20):
        action = np.array([np.sin(step)], np.float32)
        one, two = plain.step(action), distracted.step(action)
        np.testing.assert_allclose(two[0][:3], one[0], atol=1e-5)
        assert two[1] == pytest.approx(one[1]) and two[2:4] == one[2:4]


def test_linear_distractors_follow_the_map_whose_radius_is_1() -> None:
    world = Distracted(distractors=4)
    assert np.abs(np.linalg.eigvals(world.own)).max() == pytest.approx(1.0)
    seen = played(distractors=4)[:, 3:]
    np.testing.assert_allclose(seen[1:], seen[:-1] @ world.own.T, atol=1e-5)


def test_correlated_distractors_read_the_task() -> None:
    world = Distracted(distractors=4, correlated=True, limit=0.0)
    seen = played(distractors=4, correlated=True, limit=0.0)
    np.testing.assert_allclose(
        seen[1:, 3:], seen[:-1, 3:] @ world.own.T + seen[:-1, :3] @ world.driven.T, rtol=1e-4, atol=1e-3
    )


def test_nonlinear_distractors_add_waves() -> None:
    world = Distracted(distractors=2, kind="nonlinear", limit=0.0)
    world.reset(seed=0)
    world._distraction = np.array([0.2, -0.1])
    following = world._next()
    waves = [0.1 * sum(np.sin(world.waves[i, j] * d) for j, d in enumerate((0.2, -0.1))) for i in range(2)]
    np.testing.assert_allclose(following, world.own @ [0.2, -0.1] + waves)


def test_rotating_distractors_do_not_fade() -> None:
    seen = played(distractors=6, kind="rotation", scale=1.0)[:, 3:]
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), np.linalg.norm(seen[0]), rtol=1e-4)


def test_noise_is_standard_normal() -> None:
    seen = played(190, distractors=20, kind="noise")[1:, 3:]
    assert seen.mean() == pytest.approx(0.0, abs=0.06) and seen.std() == pytest.approx(1.0, abs=0.05)


def test_distractors_beyond_the_limit_start_anew() -> None:
    seen = played(190, distractors=3, correlated=True, limit=2.0)[:, 3:]
    assert np.abs(seen).max() <= 2.0


def test_seed_and_actions_decide() -> None:
    for kind in KINDS:
        first, second, third = (played(distractors=3, kind=kind, seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, second)
        assert not np.allclose(first, third)


def test_no_distractors_is_the_environment_itself() -> None:
    assert played(distractors=0).shape[1] == 3


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"distractors": -1}, "distractors must be"),
        ({"kind": "pixels"}, "kind must be"),
        ({"scale": 0.0}, "scale must be"),
        ({"limit": -1.0}, "limit must be"),
        ({"environment": "Blackjack-v1"}, "vector observation"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distracted(**arguments)
