"""`ascent entropy`: each study writes its picture and its numbers; wrong calls are refused before a model loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ascent.cli import main
from ascent.policies.embedded import embedded
from ascent.worlds.text.arithmetic import Arithmetic


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "models" / "small"
    embedded(Arithmetic().alphabet, hidden=16, layers=1, heads=2, context=64).save(folder)
    return str(folder)


def test_each_study(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--prompts", "3", "--samples", "2", "--least", "1", "--output", str(tmp_path / "out")]
    for what, models in (("tokens", [model]), ("survival", [model, model]), ("temperature", [model])):
        assert main(["entropy", what, "--model", *models, *few]) == 0
        assert f"{what}.png" in capsys.readouterr().out
        assert (tmp_path / "out" / f"{what}.png").stat().st_size > 1000
    found = json.loads((tmp_path / "out" / "survival.json").read_text())
    assert found["overlap"]["base"] == 1.0


def test_refusals(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["entropy", "tokens", "--model", model, model]) == 2
    assert "model must be one" in capsys.readouterr().err
    assert main(["entropy", "survival", "--model", model]) == 2
    assert main(["entropy", "tokens", "--model", model, "--rho", "0"]) == 2
    assert main(["entropy", "tokens", "--model", "./nowhere"]) in (1, 2)
    assert "nowhere" in capsys.readouterr().err
