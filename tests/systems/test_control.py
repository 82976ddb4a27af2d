"""The control assembly: sizes, normalisation, what is saved, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ascent.systems.config import BadConfig
from ascent.systems.control import build, horizon, planned, sampling
from ascent.systems.run import train
from ascent.training.processes import Processes
from ascent.worlds.gym import Environments
from tests.training.runs import control


@pytest.mark.parametrize(
    ("env", "environments", "given", "expected"),
    [("CartPole-v1", 4, None, 128), ("Pendulum-v1", 4, None, 512), ("Pendulum-v1", 4, 7, 7)],
)
def test_the_horizon_fits_the_actions(
    tmp_path: Path, env: str, environments: int, given: int | None, expected: int
) -> None:
    config = control(tmp_path / "run", env=env, environments=environments, horizon=given)
    assert horizon(config, Environments(env, 1)) == expected


@pytest.mark.parametrize(
    ("env", "given", "expected"),
    [("CartPole-v1", None, False), ("Pendulum-v1", None, True), ("Pendulum-v1", False, False)],
)
def test_continuous_actions_are_normalised_unless_told_otherwise(
    tmp_path: Path, env: str, given: bool | None, expected: bool
) -> None:
    config = control(tmp_path / "run", env=env, normalise_observation=given, normalise_reward=given)
    found = sampling(config, Environments(env, 1), Processes())
    assert (found["normalise_observation"], found["normalise_reward"]) == (expected, expected)


def test_environments_divide_over_the_processes(tmp_path: Path) -> None:
    processes = Processes()
    processes.count = 3
    config = control(tmp_path / "run", environments=4)
    with pytest.raises(BadConfig, match="environments must be a multiple of the 3 processes; got 4"):
        build(config, config.composed(), processes)


def test_a_recurrent_policy_learns_from_whole_streams(tmp_path: Path) -> None:
    config = control(tmp_path / "run", recurrent=True, environments=2, minibatches=8)
    plan = planned(config, config.composed()).plan
    assert (plan.unit, plan.minibatches) == ("row", 2)
    train(control(tmp_path / "run", recurrent=True, horizon=8, hidden=(8,)))


def test_no_two_steps_are_the_same_and_all_are_counted(tmp_path: Path) -> None:
    result = train(control(tmp_path / "run", steps=3, evaluate_every=3, episodes=2))
    assert [line["consumed"] for line in result.metrics] == [0, 64, 128, 192, 192]
    assert result.before is not None and result.after is not None
    assert {"episode_return", "loss/policy", "loss/value", "gradient_norm"} <= result.metrics[2].keys()


def test_the_saved_policy_tells_what_it_expects(tmp_path: Path) -> None:
    train(control(tmp_path / "run", env="Pendulum-v1", hidden=(8, 4)))
    told = json.loads((tmp_path / "run" / "policy" / "policy.json").read_text())
    assert told["env"] == "Pendulum-v1"
    assert told["hidden"] == [8, 4]
    assert len(told["observation_statistics"]["mean"]) == 3
    train(control(tmp_path / "plain"))
    told = json.loads((tmp_path / "plain" / "policy" / "policy.json").read_text())
    assert told["observation_statistics"] is None
