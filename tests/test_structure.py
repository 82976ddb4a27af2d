"""The house is as the architecture page says: directions of imports, sizes, names, pages, tests, links."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from importlinter.cli import lint_imports

from ascent.core.registry import Card, cards

ROOT = Path(__file__).parents[1]
HOMELESS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "shared", "base"}
METHODS = sorted(path.stem for path in (ROOT / "ascent" / "methods").glob("*.py") if path.stem != "__init__")
PAPERS = [card for card in cards() if card.status == "paper"]
LONGEST = 500


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project: what git tracks or would track, or all of it in an unpacked archive."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        found = [ROOT / name for name in listed.stdout.splitlines()]
    else:
        found = [
            path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        ]
    return tuple(path for path in found if path.is_file())


def suffixed(suffix: str) -> list[Path]:
    return [path for path in files() if path.suffix == suffix]


def test_imports_point_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


@pytest.mark.parametrize("slug", METHODS)
def test_every_method_has_a_page_and_tests_and_registers_under_its_file_name(slug: str) -> None:
    assert slug in {card.slug for card in cards()}, f"ascent/methods/{slug}.py registers no method {slug!r}"
    page = ROOT / "docs" / "methods" / f"{slug}.md"
    assert page.is_file(), f"method {slug!r} has no page {page.relative_to(ROOT)}"
    tests = [path for path in (ROOT / "tests" / "methods").rglob("test_*.py") if path.stem == f"test_{slug}"]
    assert tests, f"method {slug!r} has no tests/methods/test_{slug}.py"
    assert "def test_" in tests[0].read_text(encoding="utf-8")


def test_every_page_of_a_method_has_its_method() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "methods").glob("*.md")} - {"index"}
    assert pages <= {card.slug for card in cards()}


@pytest.mark.parametrize("slug", METHODS)
def test_the_readme_lists_every_method(slug: str) -> None:
    assert f"(docs/methods/{slug}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("card", PAPERS, ids=lambda card: card.slug)
def test_every_paper_has_its_experiment(card: Card) -> None:
    """A measured result, a picture and a verdict under reproductions/<slug>."""
    folder = ROOT / "reproductions" / card.slug
    assert list(folder.rglob("*.json")), f"{folder.relative_to(ROOT)} holds no result (JSON)"
    assert list(folder.rglob("*.png")), f"{folder.relative_to(ROOT)} holds no picture (PNG)"
    words = " ".join(path.read_text(encoding="utf-8").lower() for path in folder.rglob("*.md"))
    assert "verdict" in words, f"{folder.relative_to(ROOT)} states no verdict (Markdown)"


@pytest.mark.parametrize("card", cards(), ids=lambda card: card.slug)
def test_every_page_names_every_parameter(card: Card) -> None:
    page = ROOT / "docs" / "methods" / f"{card.slug}.md"
    text = page.read_text(encoding="utf-8")
    absent = [item.name for item in card.parameters if f"`{item.name}" not in text]
    assert not absent, f"{page.relative_to(ROOT)} does not explain {', '.join(absent)}"


def test_no_file_is_too_long_to_read() -> None:
    long = {str(path.relative_to(ROOT)): count for path in suffixed(".py") if (count := _lines(path)) > LONGEST}
    assert not long, f"files of more than {LONGEST} lines: {long}"


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_file_is_named_by_its_subject() -> None:
    homeless = [str(path.relative_to(ROOT)) for path in suffixed(".py") if path.stem in HOMELESS]
    assert not homeless, f"a function lives where its subject lives, not in {homeless}"


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in suffixed(".py")
        if path.is_relative_to(ROOT / "ascent")
        and (text := path.read_text(encoding="utf-8")).strip()
        and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent, f"modules without a docstring: {silent}"


def test_every_module_of_the_core_is_imported_by_a_test_of_the_core() -> None:
    imported: set[str] = set()
    for path in (ROOT / "tests" / "core").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {item.name for item in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported |= {f"{node.module}", *(f"{node.module}.{item.name}" for item in node.names)}
    modules = {f"ascent.core.{path.stem}" for path in (ROOT / "ascent" / "core").glob("*.py")} - {
        "ascent.core.__init__"
    }
    assert not modules - imported, f"no test in tests/core imports {sorted(modules - imported)}"


def targets(text: str) -> list[str]:
    """Link and image targets of Markdown and of the HTML in it, code left out."""
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", plain)
    found += re.findall(r"^\[[^\]]+\]:\s*(\S+)", plain, flags=re.MULTILINE)
    return found + re.findall(r"(?:src|href)=\"([^\"]+)\"", plain)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    plain = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = set(re.findall(r"(?:id|name)=\"([^\"]+)\"", plain))
    for heading in re.findall(r"^#+\s+(.*?)\s*#*$", plain, flags=re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).strip()
        found |= {re.sub(r"\s", "-", words), re.sub(r"[-\s]+", "-", words)}
    return found


@pytest.mark.parametrize("page", suffixed(".md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_in_markdown_lead_somewhere(page: Path) -> None:
    broken = []
    for target in targets(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        place, _, anchor = unquote(target).partition("#")
        goal = page if not place else (ROOT / place.lstrip("/") if place.startswith("/") else page.parent / place)
        lost = not goal.exists() or (anchor and goal.suffix == ".md" and anchor not in anchors(goal))
        broken += [target] if lost else []
    assert not broken, f"{page.relative_to(ROOT)} links to nothing: {broken}"


def test_the_link_checker_sees_every_kind_of_link() -> None:
    text = 'a [b](c.md "d") ![e](f.png) <img src="g.png"> `[no](h.md)`\n[i]: j.md\n```\n[no](k.md)\n```\n'
    assert targets(text) == ["c.md", "f.png", "j.md", "g.png"]


def test_the_sites_navigation_leads_to_pages() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = re.findall(r":\s+([\w/]+\.md)\s*$", text, flags=re.MULTILINE)
    lost = [name for name in pages if not (ROOT / "docs" / name).is_file()]
    assert pages and not lost, f"mkdocs.yml names pages that are not there: {lost}"
