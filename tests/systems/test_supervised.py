"""Runs on demonstrations: the same trainer for sft and otr, with checkpoints and held-out evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ascent.systems import supervised as assembly
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.run import resume, train
from ascent.training import checkpoint
from ascent.training.processes import Processes
from tests.training.runs import distance, language, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def settings(model: Path, output: Path, **changes: Any) -> LanguageConfig:
    plain = {"method": "otr", "reward": (), "set": ("samples=8",), "evaluate_every": 3, "steps": 3, "keep": 9}
    return language(model, output, **{**plain, **changes})


@pytest.mark.parametrize(
    ("method", "set_"),
    [("sft", ()), ("sft", ("weight=probability",)), ("otr", ("samples=8",)), ("otr", ("estimator=exact",))],
)
def test_every_one_trains_and_is_evaluated(model: Path, tmp_path: Path, method: str, set_: tuple[str, ...]) -> None:
    result = train(settings(model, tmp_path / "run", method=method, set=set_))
    steps = [line for line in result.metrics if "loss" in line]
    assert len(steps) == 3 and result.after is not None
    assert "entropy" in steps[0] and "gradient_norm" in steps[0] and "length" in steps[0]
    assert ("hit_positions" in steps[0]) is (method == "otr")
    assert [line["consumed"] for line in result.metrics if "held_out/reward" in line] == [0, 24]


def test_it_learns_to_imitate(model: Path, tmp_path: Path) -> None:
    """The probability of the true token rises from chance to a multiple of it."""
    result = train(
        settings(model, tmp_path / "run", steps=60, batch=32, learning_rate=2e-2, evaluate_every=0, save_every=0)
    )
    curve = [line["probability"] for line in result.metrics if "probability" in line]
    assert curve[0] < 0.12 and curve[-1] > 0.3


def test_killed_and_resumed_it_ends_with_the_same_weights(model: Path, tmp_path: Path) -> None:
    train(settings(model, tmp_path / "straight"))
    train(settings(model, tmp_path / "killed"))
    for path in checkpoint.available(tmp_path / "killed" / "checkpoints")[:2]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    resume(tmp_path / "killed", quiet=True)
    assert distance(tmp_path / "straight", tmp_path / "killed") == 0.0


def test_micro_batches_do_not_matter(model: Path, tmp_path: Path) -> None:
    for name, rows in (("whole", None), ("parts", 3)):
        train(settings(model, tmp_path / name, micro_rows=rows, evaluate_every=0))
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-10


def test_own_data_demonstrate_with_their_completions(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"{a}+{a}=", "completion": str(2 * a), "answer": str(2 * a)} for a in range(10, 40)]
    data.write_text("\n".join(map(json.dumps, rows)))
    config = language(
        model, tmp_path / "run", method="otr", set=("samples=8",), data=str(data), steps=2, evaluate_every=2
    )
    assert len([line for line in train(config).metrics if "loss" in line]) == 2


def test_what_cannot_demonstrate_is_refused_before_a_model_loads(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "load_policy", lambda *_: pytest.fail("a model was loaded"))

    def refused(config: object, words: str) -> None:
        with pytest.raises(BadConfig, match=words):
            assembly.build(config, config.composed(), Processes())  # type: ignore[attr-defined]

    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "1+1="}\n{"prompt": "1+2="}\n')
    silent = language(model, tmp_path / "run", method="otr", data=str(data))
    refused(silent, "has no completion, solution or answer")
    refused(settings(model, tmp_path / "run", scored=str(data)), "drop --scored and give --data")
    refused(ControlConfig(method="sft", env="CartPole-v1"), "learns from demonstrations")
    config = settings(model, tmp_path / "run", method="grpo", set=())
    refused(config, "needs group|needs reward|which demonstrations do not give")
