"""The laboratory's page is written by a command, and the page in the docs is what the command says today."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ascent.evaluation.exact.statistics import GradientStatistics
from ascent.evaluation.exact.table import BEGIN, END, corridor, line, measure, questions, tokens, write

PAGE = Path(__file__).parents[3] / "docs" / "laboratory.md"


def test_write_renews_what_stands_between_the_markers_and_nothing_else(tmp_path: Path) -> None:
    page, picture = tmp_path / "docs" / "page.md", tmp_path / "docs" / "images" / "page.png"
    page.parent.mkdir()
    page.write_text(f"# Title\n\nBefore.\n\n{BEGIN}\nstale\n{END}\n\nAfter.\n", encoding="utf-8")
    write(page, picture, only=("rloo",))
    first = page.read_text(encoding="utf-8")
    assert first.startswith("# Title\n\nBefore.\n") and first.endswith("After.\n") and "stale" not in first
    assert first.count("| `rloo` |") == first.count("### ") == 3
    assert picture.read_bytes().startswith(b"\x89PNG")
    write(page, picture, only=("rloo",))
    assert page.read_text(encoding="utf-8") == first


def test_write_appends_to_a_page_without_markers(tmp_path: Path) -> None:
    write(tmp_path / "new.md", tmp_path / "new.png", only=("rloo",))
    text = (tmp_path / "new.md").read_text(encoding="utf-8")
    assert text.startswith("# The laboratory\n\n" + BEGIN) and text.endswith(END + "\n")


def test_an_unknown_method_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"reinforce, .*; got 'reinforcement'"):
        measure(tokens(), only=("reinforcement",))


def test_the_numbers_in_the_docs_are_todays() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for problem, names in ((tokens(), ("rloo", "grpo", "ppo")), (questions(), ("grpo",)), (corridor(), ("a2c",))):
        section = page.split(f"### {problem.title}\n")[1].split("###")[0]
        for name, found in measure(problem, only=names):
            assert line(name, found) in section


def test_a_line_is_in_units_of_the_gradient() -> None:
    mean, true = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([0.0, 2.0], dtype=torch.float64)
    found = GradientStatistics(mean, true, 4.0, 5.0, torch.zeros(2), batches=3, exact=True)
    assert line("half", found) == "| `half` | 0.500 | 1.0000 | 0.500 | 1.000 | 1.250 | 2.000 |"
