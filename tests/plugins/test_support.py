"""What runs where follows from needs, and the page says what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

import ascent
from ascent.core.plan import Plan, Stop
from ascent.core.registry import cards
from ascent.plugins.matrix import page
from ascent.plugins.support import NAMES, TRL, fits, obstacles, support

ROOT = Path(__file__).parents[2]


def test_the_page_agrees_with_the_code() -> None:
    assert (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8") == page(), "run `make matrix`"


@pytest.mark.parametrize("slug", [card.slug for card in cards()])
def test_every_method_runs_natively_and_every_refusal_has_a_reason(slug: str) -> None:
    found = support(slug)
    assert tuple(found) == NAMES
    assert found["native"].supported
    assert all(entry.supported or entry.reason for entry in found.values())


def test_what_an_engine_lacks_is_named() -> None:
    method = ascent.method("grpo")
    critic = ascent.method("ppo")
    assert obstacles(method, TRL) == []
    credit = method.replace(slug="mine", value_target=critic.value_target)
    assert "its credit needs " in obstacles(credit, TRL)[0] and "`value`" in obstacles(credit, TRL)[0]
    loss = method.replace(slug="mine", losses={**method.losses, "critic": critic.losses["value"]})
    assert any("its loss needs " in reason and "`value`" in reason for reason in obstacles(loss, TRL))
    stopped = method.replace(plan=Plan(stop=Stop("ratio", 2.0)))
    assert obstacles(stopped, TRL) == ["it ends its passes early on a metric"]


def test_what_must_be_given_is_said_and_only_where_it_is_read() -> None:
    assert fits(ascent.method("kdrl"), TRL).reason == 'give scorers={"teacher_log_prob": <model>}'
    assert fits(ascent.method("kdrl", objective="rl"), TRL).reason == ""
    exact = fits(ascent.method("kdrl", estimator="exact"), TRL)
    assert not exact.supported and "`teacher_distribution`" in exact.reason
