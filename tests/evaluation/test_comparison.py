"""The table and the picture of a comparison."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest
from matplotlib.image import imread
from rich.console import Console

from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.intervals import interval
from ascent.evaluation.plot import plot
from ascent.evaluation.table import compare_table, screen, write_csv, write_json


def arm(name: str, *finals: float) -> Arm:
    return Arm(name, [Seed(seed, [(0.0, 0.1), (10.0, final)], final) for seed, final in enumerate(finals)])


ARMS = [
    arm("grpo", 0.5, 0.6, 0.7, 0.4, 0.5),
    arm("better", 0.75, 0.8, 0.95, 0.6, 0.7),
    arm("other", 0.4, 0.7, 0.8, 0.5, 0.4),
]


def test_rows_hold_means_intervals_and_differences_to_the_first_arm() -> None:
    first, better, other = compare_table(ARMS)
    assert (first.name, first.seeds, first.mean) == ("grpo", 5, pytest.approx(0.54))
    assert first.iqm == pytest.approx((0.5 + 0.5 + 0.6) / 3)
    assert first.low == interval([0.5, 0.6, 0.7, 0.4, 0.5], "final").low
    assert math.isnan(first.difference) and not first.differs
    assert better.difference == pytest.approx(0.22)
    assert 0.0 < better.difference_low < 0.22 < better.difference_high and better.differs
    assert other.difference == pytest.approx(0.02) and not other.differs
    # Paired: the spread of the differences (0.2 to 0.25) is far below that of the scores.
    assert better.difference_high - better.difference_low < 0.1 < better.high - better.low


def test_intervals_end_where_scores_must() -> None:
    sure = [arm("nearly always", 0.9, 0.99, 1.0), arm("always", 1.0, 1.0, 1.0)]
    free, ended = compare_table(sure), compare_table(sure, limits=(0.0, 1.0))
    assert free[0].high > 1.0 == ended[0].high
    assert ended[0].low == free[0].low
    assert ended[1].difference_high == free[1].difference_high


def test_the_screen_fits_eighty_columns_and_says_what_is_unknown() -> None:
    console = Console(width=80, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as shown:
        console.print(screen(compare_table(ARMS), "held-out pass@1"))
        console.print(screen(compare_table([arm("once", 12.0)])))
    text = shown.get()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "held-out pass@1" in text and "0.760 [" in text and "+0.220 [" in text
    assert "12.0" in text and "nan" not in text


def test_csv_and_json_hold_every_number_and_no_nan(tmp_path: Path) -> None:
    rows = compare_table(ARMS)
    write_csv(rows, tmp_path / "table.csv")
    write_json(rows, tmp_path / "table.json", ARMS)
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == ["grpo", "better", "other"]
    assert lines[0]["difference"] == "" and float(lines[1]["difference_low"]) == rows[1].difference_low
    document = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert document["rows"][0]["difference"] is None
    assert document["rows"][2]["iqm"] == rows[2].iqm
    run = {"seed": 2, "curve": [[0.0, 0.1], [10.0, 0.95]], "final": 0.95, "measures": {}}
    assert document["arms"][1]["seeds"][2] == run


@pytest.mark.parametrize(
    "arms",
    [
        ARMS,
        [Arm("no curve", [Seed(0, [], -200.0), Seed(1, [], -150.0)]), Arm("one seed", [Seed(5, [(0.0, -3.0)], -3.0)])],
        [arm("nothing learnt", 0.0, 0.0)],
    ],
    ids=["curves", "negative", "zero"],
)
def test_the_picture_is_drawn_in_the_colours_of_the_arms(arms: list[Arm], tmp_path: Path) -> None:
    plot(arms, tmp_path / "new" / "picture.png", budget="step", score="pass@1", title="Comparison")
    image = imread(tmp_path / "new" / "picture.png")
    assert image.shape[0] > 400 and image.shape[1] > 1000
    colours = {
        tuple(round(float(part) * 255) for part in pixel[:3]) for pixel in image[::3, ::3].reshape(-1, image.shape[2])
    }
    drawn = [one for one in arms if any(run.curve or run.final for run in one.seeds)]
    expected = [(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)][: len(drawn)]
    assert all(
        any(max(abs(a - b) for a, b in zip(one, seen, strict=True)) < 12 for seen in colours) for one in expected
    )


def test_bad_arms_are_refused() -> None:
    with pytest.raises(ValueError, match="final of seed 3 must be finite; got nan"):
        Seed(3, [], math.nan)
    with pytest.raises(ValueError, match="seeds of arm 'a' must be different"):
        Arm("a", [Seed(1, [], 0.0), Seed(1, [], 0.0)])
    with pytest.raises(ValueError, match="at least one"):
        Arm("a", [])
    with pytest.raises(ValueError, match="arms must have different names"):
        compare_table([arm("a", 0.0), arm("a", 1.0)])
    with pytest.raises(ValueError, match="arms must have different names"):
        compare_table([])
