"""vagram as a run: resume, refusals before anything runs, every loss, warm-up and ramps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.run import resume, train
from ascent.systems.vagram import at, build
from ascent.training import checkpoint
from ascent.training.loop import Loop
from ascent.training.processes import Processes
from tests.training.runs import distance

SET = (
    "batch=8", "start=40", "capacity=200", "updates=2", "members=3", "elites=2", "model_hidden=[6]", "model_every=6",
    "model_batch=16", "rollouts=2", "patience=1", "model_epochs=2", "share=[0,0,0.5,0.5]", "epoch=10", "warm_up=4",
)  # fmt: skip


def config(output: Path, *values: str, **changes: Any) -> ControlConfig:
    plain = {
        "method": "vagram", "env": "Pendulum-v1", "environments": 1, "horizon": 4, "steps": 3, "hidden": (8, 8),
        "set": (*SET, *values), "evaluate_every": 0, "save_every": 0, "tensorboard": False, "quiet": True,
        "output": str(output),
    }  # fmt: skip
    return ControlConfig(**{**plain, **changes})


def test_resumed_from_any_update_equals_straight(tmp_path: Path) -> None:
    """In the middle of a fit, of a block, and between: weights of all networks come out bit for bit."""
    straight = tmp_path / "straight"
    train(config(straight, save_every=1, keep=1000))
    saved = checkpoint.available(straight / "checkpoints")
    assert len(saved) > 60
    end = checkpoint.load(saved[0])["system"]["models"]
    for number, path in enumerate([*saved[1:4], *saved[4::13]]):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(path, copy / "checkpoints" / path.name)
        for name in ("config.json", "manifest.json"):
            shutil.copy(straight / name, copy / name)
        resume(copy, quiet=True)
        assert distance(straight, copy) == 0.0
        again = checkpoint.load(checkpoint.available(copy / "checkpoints")[0])["system"]["models"]
        for name, model in end.items():
            assert all(torch.equal(tensor, again[name][key]) for key, tensor in model.items()), name


@pytest.mark.parametrize("loss", ["mse", "nll", "itervaml", "taylor", "value"])
def test_every_loss_runs(tmp_path: Path, loss: str) -> None:
    result = train(config(tmp_path / "run", f"loss={loss}", env="ascent/Distracted-v0", env_set=("distractors=2",)))
    fits = [line for line in result.metrics if "fit/held_out" in line]
    assert len(fits) == 2 and all(0 < line["fit/one_step_error"] < 1e3 for line in fits)
    assert all(line["fit/value_error"] > 0 and line["fit/value_variance"] > 0 for line in fits)
    assert (tmp_path / "run" / "policy" / "dynamics.safetensors").is_file()


def test_warm_up_ends_and_imagined_decisions_are_not_the_runs(tmp_path: Path) -> None:
    result = train(config(tmp_path / "run", steps=4, horizon=6))
    warm = [line["model/loss/warm_up"] for line in result.metrics if "model/loss/warm_up" in line]
    assert warm[0] > 0 and warm[-1] == 0
    assert result.metrics[-1]["consumed"] == 40 + 24
    assert result.metrics[-1]["length"] == 1.0 and "imagined/reward" in result.metrics[-1]


def test_the_ensemble_is_fitted_and_its_elites_are_chosen(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", "model_epochs=30", "patience=5", "model_learning_rate=0.01", steps=2)
    assembly = build(settings, settings.composed(), Processes())
    before = {name: tensor.clone() for name, tensor in assembly.system.models["dynamics"].state_dict().items()}
    loop = Loop(assembly.system)
    loop.run()
    after = assembly.system.models["dynamics"].state_dict()
    assert not torch.equal(before["weight.0"], after["weight.0"]) and (after["deviation"] != 1).all()
    assert len(set(after["elite"].tolist())) == 2 and set(after["elite"].tolist()) <= {0, 1, 2}
    imagined = assembly.system.memories["imagined"].content()  # type: ignore[attr-defined]
    assert len(imagined) >= 12 and imagined.context["observation"].shape[1:] == (1, 3)


def test_ramps_rise_between_their_epochs() -> None:
    assert [at((1, 3, 0.0, 0.8), epoch) for epoch in (0, 1, 2, 3, 9)] == [0.0, 0.0, 0.4, 0.8, 0.8]
    assert at((0, 0, 1, 5), 0) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "CartPole-v1"}, "when an episode ends"),
        ({"env": "Humanoid-v5"}, "when an episode ends"),
        ({"env": "ascent/Distracted-v0", "env_set": ('environment="CartPole-v1"',)}, "when an episode ends"),
        ({"recurrent": True}, "recurrent"),
        ({"normalise_observation": True}, "normalise_observation"),
        ({"passes": 3}, "passes"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    settings = config(tmp_path / "run", **changes)
    with pytest.raises(BadConfig, match=message):
        build(settings, settings.composed(), Processes())


def test_a_language_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="needs an environment"):
        language = LanguageConfig(method="vagram", output=str(tmp_path / "run"))
        build(language, language.composed(), Processes())


@pytest.mark.slow
def test_it_learns_to_swing_up_mostly_in_imagination(tmp_path: Path) -> None:
    """1500 environment steps, nine updates of ten on imagined transitions; an untrained policy has about -1350."""
    settings = ControlConfig(
        method="vagram",
        env="Pendulum-v1",
        environments=1,
        horizon=100,
        steps=12,
        hidden=(64, 64),
        set=(
            "start=300",
            "updates=5",
            "batch=64",
            "learning_rate=0.001",
            "critic_learning_rate=0.001",
            "temperature_learning_rate=0.001",
            "members=3",
            "elites=2",
            "model_hidden=[128]",
            "model_every=100",
            "rollouts=20",
            "share=[0,0,0.9,0.9]",
            "warm_up=300",
            "patience=5",
            "model_epochs=50",
        ),
        evaluate_every=13,
        save_every=0,
        episodes=10,
        tensorboard=False,
        quiet=True,
        output=str(tmp_path / "run"),
    )
    result = train(settings)
    assert result.before is not None and result.before < -1000
    assert result.after is not None and result.after > -600
