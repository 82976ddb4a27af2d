"""Pictures of many arms: never more curves in a panel than an eye follows, and every arm in its colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.panels import MOST, draw_dynamics, draw_ends, grouped
from ascent.evaluation.plot import COLOURS


def arm(name: str, final: float, clip: float | None = 0.01, seeds: int = 3) -> Arm:
    runs = []
    for seed in range(seeds):
        end = final + 0.01 * seed
        measures = {"entropy": [(0.0, 1.0), (10.0, 1.0 - final)], "reward": [(10.0, end)]}
        if clip is not None:
            measures["clip_fraction"] = [(10.0, clip)]
        runs.append(Seed(seed, [(0.0, 0.1), (10.0, end)], end, measures))
    return Arm(name, runs)


MANY = [arm(f"method_{number}", 0.03 * number, None if number % 3 else 0.01) for number in range(24)]
KINDS = {one.name: ("first", "second", "third")[number // 11] for number, one in enumerate(MANY)}


def seen(path: Path) -> set[tuple[int, ...]]:
    pixels = imread(path)[::2, ::2, :3]
    return {tuple(round(float(part) * 255) for part in pixel) for pixel in pixels.reshape(-1, 3)}


def near(colour: str, found: set[tuple[int, ...]]) -> bool:
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return any(max(abs(a - b) for a, b in zip(wanted, pixel, strict=True)) < 12 for pixel in found)


def test_few_arms_share_one_row_and_many_are_dealt_by_kind() -> None:
    few = MANY[: len(COLOURS)]
    assert grouped(few, KINDS) == [("", few)]
    rows = grouped(MANY, KINDS)
    assert all(0 < len(members) <= MOST for _, members in rows)
    assert [label for label, _ in rows] == ["first", "first", "second", "second", "third"]
    assert [one.name for _, members in rows for one in members] == [one.name for one in MANY[1:]], "each once"
    assert MANY[0] not in [one for _, members in rows for one in members], "the reference is drawn in every row"
    sizes = [len(members) for _, members in grouped(MANY, None)]
    assert sum(sizes) == 23 and max(sizes) <= MOST


@pytest.mark.parametrize("kinds", [KINDS, None], ids=["kinds", "no kinds"])
def test_the_ends_of_many_arms(tmp_path: Path, kinds: dict[str, str] | None) -> None:
    draw_ends(MANY, tmp_path / "new" / "ends.png", kinds=kinds, score="pass@1", title="a world", limits=(0.0, 1.0))
    height, width, _ = imread(tmp_path / "new" / "ends.png").shape
    assert width == 1600 and height > 1000, "24 lines of their own height"
    found = seen(tmp_path / "new" / "ends.png")
    assert [near(colour, found) for colour in COLOURS[:3]] == [True, kinds is not None, kinds is not None]


def test_the_curves_of_many_arms(tmp_path: Path) -> None:
    draw_dynamics(MANY, tmp_path / "curves.png", kinds=KINDS, budget="answers", score="pass@1", limits=(0.0, 1.0))
    found = seen(tmp_path / "curves.png")
    assert all(near(colour, found) for colour in COLOURS[:MOST])
    assert not near(COLOURS[MOST], found)


def test_a_panel_that_no_arm_fills_is_left_out(tmp_path: Path) -> None:
    bare = [Arm(name, [Seed(0, [(0.0, 0.0), (1.0, 1.0)], 1.0)]) for name in ("a", "b")]
    draw_dynamics(bare, tmp_path / "bare.png")
    draw_ends(bare, tmp_path / "ends.png")
    full = [arm("a", 0.1), arm("b", 0.2)]
    draw_dynamics(full, tmp_path / "full.png")

    def frames(path: Path) -> int:
        """Left spines: columns that are grey over most of the middle of the picture."""
        image = np.round(imread(path)[..., :3] * 255)
        grey = (np.abs(image - [0xD0, 0xD7, 0xDE]) < 8).all(2)
        columns = np.flatnonzero(grey.mean(0) > 0.55)
        return int((np.diff(columns) > 3).sum()) + 1 if len(columns) else 0

    assert frames(tmp_path / "bare.png") < frames(tmp_path / "full.png")


def test_names_that_are_not_different_are_refused(tmp_path: Path) -> None:
    for draw in (draw_ends, draw_dynamics):
        with pytest.raises(ValueError, match="arms must have different names"):
            draw([arm("a", 0.1), arm("a", 0.2)], tmp_path / "no.png")
