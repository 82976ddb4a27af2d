"""Every method documents its parameters and refuses values outside their range by name, value, range and mend."""

from __future__ import annotations

import math

import pytest

from ascent.core.plan import Linear
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import UnknownMethod, card, cards, method

BASELINES = [
    "sft",
    "reinforce",
    "a2c",
    "ppo",
    "rloo",
    "grpo",
    "dr_grpo",
    "dapo",
    "gspo",
    "cispo",
    "reinforce_plus_plus",
    "ipo",
    "dpo",
    "naive_pg",
    "sac",
    "td3",
    "ddpg",
]
TOKENS = ("forking_tokens", "kdrl", "capo", "stabilizing_rl")
PARAMETERS = [
    (slug, item)
    for slug in (*BASELINES, "entropy_mechanism", "copg", "props", "bapo", "otr", "p3o", "yann_rl", *TOKENS)
    for item in card(slug).parameters
]
NUMERIC = [(slug, item.name) for slug, item in PARAMETERS if type(item.default) in (int, float)]
SIGNED = (("otr", "beta"), ("kdrl", "success"))
# A teacher is a place, not a choice.
CHOICES = [(slug, item.name) for slug, item in PARAMETERS if type(item.default) is str and item.name != "teacher"]


def test_the_baselines_and_three_papers_are_registered() -> None:
    status = {entry.slug: entry.status for entry in cards()}
    assert {slug for slug in BASELINES if status.get(slug) == "baseline"} == set(BASELINES)
    assert {"entropy_mechanism", "copg", "props"} <= {slug for slug in status if status[slug] == "paper"}


@pytest.mark.parametrize(("slug", "name"), NUMERIC)
@pytest.mark.parametrize("value", [math.nan, True, "0.2"])
def test_numbers_are_checked(slug: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{name}.* got {value!r}"):
        method(slug, **{name: value})


@pytest.mark.parametrize(
    ("slug", "name"),
    [pair for pair in NUMERIC if not pair[1].startswith("covariance") and pair not in SIGNED],
)
def test_negative_numbers_are_refused(slug: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .* got -1"):
        method(slug, **{name: -1})


@pytest.mark.parametrize(("slug", "name"), CHOICES)
def test_choices_are_checked(slug: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be one of .*; got 'nothing'"):
        method(slug, **{name: "nothing"})


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownMethod, match="Did you mean 'dapo'"):
        method("dappo")
    with pytest.raises(TypeError, match="Did you mean 'clip_high'"):
        method("grpo", clip_hihg=0.3)


def test_parameters_are_recorded() -> None:
    built = method("grpo", clip_high=0.28)
    assert built.parameters["clip_high"] == 0.28 and built.parameters["clip_low"] == 0.2
    assert {item.name for item in card("grpo").parameters} == set(built.parameters)


def test_intervals() -> None:
    within("x", 0.0, "[0, 1)", "")
    within("x", math.inf, "(0, inf]", "")
    within("x", Linear(1.0, 0.0), "[0, inf)", "")
    for value, interval in ((1.0, "[0, 1)"), (0.0, "(0, 1]"), (math.inf, "[0, inf)")):
        with pytest.raises(ValueError, match="x must be a number in"):
            within("x", value, interval, "Mend it")
    with pytest.raises(ValueError, match=r"x\.end must be .* got -1\.0\. Mend it\."):
        within("x", Linear(1.0, -1.0), "[0, inf)", "Mend it")
    with pytest.raises(ValueError, match="integer >= 1; got 0"):
        whole("x", 0, 1, "Mend it")
    with pytest.raises(ValueError, match="Did you mean 'group'"):
        one_of("x", "groop", ("group", "batch"))
