"""Which arms a comparison has, and why a method is left out."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import ascent.systems
from ascent.core.registry import UnknownMethod, cards
from ascent.systems.arms import REFUSING, arm_config, choose, placeholder, refuse
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig

TEXT = LanguageConfig(method="reinforce")
CARTPOLE = ControlConfig(method="reinforce", env="CartPole-v1")
LANGUAGE = {card.slug for card in cards() if card.family != "control"}


def test_an_arm_is_a_method_with_parameters() -> None:
    base = LanguageConfig(method="grpo", set=("a=1",))
    found = arm_config(base, "dapo:clip_low=0.1,clip_high=0.4")
    assert (found.method, found.set) == ("dapo", ("a=1", "clip_low=0.1", "clip_high=0.4"))
    assert arm_config(base, "rloo").set == ("a=1",)


def test_all_is_every_method_of_language_and_the_reference_comes_first() -> None:
    found = choose(["all"], TEXT)
    assert set(found.arms) == LANGUAGE
    assert found.arms[0] == "grpo" and list(found.arms[1:]) == sorted(LANGUAGE - {"grpo"})
    assert found.left_out == {card.slug: "a method of control" for card in cards() if card.family == "control"}
    assert choose(["all"], TEXT, reference="rloo").arms[0] == "rloo"


def test_all_takes_what_the_environment_can_feed() -> None:
    found = choose(["all"], CARTPOLE)
    assert found.arms == ("ppo", "a2c", "gbrl", "ggtd", "props", "reinforce", "submodular_rl")
    assert "real actions with finite bounds" in found.left_out["sac"], "the actions of CartPole are discrete"
    assert found.left_out["grpo"] == "a method of language runs"
    assert "a linear model" in found.left_out["yann_rl"] and "needs real actions" in found.left_out["vagram"]
    teams = choose(["all"], ControlConfig(method="ppo", env="ascent/Aloha-v0"))
    assert teams.arms == ("bayesian_network_marl",) and "registered Gymnasium id" in teams.left_out["ppo"]
    assert {"sac", "td3", "ddpg"} <= set(choose(["all"], ControlConfig(method="ppo", env="Pendulum-v1")).arms)


def test_what_cannot_run_here_is_left_out_with_its_reason() -> None:
    odd = choose(["all"], LanguageConfig(method="grpo", batch=63, group_size=7))
    assert "group_size must be even for 'p3o'" in odd.left_out["p3o"] and "p3o" not in odd.arms
    small = choose(["all"], LanguageConfig(method="grpo", batch=8, group_size=8))
    assert "minibatches must be <= the rows of a collection" in small.left_out["dapo"]
    assert "sft" in small.arms, "8 solutions fill its update"
    some = choose(["all"], TEXT, without=["kdrl", "grpo"])
    assert some.left_out["kdrl"] == "left out by --without" and "kdrl" not in some.arms
    assert some.arms[0] == sorted(some.arms)[0], "without grpo the first is the reference"


def test_named_arms_keep_their_order_but_for_the_reference() -> None:
    assert choose(["rloo", "grpo", "dapo"], TEXT).arms == ("rloo", "grpo", "dapo")
    assert choose(["rloo", "grpo", "dapo"], TEXT, reference="dapo").arms == ("dapo", "rloo", "grpo")
    variant = "grpo:clip_high=0.28"
    assert choose(["grpo", variant], TEXT, reference=variant).arms == (variant, "grpo")


@pytest.mark.parametrize(
    ("words", "base", "more", "message"),
    [
        ([], TEXT, {}, "different methods, or `all`; got none"),
        (["grpo", "grpo"], TEXT, {}, "different methods, or `all`; got grpo, grpo"),
        (["all", "grpo"], TEXT, {}, "`all` or methods by name, not both; got all, grpo"),
        (["all", "all"], TEXT, {}, "not both; got all, all"),
        (["grpoo"], TEXT, {}, "Did you mean 'grpo'"),
        (["all"], TEXT, {"without": ["grpoo"]}, "Did you mean 'grpo'"),
        (["grpo"], TEXT, {"without": ["rloo"]}, "without goes with the arms `all`; got without=rloo and arms grpo"),
        (["all"], TEXT, {"without": sorted(LANGUAGE)}, "`all` leaves no method for 'arithmetic': a2c"),
        (["all"], TEXT, {"reference": "ppo"}, "reference must be one of the arms .*; got 'ppo'"),
        (["rloo", "grpo"], TEXT, {"reference": "dapo"}, "reference must be one of the arms rloo, grpo; got 'dapo'"),
        (["all"], LanguageConfig(method="dpo", scored="x.jsonl"), {}, "with --scored name the methods"),
        (["sac"], CARTPOLE, {}, "method 'sac' needs real actions with finite bounds"),
        (["sft"], CARTPOLE, {}, "method 'sft' learns from demonstrations"),
        (["p3o"], LanguageConfig(method="p3o", batch=9, group_size=3), {}, "group_size must be even"),
    ],
)
def test_a_wrong_choice_is_named(words: list[str], base: LanguageConfig, more: dict[str, object], message: str) -> None:
    with pytest.raises((BadConfig, UnknownMethod), match=message):
        choose(words, base, **more)


def test_every_assembly_that_refuses_more_is_asked() -> None:
    modules = (item.name for item in pkgutil.iter_modules(ascent.systems.__path__))
    own = {name for name in modules if "refuse" in vars(importlib.import_module(f"ascent.systems.{name}"))}
    assert own - {"arms", "compare"} == REFUSING
    with pytest.raises(BadConfig, match="teacher='embedded' is trained on a built-in task"):
        config = LanguageConfig(method="kdrl", data="mine.jsonl", reward=("judge.py:score",))
        refuse(config, config.composed())
    with pytest.raises(BadConfig, match="environments must divide behaviour_batch"):
        split = ControlConfig(method="props", env="CartPole-v1", environments=3)
        refuse(split, split.composed())


def test_a_base_can_be_configured_before_its_arms_are_known() -> None:
    assert placeholder(["all"]) == "reinforce", "a method of both families"
    assert placeholder(["all"], "dapo") == "dapo"
    assert placeholder(["rloo:ddof=1", "grpo"]) == "rloo"
    assert placeholder(["all", "grpo"]) == "grpo"
    with pytest.raises(UnknownMethod, match="Did you mean 'grpo'"):
        placeholder(["grpoo"])
