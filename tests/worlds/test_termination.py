"""Known terminations agree with the worlds themselves."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from ascent.worlds.termination import KNOWN, termination


@pytest.mark.parametrize(
    "name, size",
    [
        ("Pendulum-v1", 3),
        ("MountainCarContinuous-v0", 2),
        ("Hopper-v5", 11),
        ("Walker2d-v5", 17),
        ("Ant-v5", 105),
        ("InvertedPendulum-v5", 4),
        ("HalfCheetah-v5", 17),
        ("Swimmer-v5", 8),
        ("Reacher-v5", 10),
    ],
)
def test_it_says_what_the_world_says(name: str, size: int) -> None:
    if name.endswith("-v5"):
        pytest.importorskip("mujoco")
    world, ends = gymnasium.make(name), termination(name)
    ended = 0
    for episode in range(4):
        world.reset(seed=episode)
        world.action_space.seed(episode)
        for _ in range(120):
            observation, _, terminated, truncated, _ = world.step(world.action_space.sample())
            assert bool(ends(torch.as_tensor(np.asarray(observation)[None]))[0]) == terminated
            ended += terminated
            if terminated or truncated:
                break
    assert size == KNOWN[name.rsplit("-", 1)[0]][0]
    assert ended > 0 or name.rsplit("-", 1)[0] not in ("Hopper", "Walker2d", "InvertedPendulum")


def test_at_the_flag_the_car_ends_and_distractors_are_not_read() -> None:
    ends = termination("MountainCarContinuous-v0")
    states = torch.tensor([[0.46, 0.01, -9.0], [0.46, -0.01, 9.0], [0.1, 0.01, 9.0]])
    assert ends(states).tolist() == [True, False, False]
    ends = termination("Hopper-v4")
    state = torch.zeros(1, 13)
    state[0, 0], state[0, 12] = 1.2, 1e6
    assert not ends(state)[0]


def test_unknown_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="Humanoid-v5"):
        termination("Humanoid-v5")
