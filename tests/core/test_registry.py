"""Building methods by name: documented parameters, and errors that suggest the nearest name."""

from __future__ import annotations

import pytest

from ascent.core import registry
from ascent.core.method import Method
from ascent.core.registry import UnknownMethod, cards, method, register
from ascent.core.surrogates import LogProb
from ascent.core.term import Term

FACTS = {"title": "T", "paper": "P", "year": 2024, "url": "https://example.org", "family": "both"}


@pytest.fixture
def only_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of its own, so that what a test registers is gone afterwards."""
    registry.discover()
    monkeypatch.setattr(registry, "_CARDS", dict(registry._CARDS))


def build(weight: float = 1.0, clip_low: float | None = None) -> Method:
    """A method.

    Args:
        weight: of the term, > 0,
            and on a second line.
        clip_low: a bound.
    """
    return Method("toy", {"policy": Term(LogProb(), weight)})


def test_a_registered_method_knows_its_parameters(only_here: None) -> None:
    register("toy", **FACTS)(build)
    entry = registry.card("toy")
    assert [(item.name, item.default) for item in entry.parameters] == [("weight", 1.0), ("clip_low", None)]
    assert entry.parameters[0].doc == "of the term, > 0, and on a second line."
    made = method("toy", weight=2.0)
    assert made.slug == "toy" and made.parameters == {"weight": 2.0, "clip_low": None}
    assert made.losses["policy"].coefficient == 2.0


def test_unknown_names_suggest_the_nearest(only_here: None) -> None:
    register("toy", **FACTS)(build)
    with pytest.raises(UnknownMethod, match=r"got 'grop'.* Did you mean 'grpo'\?"):
        method("grop")
    with pytest.raises(TypeError, match=r"method 'toy' has no parameter 'clip_lo'; .* Did you mean 'clip_low'\?"):
        method("toy", clip_lo=0.1)


def test_undocumented_or_required_parameters_are_refused(only_here: None) -> None:
    def bare(weight: float = 1.0) -> Method:
        """No section of arguments."""
        return build(weight)

    def required(weight: float) -> Method:
        """A method.

        Args:
            weight: of the term.
        """
        return build(weight)

    with pytest.raises(TypeError, match="parameter 'weight' of bare is not documented"):
        register("bare", **FACTS)(bare)
    with pytest.raises(TypeError, match="parameter 'weight' of required needs a default"):
        register("required", **FACTS)(required)
    with pytest.raises(ValueError, match="'ppo' is registered twice"):
        register("ppo", **FACTS)(build)


def test_every_card_builds_and_is_filled() -> None:
    slugs = [entry.slug for entry in cards()]
    assert slugs == sorted(set(slugs)) and {"ppo", "grpo", "reinforce"} <= set(slugs)
    for entry in cards():
        assert method(entry.slug).slug == entry.slug
        assert entry.title and entry.paper and entry.url.startswith("https://") and 1980 < entry.year < 2100
        assert entry.family in ("language", "control", "both", "supervised")
        assert entry.status in ("baseline", "paper")
