"""yann_rl as a run: resumed equals straight, refusals before anything runs, its controls."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ascent.policies.affine.actor import QuadraticCritic
from ascent.policies.critics import Critics
from ascent.systems.config import BadConfig, LanguageConfig
from ascent.systems.run import resume, train
from ascent.systems.yann_rl import build, models
from ascent.training import checkpoint
from ascent.training.processes import Processes
from ascent.training.program import Follow
from ascent.worlds.gym import Environments
from tests.methods.test_yann_rl import PENDULUM, config
from tests.training.runs import distance


def test_resumed_equals_straight(tmp_path: Path) -> None:
    straight = tmp_path / "straight"
    small = {"env_set": ("fallen=0.001",), "save_every": 1, "keep": 1000}
    train(config(straight, **small))
    saved = checkpoint.available(straight / "checkpoints")
    end = checkpoint.load(saved[0])["system"]
    for number, path in enumerate(saved[1::9]):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(path, copy / "checkpoints" / path.name)
        for name in ("config.json", "manifest.json"):
            shutil.copy(straight / name, copy / name)
        resume(copy, quiet=True)
        assert distance(straight, copy) == 0.0
        again = checkpoint.load(checkpoint.available(copy / "checkpoints")[0])["system"]
        assert counted(again) == counted(end) > 0


def counted(system: Any) -> int:
    """The sampler's violations in a checkpoint, wherever the program keeps it."""
    if isinstance(system, dict):
        if "violations" in system:
            return int(system["violations"])
        return max((counted(part) for part in system.values()), default=-1)
    if isinstance(system, list | tuple):
        return max((counted(part) for part in system), default=-1)
    return -1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "Pendulum-v1"}, "yann_rl needs an environment with a linear model.*'Pendulum-v1' is none"),
        ({"hidden": (8, 8)}, "hidden is no choice of yann_rl"),
        ({"recurrent": True}, "recurrent must be off for yann_rl"),
        ({"normalise_observation": True}, "normalise_observation must be off for yann_rl"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        train(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_text_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="yann_rl controls a plant"):
        train(LanguageConfig(method="yann_rl", output=str(tmp_path / "run")))


def test_targets_follow_at_their_own_rates(tmp_path: Path) -> None:
    one = config(tmp_path / "run", set=("batch=8", "start=20", "target_rate=0.5", "policy_target_rate=0.25"))
    program = build(one, one.composed(), Processes()).system.program
    found: dict[str, float] = {}

    def walk(stage: Any) -> None:
        if isinstance(stage, Follow):
            found[stage.name] = stage.rate
        for part in getattr(stage, "stages", ()):
            walk(part)

    for phase in program:
        walk(phase)
    assert found == {"targets": 0.5, "policy_target": 0.25}


def test_the_random_critic_is_a_control(tmp_path: Path) -> None:
    one = config(tmp_path / "run", set=("critic=random",))
    environments = Environments(PENDULUM, 1, squashed=True)
    found = models(one, one.composed(), environments)
    assert isinstance(found.critics, Critics) and not isinstance(found.critics, QuadraticCritic)
    assert found.critics.count == 1
