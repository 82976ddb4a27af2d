"""Arms on equal budgets: refused early, continued where stopped, compared at what all reached."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import ascent
from ascent.core.registry import UnknownMethod
from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.dynamics import at_common_budget
from ascent.evaluation.page import text
from ascent.systems.compare import compare, run_or_resume
from ascent.systems.config import BadConfig
from ascent.training.learn import Diverged
from ascent.training.recorder import METRICS
from tests.training.runs import control, language, tiny_model


@pytest.mark.parametrize(
    ("arms", "more", "message"),
    [
        (["ppo", "ppo"], {}, "different methods, or `all`; got ppo, ppo"),
        ([], {}, "different methods, or `all`; got none"),
        (["ppo", "ppoo"], {}, "Did you mean 'ppo'"),
        (["ppo", "grpo"], {}, "method 'grpo' needs"),
        (["ppo:clipp=3"], {}, "no parameter 'clipp'"),
        (["all", "ppo"], {}, "`all` or methods by name, not both; got all, ppo"),
        (["all"], {"without": ["pppo"]}, "Did you mean 'ppo'"),
        (["ppo"], {"page": Path("page.txt")}, "page must be a Markdown file, name.md; got page.txt"),
        (["ppo"], {"seeds": 0}, "seeds must be >= 1; got 0"),
        (["ppo"], {"jobs": 0}, "jobs must be >= 1 worker processes; got 0"),
    ],
)
def test_a_wrong_comparison_is_refused_before_anything_runs(
    tmp_path: Path, arms: list[str], more: dict[str, Any], message: str
) -> None:
    base = control(tmp_path / "x", evaluate_every=1)
    with pytest.raises((BadConfig, UnknownMethod), match=message):
        compare(arms, base, folder=tmp_path / "found", **more)
    assert not (tmp_path / "found").exists()


def test_a_comparison_without_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="evaluate_every must be >= 1 in a comparison"):
        compare(["ppo"], control(tmp_path / "x", evaluate_every=0), folder=tmp_path / "found")


def test_scores_are_taken_at_the_largest_budget_that_all_reached() -> None:
    slow = Arm("slow", [Seed(0, [(0, 0.1), (10, 0.2), (20, 0.3)], 0.3), Seed(1, [(0, 0.0), (10, 0.4), (20, 0.5)], 0.5)])
    fast = Arm("fast", [Seed(0, [(0, 0.1), (14, 0.6), (28, 0.9)], 0.9), Seed(1, [(0, 0.1), (18, 0.7), (36, 0.8)], 0.8)])
    found = at_common_budget([slow, fast])
    # At 20, on the line from (14, 0.6) to (28, 0.9) and on that from (18, 0.7) to (36, 0.8).
    wanted = [[0.3, 0.5], [0.6 + 0.3 * 6 / 14, 0.7 + 0.1 * 2 / 18]]
    assert [[run.final for run in arm.seeds] for arm in found] == [pytest.approx(finals) for finals in wanted]
    assert max(point for arm in found for run in arm.seeds for point, _ in run.curve) <= 20


def test_a_run_that_is_there_is_not_run_again_and_another_one_is_not_overwritten(tmp_path: Path) -> None:
    config = control(tmp_path / "run", evaluate_every=1, episodes=1)
    first = run_or_resume(config.to_json())
    written = (tmp_path / "run" / METRICS).stat().st_mtime_ns
    assert run_or_resume(config.to_json()) == first
    assert (tmp_path / "run" / METRICS).stat().st_mtime_ns == written
    (tmp_path / "run" / "result.json").unlink()
    again = run_or_resume(config.to_json())
    assert again.metrics == first.metrics
    with pytest.raises(BadConfig, match="holds a run of another configuration"):
        run_or_resume(control(tmp_path / "run", evaluate_every=1, episodes=1, steps=5).to_json())


def test_a_run_that_was_moved_is_found_where_it_is(tmp_path: Path) -> None:
    first = run_or_resume(control(tmp_path / "run", evaluate_every=1, episodes=1).to_json())
    (tmp_path / "run").rename(tmp_path / "moved")
    again = run_or_resume(control(tmp_path / "moved", evaluate_every=1, episodes=1).to_json())
    assert again.metrics == first.metrics and again.folder == tmp_path / "moved"


def test_an_arm_that_diverged_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = control(tmp_path / "x", evaluate_every=1, episodes=1, steps=3)
    wild = "ppo:learning_rate=1e38"
    found = compare(["reinforce", wild, "ppo"], base, seeds=1, folder=tmp_path / "found", jobs=1)
    assert [row.name for row in found.rows] == ["reinforce", "ppo"]
    assert found.left_out[wild].startswith("diverged: the ") and "not finite" in found.left_out[wild]
    assert f"left out: {wild}: diverged" in capsys.readouterr().out
    with pytest.raises(Diverged, match="not finite"):
        compare([wild, "reinforce"], base, seeds=1, folder=tmp_path / "found", jobs=1)


def test_a_comparison_leaves_table_picture_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = control(tmp_path / "x", evaluate_every=1, episodes=2, steps=2)
    found = compare(["ppo", "reinforce"], base, seeds=2, folder=tmp_path / "found", jobs=1)
    assert [row.name for row in found.rows] == ["ppo", "reinforce"]
    for name in ("comparison", "ends", "dynamics"):
        assert (tmp_path / "found" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    with (tmp_path / "found" / "comparison.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    json.loads((tmp_path / "found" / "comparison.json").read_text())
    assert (tmp_path / "found" / "reinforce" / "seed1" / "config.json").exists()
    shown = capsys.readouterr().out
    assert "ppo" in shown and "reinforce" in shown


def test_all_that_an_environment_feeds_in_one_command_and_a_page_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = control(tmp_path / "x", method="reinforce", evaluate_every=1, episodes=2, steps=2)
    page = tmp_path / "docs" / "result.md"
    found = compare(
        ["all"],
        base,
        seeds=2,
        folder=tmp_path / "found",
        jobs=1,
        without=["props", "gbrl", "ggtd", "submodular_rl"],
        reference="reinforce",
        page=page,
    )
    assert [row.name for row in found.rows] == ["reinforce", "a2c", "ppo"]
    assert found.left_out["props"] == "left out by --without" and "grpo" in found.left_out
    shown = capsys.readouterr().out
    assert "left out: grpo: a method of language runs" in shown
    measures = {arm.name: set(arm.seeds[0].measures) for arm in found.arms}
    assert "clip_fraction" in measures["ppo"]
    assert "clip_fraction" not in measures["reinforce"], "no clip, no clip fraction"
    assert all({"reward", "entropy", "step", "processor_seconds"} <= names for names in measures.values())
    assert page.read_text() == text(page.with_suffix(".json"), page)
    assert page.with_suffix(".json").read_bytes() == (tmp_path / "found" / "comparison.json").read_bytes()
    for name in ("ends", "dynamics"):
        assert (page.parent / "images" / f"result_{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_answers_are_the_budget_of_language_runs(tmp_path: Path) -> None:
    """Solutions of supervised runs and answers of groups count alike, so 8 a step are 8 for both."""
    model = tiny_model(tmp_path / "model")
    base = language(model, tmp_path / "x", reward=(), evaluate_every=1, steps=2)
    found = compare(["grpo", "sft"], base, seeds=1, folder=tmp_path / "found", jobs=1)
    for arm in found.arms:
        assert [budget for budget, _ in arm.seeds[0].curve] == [0.0, 8.0, 16.0], arm.name
        assert [budget for budget, _ in arm.seeds[0].measures["entropy"]] == [0.0, 8.0, 16.0]
    assert "reward" not in found.arms[1].seeds[0].measures
    about = json.loads((tmp_path / "found" / "comparison.json").read_text())["about"]
    assert (about["unit"], about["budget"]) == ("answers", 16.0)


def test_python_says_the_same_as_the_command_line() -> None:
    with pytest.raises(BadConfig, match="`all` leaves no method for 'CartPole-v1'"):
        ascent.compare(
            "all", without=["ppo", "a2c", "reinforce", "props", "gbrl", "ggtd", "submodular_rl"], env="CartPole-v1"
        )
    with pytest.raises(BadConfig, match=r"reference must be one of the arms grpo, rloo; got 'dapo'"):
        ascent.compare(["grpo", "rloo"], reference="dapo", task="arithmetic")
    with pytest.raises(BadConfig, match=r"page must be a Markdown file, name\.md; got page\.html"):
        ascent.compare("all", page="page.html", task="arithmetic")
