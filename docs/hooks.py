"""What the site derives from the code: the methods, their pages in the navigation, and the measured results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

from ascent.core.registry import cards

METHODS = Path(__file__).parent / "methods"
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
TABLE = "<!-- table of methods -->"
MEASURED = re.compile(r"<!-- tables from (\S+) -->")


def on_config(config: Any) -> Any:
    """Every page of docs/methods under "Methods", the index first, then by slug."""
    pages = sorted(path.name for path in METHODS.glob("*.md") if path.name != "index.md")
    entries: list[Any] = ["methods/index.md", *({name.removesuffix(".md"): f"methods/{name}"} for name in pages)]
    config["nav"] = [{"Methods": entries} if list(item) == ["Methods"] else item for item in config["nav"]]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas as MathML; the table of methods and the results of the benchmarks, where a page asks for them."""
    markdown = markdown.replace(TABLE, table()) if TABLE in markdown else markdown
    return formulas(MEASURED.sub(lambda found: results(found[1]), markdown))


def formulas(markdown: str) -> str:
    """`$$...$$` and `$...$` outside of code as MathML, which browsers draw without a script."""
    pieces = CODE.split(markdown)
    return "".join(piece if place % 2 else FORMULA.sub(_drawn, piece) for place, piece in enumerate(pieces))


def _drawn(found: re.Match[str]) -> str:
    block, inline = found.groups()
    drawn: str = convert(block or inline, display="block" if block else "inline")
    return drawn.replace("\n", " ")


def results(name: str) -> str:
    """Every table of a result of `make bench`, each as a section below the page's own."""
    _, _, tables = (RESULTS / f"{name}.md").read_text().partition("<!-- tables -->")
    return re.sub(r"^## ", "### ", tables, flags=re.MULTILINE)


def table() -> str:
    """Every registered method: page, title, paper, family, status."""
    lines = ["| method | title | paper | year | family | status |", "|---|---|---|---|---|---|"]
    for card in cards():
        name = f"[{card.slug}]({card.slug}.md)" if (METHODS / f"{card.slug}.md").is_file() else f"`{card.slug}`"
        title = f"[{card.title}]({card.url})" if card.url else card.title
        lines.append(f"| {name} | {title} | {card.paper} | {card.year} | {card.family} | {card.status} |")
    return "\n".join(lines)
