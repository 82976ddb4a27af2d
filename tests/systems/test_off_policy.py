"""sac, td3 and ddpg as runs: resume, refusals before anything runs, delays, and learning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.off_policy import build
from ascent.systems.run import resume, train
from ascent.training import checkpoint
from ascent.training.loop import Loop
from ascent.training.processes import Processes
from ascent.training.program import Follow
from tests.training.runs import distance

METHODS = ("sac", "td3", "ddpg")


class Reach(gymnasium.Env[Any, Any]):
    """One step: the reward is -(action - goal)^2 in the units of an uneven box, the goal is seen."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 3.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.goal = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.goal, {}

    def step(self, action: Any) -> Any:
        return self.goal, -float(((action - 1.0) / 2.0 - self.goal)[0] ** 2), True, False, {}


if "tests/Reach-v0" not in gymnasium.registry:
    gymnasium.register("tests/Reach-v0", entry_point=Reach)


def config(output: Path, slug: str = "sac", **changes: Any) -> ControlConfig:
    plain = {
        "method": slug, "env": "Pendulum-v1", "environments": 2, "horizon": 5, "steps": 2, "hidden": (8, 8),
        "set": ("batch=16", "start=30", "capacity=40"), "evaluate_every": 0, "save_every": 0, "tensorboard": False,
        "quiet": True, "output": str(output),
    }  # fmt: skip
    return ControlConfig(**{**plain, **changes})


