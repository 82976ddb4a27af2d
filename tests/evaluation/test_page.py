"""A page says what its JSON says, and nothing that was not measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.page import main, text, with_excerpts, write_page
from ascent.evaluation.table import compare_table, read_json, write_json

ROOT = Path(__file__).parents[2]
NAMES = ("grpo", "better", "plain")
ABOUT: dict[str, Any] = {
    "command": "ascent compare all --task arithmetic --seeds 3",
    "date": "2026-01-02",
    "machine": {"processor": "A processor", "cores": 2, "python": "3.11.7", "torch": "2.0", "gymnasium": None},
    "world": "arithmetic",
    "score": "held-out pass@1",
    "limits": [0.0, 1.0],
    "unit": "answers",
    "budget": 5120.0,
    "steps": 40,
    "seeds": 3,
    "reference": "grpo",
    "left_out": {"ppo": "a method of control"},
    "kinds": dict.fromkeys(NAMES, "a kind"),
    "notes": ["`better`: a note."],
    "learning_rates": {"grpo": "0.0001", "better": "0.0001", "plain": "0.001"},
    "updates": {"grpo": 1, "better": 16, "plain": 1},
}


def arm(name: str, clip: float | None, *finals: float) -> Arm:
    runs = []
    for seed, final in enumerate(finals):
        measures = {"entropy": [(0.0, 0.2), (5120.0, 0.1)], "step": [(0.0, 0.0), (5120.0, 12.0)]}
        if clip is not None:
            measures["clip_fraction"] = [(5120.0, clip)]
        runs.append(Seed(seed, [(0.0, 0.4), (5120.0, final)], final, measures))
    return Arm(name, runs)


ARMS = [arm("grpo", 0.0, 0.6, 0.61, 0.62), arm("better", 0.0123, 0.8, 0.81, 0.82), arm("plain", None, 0.5, 0.6, 0.71)]


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    write_json(compare_table(ARMS, limits=(0.0, 1.0)), tmp_path / "c.json", ARMS, ABOUT)
    return tmp_path / "c.json"


def test_what_is_written_is_read_again(numbers: Path) -> None:
    rows, arms, about = read_json(numbers)
    assert arms == ARMS and about == ABOUT
    assert rows[1:] == compare_table(ARMS, limits=(0.0, 1.0))[1:]
    assert math.isnan(rows[0].difference) and rows[0].mean == pytest.approx(0.61)


def test_the_table_is_ordered_by_score_and_a_method_without_a_clip_has_a_dash(numbers: Path) -> None:
    found = text(numbers, Path("docs/comparison.md"))
    table = [line for line in found.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in table] == ["better", "grpo", "plain"]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row[5] for row in cells] == ["0.0123", "0.0000", "–"], "a clip that cut nothing is 0, no clip is none"
    assert cells[0][2] == "**+0.200 [+0.200, +0.200]**" and cells[1][2] == "–"
    assert not cells[2][2].startswith("**") and cells[2][1].startswith("0.603 [")
    assert [row[3] for row in cells] == ["–"] * 3, "no reward was measured"
    assert cells[0][4:8] == ["0.100", "0.0123", "16", "12"]
    assert "nan" not in found


def test_the_page_says_what_was_run_and_what_it_does_not_show(numbers: Path) -> None:
    found = text(numbers, Path("docs/comparison.md"))
    for said in (
        "# 3 methods on arithmetic",
        "Every method gets 5,120 answers, 3 seeds. Highest held-out pass@1: `better` with 0.810; `grpo` has 0.610.",
        "Clearly above `grpo` (the interval of the difference excludes 0): `better`.",
        "Clearly below `grpo` (the interval of the difference excludes 0): none.",
        "`better`: a note.",
        "`grpo`: with one update a step the ratio is 1",
        "learning rate 0.0001, 0.001 for `plain`",
        "Not taking part: `ppo` (a method of control).",
        "ascent compare all --task arithmetic --seeds 3 --page docs/comparison.md",
        "2026-01-02, A processor, 2 cores, one torch thread a run; python 3.11.7, torch 2.0.",
        "(images/comparison_ends.png)",
        "(images/comparison_dynamics.png)",
        "[c.json](c.json)",
    ):
        assert said in found, said
    assert "`better`: with one update" not in found, "16 updates a step"
    assert "One in twenty does so by chance alone; here are 2." in found


def test_one_seed_claims_no_difference(tmp_path: Path) -> None:
    once = [Arm(one.name, one.seeds[:1]) for one in ARMS]
    write_json(compare_table(once), tmp_path / "once.json", once, {**ABOUT, "seeds": 1})
    found = text(tmp_path / "once.json", Path("once.md"))
    assert "Every method gets 5,120 answers, 1 seed, so no intervals. Highest" in found
    assert "Clearly" not in found and "Bold" not in found and "nan" not in found
    assert "| `better` | 0.800 | +0.200 |" in found


def test_numbers_and_pictures_are_put_beside_the_page(numbers: Path, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(b"a picture")
    page = tmp_path / "site" / "result.md"
    write_page(numbers, {"ends": picture, "dynamics": picture}, page)
    assert page.read_text(encoding="utf-8") == text(page.with_suffix(".json"), page)
    assert page.with_suffix(".json").read_bytes() == numbers.read_bytes()
    assert {path.name for path in (tmp_path / "site" / "images").iterdir()} == {
        "result_ends.png",
        "result_dynamics.png",
    }


def test_an_excerpt_quotes_some_arms_and_keeps_the_rest_of_its_page(numbers: Path) -> None:
    page = numbers.parent / "README.md"
    page.write_text("before\n<!-- excerpt of c.json: plain grpo -->\nold 0.1\n<!-- end -->\nafter\n")
    assert main([str(page)]) == 0
    found = page.read_text()
    assert found.startswith("before\n<!-- excerpt of c.json: plain grpo -->\n![2 methods on arithmetic](images/c.png)")
    assert found.endswith("<!-- end -->\nafter\n") and "old" not in found
    assert "after 5,120 answers, mean of 3 seeds and 95% interval: `plain` 0.603 [" in found
    assert "`grpo` 0.610 [" in found and "`better`" not in found
    assert "ascent compare plain grpo --task arithmetic --seeds 3" in found
    assert (numbers.parent / "images" / "c.png").read_bytes()[:4] == b"\x89PNG"
    assert with_excerpts(page) == found, "written anew it stays as it is"


def test_an_excerpt_of_an_arm_that_was_not_run_is_refused(numbers: Path) -> None:
    page = numbers.parent / "README.md"
    page.write_text("<!-- excerpt of c.json: grpo dapo -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="must be among grpo, better, plain; got dapo"):
        main([str(page)])


def test_the_documentation_has_the_page_of_its_numbers() -> None:
    page = Path("docs/comparison.md")
    assert (ROOT / page).read_text(encoding="utf-8") == text(ROOT / "docs" / "comparison.json", page)


def test_the_readme_quotes_the_numbers_of_the_comparison() -> None:
    readme = ROOT / "README.md"
    assert "<!-- excerpt of docs/comparison.json: " in readme.read_text(encoding="utf-8")
    assert with_excerpts(readme) == readme.read_text(encoding="utf-8")
