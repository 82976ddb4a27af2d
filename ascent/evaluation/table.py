"""A comparison as a table: on the screen, as CSV and as JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ascent.evaluation.arms import Arm, Curve, Seed, check
from ascent.evaluation.intervals import interquartile_mean, interval, paired_difference


@dataclass(frozen=True)
class Row:
    """One arm. Numbers that too few seeds cannot give are NaN.

    Attributes:
        name: of the arm.
        seeds: runs.
        mean, iqm: of the final scores.
        low, high: 95% bootstrap interval of the mean.
        difference: mean of this arm minus the first, over the seeds that both have; NaN for the first.
        difference_low, difference_high: its 95% bootstrap interval.
    """

    name: str
    seeds: int
    mean: float
    iqm: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference_low > 0.0 or self.difference_high < 0.0


def compare_table(
    arms: Sequence[Arm], level: float = 0.95, limits: tuple[float, float] = (-math.inf, math.inf)
) -> list[Row]:
    """One row an arm, in the given order; differences are to the first arm, paired by seed.

    Args:
        arms: one or more with different names.
        level: of the intervals, in (0, 1).
        limits: least and greatest score that can be (0 and 1 of a share); intervals of the mean end there.
    """
    check(arms)
    rows = []
    for arm in arms:
        finals = [run.final for run in arm.seeds]
        score = interval(finals, "final", level=level)
        low, high = np.clip((score.low, score.high), *limits).tolist()
        change = paired_difference({} if arm is arms[0] else arms[0].finals, arm.finals, "difference", level=level)
        iqm = float(interquartile_mean(np.asarray(finals)))
        rows.append(
            Row(
                arm.name,
                len(finals),
                score.estimate,
                iqm,
                low,
                high,
                change.estimate,
                change.low,
                change.high,
            )
        )
    return rows


def screen(rows: Sequence[Row], score: str = "score", digits: int | None = None) -> Table:
    """A rich table that fits 80 columns; a difference whose interval excludes 0 is bold.

    Args:
        rows: of `compare_table`.
        score: what the numbers are, for the title ("held-out pass@1").
        digits: after the point; None chooses by the size of the means.
    """
    largest = max(abs(row.mean) for row in rows)
    places = digits if digits is not None else 3 if largest < 10 else 1 if largest < 1000 else 0

    def estimate(value: float, low: float, high: float, sign: str = "") -> str:
        if math.isnan(value):
            return "–"
        bounds = "" if math.isnan(low) else f" [{low:.{places}f}, {high:.{places}f}]"
        return f"{value:{sign}.{places}f}{bounds}"

    table = Table(title=score, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("arm", overflow="fold")
    for heading in ("n", "mean [95%]", "IQM", "difference [95%]"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            str(row.seeds),
            Text(estimate(row.mean, row.low, row.high)),
            f"{row.iqm:.{places}f}",
            Text(estimate(row.difference, row.difference_low, row.difference_high, "+"), "bold" if row.differs else ""),
        )
    if len(rows) > 1:
        table.caption = Text(
            f"n seeds; difference to {rows[0].name}, paired by seed, bold where its interval excludes 0"
        )
        table.caption_justify = "left"
    return table


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line an arm under a heading of `Row`'s field names; what is unknown stays empty."""
    names = [item.name for item in dataclasses.fields(Row)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: "" if number is None else number for name, number in _plain(row).items()})


def write_json(
    rows: Sequence[Row], path: Path, arms: Sequence[Arm] = (), about: Mapping[str, object] | None = None
) -> None:
    """`{"about": {...}, "rows": [...], "arms": [...]}`: what was run, the table and every run; unknown is null.

    A line an entry, a row and an arm.
    """
    told = ",\n".join(f"{json.dumps(name)}: {_json(entry)}" for name, entry in (about or {}).items())
    table = ",\n".join(_json(_plain(row)) for row in rows)
    runs = ",\n".join(_json(dataclasses.asdict(arm)) for arm in arms)
    text = f'{{"about": {{\n{told}\n}},\n"rows": [\n{table}\n],\n"arms": [\n{runs}\n]}}\n'
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> tuple[list[Row], list[Arm], dict[str, Any]]:
    """What `write_json` wrote: rows, arms and what is told about them."""
    document = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Row(**{name: math.nan if entry is None else entry for name, entry in row.items()}) for row in document["rows"]
    ]
    arms = [Arm(arm["name"], [_seed(run) for run in arm["seeds"]]) for arm in document["arms"]]
    return rows, arms, document["about"]


def _seed(run: Mapping[str, Any]) -> Seed:
    measures = {name: _curve(curve) for name, curve in run["measures"].items()}
    return Seed(run["seed"], _curve(run["curve"]), run["final"], measures)


def _curve(points: Sequence[Sequence[float]]) -> Curve:
    return [(budget, number) for budget, number in points]


def _json(entry: object) -> str:
    return json.dumps(entry, allow_nan=False)


def _plain(row: Row) -> dict[str, str | float | None]:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in dataclasses.asdict(row).items()
    }
