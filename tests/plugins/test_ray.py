"""A comparison on Ray leaves the table of one without it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ascent.cli import main
from ascent.evaluation.arms import Arm, Seed
from ascent.plugins.ray import on_ray, there
from ascent.systems.compare import compare
from tests.training.runs import control

WITHOUT = "Ray is not installed here; pip install 'ascent-rl[ray]' runs this"


def halved(number: int) -> float:
    if number < 0:
        raise ValueError(f"number must be >= 0; got {number}")
    return number / 2


def test_without_ray_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["ppo", "reinforce", "--env", "CartPole-v1", "--steps", "1", "--output", str(tmp_path / "found"), "--ray"]
    assert main(["compare", *words]) == 1
    assert "--ray needs Ray: pip install 'ascent-rl[ray]'" in capsys.readouterr().err


def test_a_node_without_the_drivers_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert there(str(tmp_path), halved, 3) == 1.5
    with pytest.raises(FileNotFoundError, match="a directory that all nodes share"):
        there(str(tmp_path / "elsewhere"), halved, 3)


def test_calls_come_back_with_their_places_and_their_own_errors() -> None:
    pytest.importorskip("ray", reason=WITHOUT)
    assert sorted(on_ray(halved, [4, 6], 1)) == [(0, 2.0), (1, 3.0)]
    with pytest.raises(ValueError, match=r"^number must be >= 0; got -1$"):
        list(on_ray(halved, [-1], 1))


def timeless(arms: Sequence[Arm]) -> list[object]:
    """Everything that was measured but the processor's time."""
    return [
        (arm.name, [(seed.seed, seed.curve, seed.final, seed.measures.keys(), kept(seed)) for seed in arm.seeds])
        for arm in arms
    ]


def kept(seed: Seed) -> dict[str, object]:
    return {name: curve for name, curve in seed.measures.items() if name != "processor_seconds"}


def test_the_table_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason=WITHOUT)
    base = control(tmp_path / "x", evaluate_every=1, episodes=2, steps=2)
    found = {}
    for name, ray in (("processes", None), ("ray", "local")):
        folder = tmp_path / name
        found[name] = compare(["ppo", "reinforce"], base, seeds=2, folder=folder, jobs=2, ray=ray)
    assert found["ray"].rows == found["processes"].rows
    assert timeless(found["ray"].arms) == timeless(found["processes"].arms)
    tables = [(tmp_path / name / "comparison.csv").read_text() for name in found]
    assert tables[0] == tables[1]
