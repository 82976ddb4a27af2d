"""What is told of a comparison: the command that makes it again, and what is not equal between its arms."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ascent.systems.about import about, command, kind, notes, per, rate, unit
from ascent.systems.arguments import parse
from ascent.systems.arms import choose
from ascent.systems.config import ControlConfig, LanguageConfig


def test_the_command_says_what_is_not_the_default_and_nothing_else() -> None:
    plain = LanguageConfig(method="grpo")
    assert command(["all"], plain, 3) == "ascent compare all --task arithmetic --seeds 3"
    changed = LanguageConfig(
        method="grpo", batch=64, steps=30, seed=4, set=("a=1", "b=2"), tensorboard=False, threads=1,
        save_every=1000,
    )  # fmt: skip
    words = command(["grpo", "rloo"], changed, 5, reference="rloo")
    assert words == (
        "ascent compare grpo rloo --set a=1 b=2 --steps 30 --task arithmetic --batch 64 --seeds 5 --seed 4 "
        "--reference rloo"
    )
    assert command(["all"], plain, 2, without=["kdrl", "sft"]).endswith("--seeds 2 --without kdrl sft")
    control = ControlConfig(method="ppo", env="CartPole-v1", normalise_reward=False)
    assert command(["ppo"], control, 3) == "ascent compare ppo --env CartPole-v1 --normalise-reward False --seeds 3"


def test_the_command_gives_the_configuration_again() -> None:
    for config in (
        LanguageConfig(method="grpo", batch=64, steps=30, evaluate_every=5, temperature=0.7, learning_rate=3e-4),
        ControlConfig(method="grpo", env="CartPole-v1", hidden=(8, 8), recurrent=True, normalise_observation=False),
    ):
        words = command(["grpo"], config, 1).split()
        flags = words[words.index("grpo") + 1 : words.index("--seeds")]
        assert parse(["--method", "grpo", *flags]) == config


def test_own_data_stand_for_the_task() -> None:
    config = LanguageConfig(method="grpo", data="mine.jsonl", reward=("judge.py:score",))
    assert command(["grpo"], config, 3) == "ascent compare grpo --data mine.jsonl --reward judge.py:score --seeds 3"


def test_an_answer_is_an_answer_whether_drawn_or_written() -> None:
    """A step of 256 answers: 32 prompts of 8 for grpo, 256 written solutions for sft."""
    drawn, written = LanguageConfig(method="grpo"), LanguageConfig(method="sft")
    assert (unit(drawn), per(drawn), per(written)) == ("answers", 8.0, 1.0)
    assert 32 * per(drawn) == 256 * per(written) == drawn.batch
    scored = LanguageConfig(method="dpo", scored="x.jsonl")
    assert (unit(scored), per(scored)) == ("prompts", 1.0)
    control = ControlConfig(method="ppo", env="CartPole-v1")
    assert (unit(control), per(control)) == ("environment steps", 1.0)


@pytest.mark.parametrize(
    ("slug", "expected"),
    [
        ("reinforce", "advantage times log-prob"),
        ("rloo", "advantage times log-prob"),
        ("grpo", "ratio to the old policy"),
        ("capo", "ratio to the old policy"),
        ("dapo", "ratio, even groups refused"),
        ("bapo", "ratio, even groups refused"),
        ("dpo", "rewards against a reference"),
        ("p3o", "rewards against a reference"),
        ("kdrl", "written solutions or a teacher"),
        ("otr", "written solutions or a teacher"),
        ("sac", "a replay memory"),
    ],
)
def test_a_method_stands_among_its_kind(slug: str, expected: str) -> None:
    assert kind(LanguageConfig(method=slug).composed()) == expected


def test_notes_name_the_arms_that_are_not_equal() -> None:
    methods = {arm: LanguageConfig(method=arm).composed() for arm in ("grpo", "dapo", "kdrl", "sft")}
    refusing, taught, shown = notes(methods)
    assert refusing.startswith("`dapo`: groups") and taught.startswith("`kdrl`: a frozen teacher")
    assert shown.startswith("`sft`: no answers are drawn")
    assert notes({"grpo": methods["grpo"]}) == []
    assert rate(methods["grpo"]) == "0.0001"


def test_the_document_is_json_and_dated_by_its_last_run(tmp_path: Path) -> None:
    base = LanguageConfig(method="reinforce")
    for day, name in ((1, "a"), (3, "b"), (2, "c")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
        os.utime(tmp_path / name / "result.json", (86400 * day, 86400 * day))
    found = about(base, choose(["all"], base), [tmp_path / name for name in "abc"], {"seeds": 3})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["date"] == "1970-01-04" and found["seeds"] == 3 and found["reference"] == "grpo"
    assert found["updates"]["dapo"] == 16 and found["left_out"]["ppo"] == "a method of control"
    assert {"processor", "cores", "python", "torch"} <= set(found["machine"])
    named = about(base, choose(["grpo"], base), [tmp_path / "a"], {})
    assert named["left_out"] == {} and set(named["kinds"]) == {"grpo"}
