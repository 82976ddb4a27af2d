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
TABLE, MEASURED = "<!-- table of methods -->", "<!-- results of benchmarks -->"


def on_config(config: Any) -> Any:
    """Every page of docs/methods under "Methods", the index first, then by slug."""
    pages = sorted(path.name for path in METHODS.glob("*.md") if path.name != "index.md")
    entries: list[Any] = ["methods/index.md", *({name.removesuffix(".md"): f"methods/{name}"} for name in pages)]
    config["nav"] = [{"Methods": entries} if list(item) == ["Methods"] else item for item in config["nav"]]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas as MathML; the table of methods and the results of the benchmarks, where a page asks for them."""
    markdown = markdown.replace(TABLE, table()) if TABLE in markdown else markdown
    return formulas(markdown.replace(MEASURED, results()) if MEASURED in markdown else markdown)


def formulas(markdown: str) -> str:
    """`$$...$$` and `$...$` outside of code as MathML, which browsers draw without a script."""
    pieces = CODE.split(markdown)
    return "".join(piece if place % 2 else FORMULA.sub(_drawn, piece) for place, piece in enumerate(pieces))


def _drawn(found: re.Match[str]) -> str:
    block, inline = found.groups()
    drawn: str = convert(block or inline, display="block" if block else "inline")
    return drawn.replace("\n", " ")


def results() -> str:
    """Every table that a benchmark wrote, as a section."""
    texts = [path.read_text() for path in sorted(RESULTS.glob("*.md"))]
    return "\n\n".join(text if text.startswith("## ") else f"#{text}" for text in texts)


def table() -> str:
    """Every registered method: page, title, paper, family, status."""
    lines = ["| method | title | paper | year | family | status |", "|---|---|---|---|---|---|"]
    for card in cards():
        name = f"[{card.slug}]({card.slug}.md)" if (METHODS / f"{card.slug}.md").is_file() else f"`{card.slug}`"
        title = f"[{card.title}]({card.url})" if card.url else card.title
        lines.append(f"| {name} | {title} | {card.paper} | {card.year} | {card.family} | {card.status} |")
    return "\n".join(lines)
