"""Configurations are refused when wrong, by name, value, range and mend; what was written is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ascent.core.registry import UnknownMethod
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig, make, read

WRONG: list[tuple[type[LanguageConfig] | type[ControlConfig], dict[str, Any], str]] = [
    (LanguageConfig, {"steps": 0}, "steps must be > 0; got 0"),
    (LanguageConfig, {"keep": 0}, "keep must be > 0; got 0"),
    (LanguageConfig, {"learning_rate": -1.0}, "learning_rate must be > 0; got -1.0"),
    (LanguageConfig, {"learning_rate": float("nan")}, "learning_rate must be > 0; got nan"),
    (LanguageConfig, {"learning_rate": float("inf")}, "learning_rate must be > 0; got inf"),
    (LanguageConfig, {"micro_rows": 0}, "micro_rows must be > 0"),
    (LanguageConfig, {"evaluate_every": -1}, "evaluate_every must be >= 0; got -1"),
    (LanguageConfig, {"threads": -2}, "threads must be >= 0; got -2"),
    (
        LanguageConfig,
        {"batch": 10, "group_size": 4},
        r"group_size must divide batch; got group_size=4, batch=10\. Take batch=8",
    ),
    (LanguageConfig, {"batch": 3, "group_size": 8}, r"group_size must divide batch.*Take batch=8"),
    (LanguageConfig, {"top_p": 0.0}, r"top_p must be in \(0, 1\]; got 0.0"),
    (LanguageConfig, {"top_p": 1.5}, r"top_p must be in \(0, 1\]; got 1.5"),
    (LanguageConfig, {"top_k": -1}, "top_k must be >= 0"),
    (LanguageConfig, {"temperature": 0.0}, "temperature must be > 0; got 0.0"),
    (LanguageConfig, {"reward_timeout": 0.0}, "reward_timeout must be > 0"),
    (LanguageConfig, {"max_new_tokens": 0}, "max_new_tokens must be > 0"),
    (LanguageConfig, {"data": "prompts.jsonl"}, "data needs at least one reward; give --reward"),
    (LanguageConfig, {"reward": ("a.py:f",), "reward_weights": (1.0, 2.0)}, "one number per reward; got 2 for 1"),
    (LanguageConfig, {"dtype": "float16"}, "dtype must be Literal.*'float32'.*got 'float16'"),
    (LanguageConfig, {"steps": 2.5}, "steps must be int; got 2.5"),
    (LanguageConfig, {"steps": True}, "steps must be int; got True"),
    (LanguageConfig, {"set": "clip_low=0.1"}, "set must be tuple"),
    (LanguageConfig, {"quiet": "yes"}, "quiet must be bool; got 'yes' of type str"),
    (LanguageConfig, {"seed": None}, "seed must be int; got None"),
    (ControlConfig, {"env": "CartPole-v1", "environments": 0}, "environments must be > 0"),
    (ControlConfig, {"env": "CartPole-v1", "hidden": ()}, "hidden must be one or more widths"),
    (ControlConfig, {"env": "CartPole-v1", "hidden": (64, 0)}, "hidden must be one or more widths"),
    (ControlConfig, {"env": "CartPole-v1", "episodes": 0}, "episodes must be > 0"),
    (ControlConfig, {"env": "CartPole-v1", "horizon": 0}, "horizon must be > 0"),
]


@pytest.mark.parametrize(("kind", "values", "message"), WRONG, ids=lambda item: str(item)[:40])
def test_a_value_outside_its_range_is_refused(kind: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        kind(method="grpo", **values)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownMethod, match=r"method must be one of .*; got 'gropo'\. Did you mean 'grpo'\?"):
        LanguageConfig(method="gropo")


@pytest.mark.parametrize(
    ("family", "name", "hint"),
    [
        ("language", "bach", r"Did you mean 'batch'\?"),
        ("control", "environment", r"Did you mean 'environments'\?"),
        ("control", "temperature", "It belongs to language runs"),
        ("language", "zzz", "unknown configuration key 'zzz' of a language run"),
    ],
)
def test_an_unknown_key_is_refused(family: str, name: str, hint: str) -> None:
    with pytest.raises(BadConfig, match=hint):
        make(family, {"method": "grpo", name: 3})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(BadConfig, match="env"):
        make("control", {"method": "ppo"})
    with pytest.raises(BadConfig, match="family must be one of language, control; got 'vision'"):
        make("vision", {})


FULL = [
    LanguageConfig(
        method="dapo", set=("clip_high=0.3",), steps=3, seed=5, output="somewhere", learning_rate=1e-3, passes=2,
        reward=("a.py:f", "b.py:g"), reward_weights=(0.25, 0.75), batch=24, group_size=6, top_p=0.9, stop=("\n", "ü"),
        micro_rows=4, wandb="project",
    ),
    ControlConfig(method="ppo", env="Pendulum-v1", hidden=(32,), normalise_reward=False, horizon=7),
]  # fmt: skip


@pytest.mark.parametrize("config", FULL, ids=["language", "control"])
def test_a_written_configuration_is_read_back_equal(tmp_path: Path, config: LanguageConfig | ControlConfig) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    assert read(path) == config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("[]", "must be a JSON object with a `family`"),
        ('{"method": "grpo"}', "must be a JSON object with a `family`"),
        ('{"family": "language", "method": "grpo", "steps": "ten"}', "steps must be int; got 'ten'"),
        ('{"family": "language", "method": "grpo", "stepps": 3}', "Did you mean 'steps'"),
        ('{"family": "language"}', "method"),
    ],
)
def test_a_wrong_file_is_refused_by_its_name_or_key(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadConfig, match=message):
        read(path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("clip_low", "set takes name=value; got 'clip_low'"),
        ("=3", "set takes name=value; got '=3'"),
        ("cliplow=0.2", r"no parameter 'cliplow'.*Did you mean 'clip_low'\?"),
        ("clip_low=-1", "clip_low"),
        ('clip_low="x"', "clip_low"),
    ],
)
def test_a_wrong_parameter_of_the_method_is_refused(entry: str, message: str) -> None:
    config = LanguageConfig(method="dapo", set=(entry,))
    with pytest.raises(ValueError, match=message):
        config.composed()


def test_values_of_set_are_json_or_pythons_words_or_text() -> None:
    config = LanguageConfig(
        method="grpo",
        set=("a=1", "b=0.5", "c=true", "d=null", "e=text", 'f="1"', "g=[1, 2]", "h=x=y", "i=False", "j=None"),
    )
    found = {"a": 1, "b": 0.5, "c": True, "d": None, "e": "text", "f": "1", "g": [1, 2], "h": "x=y"}
    found |= {"i": False, "j": None}
    assert config.parameters() == found


def test_plan_and_rate_of_the_run_win_over_the_method() -> None:
    method = LanguageConfig(method="grpo", passes=3, minibatches=2, learning_rate=0.125).composed()
    assert (method.plan.passes, method.plan.minibatches, method.step.learning_rate) == (3, 2, 0.125)


def test_a_run_folder_has_a_name_of_its_own() -> None:
    assert LanguageConfig(method="grpo", task="reasoning_gym/chain_sum", seed=3).folder == Path(
        "runs/grpo-reasoning_gym-chain_sum-seed3"
    )
    assert ControlConfig(method="ppo", env="ascent/TwoStep-v0").folder == Path("runs/ppo-ascent-TwoStep-v0-seed0")


def test_arguments_of_an_environment_are_read_and_refused_by_name() -> None:
    config = ControlConfig(method="ppo", env="CartPole-v1", env_set=("sutton_barto_reward=true", "name=plain"))
    assert config.env_arguments == {"sutton_barto_reward": True, "name": "plain"}
    with pytest.raises(BadConfig, match="env_set takes name=value"):
        ControlConfig(method="ppo", env="CartPole-v1", env_set=("gravity",))
