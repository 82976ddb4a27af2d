"""Command-line words become a configuration; flags win over a stored one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ascent.systems.arguments import parse
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig


def stored(path: Path, config: LanguageConfig | ControlConfig) -> Path:
    path.write_text(json.dumps(config.to_json()))
    return path


def test_env_makes_a_control_run_and_everything_else_a_language_run() -> None:
    assert isinstance(parse(["--method", "ppo", "--env", "CartPole-v1"]), ControlConfig)
    assert isinstance(parse(["--method", "ppo", "--env=CartPole-v1"]), ControlConfig)
    assert parse(["--method", "grpo"]) == LanguageConfig(method="grpo")


def test_every_kind_of_flag() -> None:
    words = (
        "--method dapo --set clip_low=0.1 clip_high=0.3 --batch 24 --group-size 6 --top_p 0.9 --no-tensorboard --quiet "
        "--reward a.py:f b.py:g --reward-weights 0.5 2 --learning-rate 1e-3 --dtype float64 --stop ; x"
    )
    found = parse(words.split())
    assert found == LanguageConfig(
        method="dapo", set=("clip_low=0.1", "clip_high=0.3"), batch=24, group_size=6, top_p=0.9, tensorboard=False,
        quiet=True, reward=("a.py:f", "b.py:g"), reward_weights=(0.5, 2.0), learning_rate=1e-3, dtype="float64",
        stop=(";", "x"),
    )  # fmt: skip


@pytest.mark.parametrize("joined", [False, True])
def test_a_stored_configuration_comes_back_and_flags_win(tmp_path: Path, joined: bool) -> None:
    config = LanguageConfig(method="dapo", set=("clip_low=0.1",), batch=24, group_size=6, output="there", top_p=0.9)
    path = stored(tmp_path / "config.json", config)
    words = [f"--config={path}"] if joined else ["--config", str(path)]
    again = parse(words)
    assert again.output is None, "a run folder is written once"
    assert again == parse([*words, "--method", "dapo"])
    changed = parse([*words, "--batch", "12", "--set", "clip_low=0.2", "--output", "here"])
    assert (changed.batch, changed.set, changed.output) == (12, ("clip_low=0.2",), "here")
    assert (changed.group_size, changed.top_p, changed.method) == (6, 0.9, "dapo")


def test_a_stored_control_run_needs_no_env_flag(tmp_path: Path) -> None:
    path = stored(tmp_path / "config.json", ControlConfig(method="ppo", env="CartPole-v1", hidden=(8,)))
    found = parse(["--config", str(path), "--steps", "7"])
    assert found == ControlConfig(method="ppo", env="CartPole-v1", hidden=(8,), steps=7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "grpo", "--bach", "8"], "unknown flag --bach. Did you mean --batch"),
        (["--method", "grpo", "--group-sise=8"], "Did you mean --group-size"),
        (["--method", "grpo", "--horizon", "8"], "--horizon. It belongs to control runs"),
        (["--method", "ppo", "--env", "CartPole-v1", "--task", "sorting"], "--task. It belongs to language runs"),
        (["--config"], "config needs a file"),
        (["--config", "nowhere.json"], "config nowhere.json cannot be read"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        parse(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method grpo --batch many", "batch"),
        ("", "method"),
        ("--method grpo stray", "stray"),
        (
            "--method grpo --batch 10 --group-size 4",
            "group_size must divide batch; got group_size=4, batch=10. Take batch=8",
        ),
        ("--method grpo --evaluate-every -1", "evaluate_every must be >= 0; got -1."),
        ("--method gropo", "got 'gropo'. Did you mean 'grpo'?"),
        ("--method ppo --env CartPole-v1 --hidden 0", "hidden must be one or more widths >= 1"),
    ],
)
def test_values_outside_their_range_are_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words.split())
    assert ended.value.code == 2
    shown = " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert message in shown
