"""The page that says which method runs where, made from the code; `make matrix` writes it."""

from __future__ import annotations

from ascent.core.registry import Card, cards
from ascent.plugins.support import NAMES, Support, support

HEAD = """# What runs where

Every method in our own trainer (`ascent train`), inside [TRL](tutorials/trl.md) and inside [verl](tutorials/verl.md).
The table follows from the code: an engine is described by the columns that it can give, a method by those that its
parts need (`ascent/plugins/support.py`); `make matrix` writes this page and a test compares the two. It is about
default parameters; a parameter that asks for more (or less) is judged when the method is built inside the engine, with
the same words.

"""


def page() -> str:
    """The whole page, Markdown."""
    found = {card.slug: support(card.slug) for card in cards()}
    lines = ["| method | own trainer | TRL | verl |", "|---|---|---|---|"]
    lines += [f"| {_link(card)} | {' | '.join(_mark(found[card.slug][name]) for name in NAMES)} |" for card in cards()]
    counts = (sum(row[name].supported for row in found.values()) for name in NAMES)
    summary = "Supported: {} of {{}} in our own trainer, {} in TRL, {} in verl.".format(*counts).format(len(found))
    details = [
        f"- {_link(card)}, {title}: {found[card.slug][name].reason}."
        for card in cards()
        for name, title in zip(NAMES, ("own trainer", "TRL", "verl"), strict=True)
        if found[card.slug][name].reason
    ]
    return HEAD + "\n".join([*lines, "", summary, "", "## Why not, and what to give", "", *details]) + "\n"


def _mark(found: Support) -> str:
    return ("yes, see below" if found.reason else "yes") if found.supported else "no"


def _link(card: Card) -> str:
    return f"[{card.slug}](methods/{card.slug}.md)"


if __name__ == "__main__":
    print(page(), end="")
