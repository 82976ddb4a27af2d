"""Every method has its page and its tests, and the page states the defaults as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascent.core.registry import Card, cards

ROOT = Path(__file__).parents[2]
each = pytest.mark.parametrize("card", cards(), ids=[card.slug for card in cards()])
SECTIONS = (
    "Idea",
    "Equation",
    "Code",
    "When to use it",
    "Defaults",
    "Checklist",
    "Known departures",
    "Measured result",
)


@each
def test_page_has_its_sections_in_order(card: Card) -> None:
    text = (ROOT / "docs" / "methods" / f"{card.slug}.md").read_text()
    places = [text.index(f"\n## {section}\n") for section in SECTIONS]
    assert places == sorted(places)
    assert card.url in text


@each
def test_page_lists_every_default_with_its_source(card: Card) -> None:
    lines = (ROOT / "docs" / "methods" / f"{card.slug}.md").read_text().splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert set(rows) == {item.name for item in card.parameters}
    for item in card.parameters:
        shown = f'`"{item.default}"`' if isinstance(item.default, str) else f"`{item.default}`"
        line = rows[item.name].replace("\\|", "/")
        assert line.split("|")[2].strip() == shown
        assert line.rstrip(" |").split("|")[-1].strip()


@each
def test_method_has_a_module_and_tests_of_its_name(card: Card) -> None:
    assert card.build.__module__ == f"ascent.methods.{card.slug}"
    assert (ROOT / "tests" / "methods" / f"test_{card.slug}.py").exists()


@each
def test_it_is_in_the_index(card: Card) -> None:
    assert f"](methods/{card.slug}.md)" in (ROOT / "docs" / "papers.md").read_text()
