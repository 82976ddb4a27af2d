"""The assembly of capo: it trains, its step model follows the run's options, and a stopped run ends the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ascent
from ascent.policies.embedded import embedded
from ascent.systems.capo import build
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.training.learn import Learn
from ascent.training.processes import Processes
from ascent.worlds.text.arithmetic import Arithmetic

TOKENS = {*Arithmetic().alphabet, "<eos>", "<pad>", "<bos>", "<unk>"}


@pytest.fixture
def model(tmp_path: Path) -> str:
    embedded(Arithmetic().alphabet, hidden=16, layers=1, heads=2, context=64).save(tmp_path / "model")
    return str(tmp_path / "model")


def options(model: str) -> dict[str, object]:
    return {"model": model, "steps": 2, "batch": 8, "group_size": 4, "held_out": 2, "samples": 1}


def test_it_trains_in_parts_as_in_one(model: str, tmp_path: Path) -> None:
    runs = []
    for name, rows in (("whole", None), ("parts", 3)):
        result = ascent.train(
            "capo",
            **options(model),
            micro_rows=rows,
            dtype="float64",
            output=str(tmp_path / name),
            parameters={"policy_threshold": 1e-3, "base": "reinforce", "learning_rate": 0.01},
            reward=f"{tmp_path / 'reward.py'}:length",
            quiet=True,
            tensorboard=False,
        )
        runs.append([line for line in result.metrics if "rejected" in line])
    assert len(runs[0]) == 2 and any(line["rejected"] > 0 for line in runs[0])
    listed = [json.loads((tmp_path / name / "rejected_tokens.json").read_text()) for name in ("whole", "parts")]
    assert listed[0] and listed[0] == listed[1]
    counts = [line["rejected"] for line in listed[0]]
    assert counts == sorted(counts, reverse=True) and {line["token"] for line in listed[0]} <= TOKENS
    for whole, parts in zip(*runs, strict=True):
        for name in ("rejected", "rejected_so_far", "curvature_policy", "loss", "gradient_norm"):
            assert parts[name] == pytest.approx(whole[name], rel=1e-6), name


@pytest.fixture(autouse=True)
def reward(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(
        "def length(prompts, completions, **_):\n    return [len(c) / 10 for c in completions]\n"
    )


def test_options_of_the_run_reach_the_step_model(model: str) -> None:
    config = LanguageConfig(method="capo", learning_rate=0.02, temperature=0.5, **options(model))
    learn = build(config, config.composed(), Processes()).system.program[0].stages[-1]
    assert isinstance(learn, Learn)
    region = learn.method.losses["policy"].keep
    assert (region.learning_rate, region.temperature) == (0.02, 0.5)


def test_controllers_are_refused() -> None:
    config = ControlConfig(method="capo", env="CartPole-v1")
    with pytest.raises(BadConfig, match="capo models the head of a language model"):
        build(config, config.composed(), Processes())
