"""`ascent reproduce` finds an experiment by its slug and puts its results where it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascent.systems import reproduce as module
from ascent.systems.config import BadConfig
from ascent.systems.reproduce import available, experiment, reproduce


@pytest.fixture
def experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "reproductions"
    (folder / "copg").mkdir(parents=True)
    (folder / "notes").mkdir()
    (folder / "copg" / "experiment.py").write_text(
        "from .numbers import NUMBER\n\n\ndef run(folder):\n    (folder / 'result.json').write_text(str(NUMBER))\n"
    )
    (folder / "copg" / "numbers.py").write_text("NUMBER = 42\n")
    monkeypatch.setattr(module, "home", lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_an_experiment_is_a_folder_with_an_experiment(experiments: Path) -> None:
    assert available() == ["copg"]


def test_it_runs_into_the_given_folder_or_under_runs(experiments: Path, tmp_path: Path) -> None:
    assert (reproduce("copg", tmp_path / "there") / "result.json").read_text() == "42"
    assert reproduce("copg") == Path("runs/reproduce-copg")
    assert (tmp_path / "runs" / "reproduce-copg" / "result.json").exists()


def test_an_unknown_one_is_refused_with_the_nearest(experiments: Path) -> None:
    with pytest.raises(BadConfig, match=r"slug must be one of copg; got 'cogp'\. Did you mean 'copg'\?"):
        experiment("cogp")


def test_outside_of_a_clone_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "home", lambda: tmp_path / "nowhere")
    with pytest.raises(BadConfig, match=r"none here.*run this from a clone"):
        experiment("copg")