@pytest.mark.parametrize("slug", METHODS)
def test_resumed_from_any_update_equals_straight(tmp_path: Path, slug: str) -> None:
    """Between any two optimiser steps, the ring full or not, weights and memory come out bit for bit."""
    straight = tmp_path / "straight"
    train(config(straight, slug, save_every=1, keep=1000))
    saved = checkpoint.available(straight / "checkpoints")
    assert len(saved) > 20
    end = checkpoint.load(saved[0])["system"]
    for number, path in enumerate([*saved[1:4], *saved[4::9]]):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(path, copy / "checkpoints" / path.name)
        for name in ("config.json", "manifest.json"):
            shutil.copy(straight / name, copy / name)
        resume(copy, quiet=True)
        assert distance(straight, copy) == 0.0
        again = checkpoint.load(checkpoint.available(copy / "checkpoints")[0])["system"]
        for name, model in end["models"].items():
            assert all(torch.equal(tensor, again["models"][name][key]) for key, tensor in model.items()), name
        ours, theirs = end["memories"]["replay"]["rows"], again["memories"]["replay"]["rows"]
        assert (ours.first, ours.last) == (theirs.first, theirs.last)
        rows = theirs.read(theirs.first, theirs.last)
        assert all(torch.equal(x, rows[name]) for name, x in ours.read(ours.first, ours.last).items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "CartPole-v1"}, "'sac' needs real actions with finite bounds.*'CartPole-v1'"),
        ({"recurrent": True}, "recurrent must be off for sac"),
        ({"normalise_observation": True}, "normalise_observation must be off for sac"),
        ({"normalise_reward": True}, "normalise_reward must be off for sac"),
        ({"passes": 2}, "passes is no choice of sac runs"),
        ({"minibatches": 2}, "minibatches is no choice"),
        ({"micro_rows": 2}, "micro_rows is no choice"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        train(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("entries", "message"),
    [(("batch=64", "capacity=32"), "capacity must be"), (("batch=64", "start=8"), "start must be")],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, entries: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(config(tmp_path / "run", set=entries))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("slug", METHODS)
def test_a_text_task_is_refused(tmp_path: Path, slug: str) -> None:
    with pytest.raises(BadConfig, match=f"method '{slug}' needs an environment"):
        train(LanguageConfig(method=slug, output=str(tmp_path / "run")))


def test_several_processes_are_refused(tmp_path: Path) -> None:
    processes = Processes()
    processes.count = 2
    one = config(tmp_path / "run")
    with pytest.raises(BadConfig, match="'sac' runs in one process; got 2"):
        build(one, one.composed(), processes)


def run(one: ControlConfig) -> Any:
    """The assembly after its run, without a run folder."""
    assembly = build(one, one.composed(), Processes())
    Loop(assembly.system).run()
    return assembly


def test_a_run_counts_its_warm_up_and_its_updates(tmp_path: Path) -> None:
    system = run(config(tmp_path / "run", set=("batch=16", "start=31", "updates=3"))).system
    assert system.consumed() == 32 + 2 * 5 * 2, "16 steps of two copies, then 2 blocks of 5"
    updates = system.program[1].stages[0].stages[1]
    assert [stage.name for stage in updates.stages] == ["critic", "policy", "temperature", "targets"]
    assert [stage.updates for stage in updates.stages[:3]] == [60, 60, 60]


def test_td3_moves_policy_and_targets_every_second_update(tmp_path: Path) -> None:
    assembly = run(config(tmp_path / "run", "td3"))
    critic, policy, targets = assembly.system.program[1].stages[0].stages[1].stages
    assert (critic.updates, policy.updates) == (20, 10)
    assert isinstance(targets, Follow) and targets.every == 2
    models = assembly.system.models
    before = [parameter.clone() for parameter in models["policy_target"].parameters()]
    targets.run(None, 0)  # type: ignore[arg-type]
    assert all(torch.equal(x, y) for x, y in zip(before, models["policy_target"].parameters(), strict=True))
    targets.run(None, 1)  # type: ignore[arg-type]
    for old, new, source in zip(
        before, models["policy_target"].parameters(), models["policy"].parameters(), strict=True
    ):
        assert torch.allclose(new, 0.995 * old + 0.005 * source, atol=1e-7)


def test_a_follow_that_does_not_follow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate must be in \(0, 1\]; got 0"):
        Follow("targets", (), 0.0)


def test_targets_get_no_gradient_and_begin_as_copies(tmp_path: Path) -> None:
    one = config(tmp_path / "run", "td3")
    models = build(one, one.composed(), Processes()).system.models
    for name in ("policy", "critic"):
        pairs = zip(models[name].parameters(), models[f"{name}_target"].parameters(), strict=True)
        assert all(torch.equal(x, y) and not y.requires_grad for x, y in pairs)


def test_the_learning_rate_flag_sets_every_network(tmp_path: Path) -> None:
    one = config(tmp_path / "run", learning_rate=0.25)
    stages = build(one, one.composed(), Processes()).system.program[1].stages[0].stages[1].stages
    assert [stage.method.step.learning_rate for stage in stages[:3]] == [0.25, 0.25, 0.25]


@pytest.mark.parametrize("slug", METHODS)
def test_it_learns_to_reach(tmp_path: Path, slug: str) -> None:
    """Uniform actions earn -2/3 on average, the middle -1/3; 0 is best."""
    rates = ("learning_rate=0.003", "critic_learning_rate=0.003")
    result = train(
        config(
            tmp_path / "run",
            slug,
            env="tests/Reach-v0",
            environments=1,
            horizon=100,
            steps=8,
            hidden=(32, 32),
            set=("batch=64", "start=100", "target_rate=0.05", *rates),
            evaluate_every=9,
            episodes=50,
        )
    )
    assert result.before is not None and result.after is not None
    assert result.before < -0.2 and result.after > -0.05


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("slug", METHODS)
def test_it_swings_the_pendulum_up(tmp_path: Path, slug: str) -> None:
    entries = ["learning_rate=0.001", "critic_learning_rate=0.001", "batch=128", "start=500", "target_rate=0.005"]
    entries += ["temperature_form=log"] if slug == "sac" else []
    result = train(
        config(
            tmp_path / "run",
            slug,
            environments=1,
            horizon=64,
            steps=90 if slug == "sac" else 120,
            hidden=(64, 64),
            set=tuple(entries),
            evaluate_every=1000,
            episodes=20,
        )
    )
    assert result.after is not None and result.after >= -200.0
