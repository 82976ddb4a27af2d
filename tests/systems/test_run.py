"""What a run folder holds, and that a run goes on to the same end from wherever it was left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import ascent
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term
from ascent.systems.config import BadConfig, read
from ascent.systems.device import settled
from ascent.systems.run import FolderExists, resume, stored, train
from ascent.training import checkpoint
from ascent.training.recorder import METRICS
from ascent.training.recorder import read as lines
from tests.training.runs import control, distance, language, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def left_at(folder: Path, copy: Path, checkpoints: list[Path]) -> Path:
    """The run folder as a kill would leave it: these checkpoints, everything that is written as it goes."""
    (copy / "checkpoints").mkdir(parents=True)
    for name in ("config.json", "manifest.json", METRICS, "completions.jsonl"):
        if (folder / name).exists():
            shutil.copy(folder / name, copy / name)
    for path in checkpoints:
        shutil.copytree(path, copy / "checkpoints" / path.name)
    return copy


def test_a_run_folder_is_complete(tmp_path: Path, model: Path) -> None:
    config = language(model, tmp_path / "run", steps=2, evaluate_every=1)
    result = train(config)
    assert read(tmp_path / "run" / "config.json") == settled(config)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["versions"]["torch"]
    assert manifest["seed"] == 0
    assert manifest["method"]["slug"] == "grpo"
    assert next(iter(manifest["data"].values())), "the user's reward file is hashed"
    assert result.picture.read_bytes()[:4] == b"\x89PNG"
    assert [line["step"] for line in result.metrics] == [0, 1, 1, 2, 2]
    assert (result.before, result.after) == (
        result.metrics[0]["held_out/pass@1"],
        result.metrics[-1]["held_out/pass@1"],
    )
    assert stored(config) == result
    assert [path.name for path in checkpoint.available(tmp_path / "run" / "checkpoints")] == [
        "update-000000002",
        "update-000000001",
    ]


@pytest.mark.parametrize("family", ["language", "control"])
def test_from_every_checkpoint_the_run_ends_the_same(tmp_path: Path, model: Path, family: str) -> None:
    """Also from before the first update; nothing is reported twice, and no completion is kept twice."""
    more = {"keep": 50, "evaluate_every": 1, "steps": 3}
    if family == "language":
        # Dynamic sampling: a surplus and half-used collections travel.
        rewards = (f"{tmp_path / 'rewards.py'}:sometimes",)
        more |= {"method": "dapo", "reward": rewards, "passes": 2, "minibatches": 2, "batch": 6, "group_size": 3}
        config = language(model, tmp_path / "straight", **more)
    else:
        config = control(tmp_path / "straight", episodes=1, **{**more, "evaluate_every": 2})
    straight = train(config)
    saved = checkpoint.available(tmp_path / "straight" / "checkpoints")
    assert len(saved) > 8
    if family == "language":
        states = [checkpoint.load(path)["system"]["program"]["train"]["stages"] for path in saved]
        assert any(state["collect"]["surplus"] is not None for state in states), "the test needs a surplus to carry"
        assert any(state["policy"]["collection"] is not None for state in states)
    for number, path in enumerate(saved[::-2]):
        copy = left_at(tmp_path / "straight", tmp_path / f"copy{number}", [path])
        result = resume(copy, quiet=True)
        assert distance(tmp_path / "straight", copy) == 0, path.name
        same = [{k: v for k, v in line.items() if "seconds" not in k} for line in straight.metrics]
        assert [{k: v for k, v in line.items() if "seconds" not in k} for line in result.metrics] == same, path.name
        if family == "language":
            kept = [(run / "completions.jsonl").read_text() for run in (tmp_path / "straight", copy)]
            assert kept[0] == kept[1]


def test_a_moved_run_folder_goes_on_where_it_is(tmp_path: Path) -> None:
    config = control(tmp_path / "first", evaluate_every=0, keep=9)
    train(config)
    shutil.move(tmp_path / "first", tmp_path / "second")
    for path in checkpoint.available(tmp_path / "second" / "checkpoints")[:3]:
        shutil.rmtree(path)
    shutil.move(tmp_path / "second" / "policy", tmp_path / "expected" / "policy")
    resume(tmp_path / "second", quiet=True)
    assert distance(tmp_path / "second", tmp_path / "expected") == 0
    assert not (tmp_path / "first").exists()


def test_a_full_disk_at_the_end_is_an_error_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(control(tmp_path / "straight"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    config = control(tmp_path / "run")
    written, count = checkpoint.save_file, 0

    def three(*arguments: object, **more: object) -> None:
        nonlocal count
        count += 1
        return written(*arguments, **more) if count <= 3 else full()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", three)
        with pytest.raises(checkpoint.SaveFailed, match="No space left"):
            train(config)
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0].name == "update-000000002"
    assert len(lines(tmp_path / "run" / METRICS)) == 2, "it went on to its last step"
    resume(tmp_path / "run", quiet=True)
    assert distance(tmp_path / "run", tmp_path / "straight") == 0


def test_an_existing_folder_and_a_folder_without_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x").touch()
    with pytest.raises(FolderExists, match="ascent resume"):
        train(control(tmp_path / "run"))
    with pytest.raises(BadConfig, match="is no run folder"):
        resume(tmp_path / "run")


def test_micro_rows_change_no_run(tmp_path: Path, model: Path) -> None:
    """A critic, annotation and several passes; float64 to 1e-10 and float32 to 1e-6."""
    several = {"method": "ppo", "steps": 2, "passes": 2, "minibatches": 2}
    for name, rows in (("whole", None), ("one", 1), ("three", 3)):
        train(language(model, tmp_path / name, micro_rows=rows, **several))
        train(control(tmp_path / f"control-{name}", micro_rows=rows))
    assert max(distance(tmp_path / "whole", tmp_path / name) for name in ("one", "three")) < 1e-10
    assert max(distance(tmp_path / "control-whole", tmp_path / f"control-{name}") for name in ("one", "three")) < 1e-6


def test_a_composed_method_is_resumed_by_the_same_composition_only(tmp_path: Path) -> None:
    config = control(tmp_path / "run")
    open_clip = ascent.method("ppo").with_terms(policy=Term(ClippedRatio(low=0.9, high=9.0)))
    first = train(config, open_clip)
    with pytest.raises(BadConfig, match="another composition of 'ppo'"):
        resume(first.folder, quiet=True)
    again = resume(first.folder, quiet=True, method=open_clip)
    assert again.metrics == first.metrics
