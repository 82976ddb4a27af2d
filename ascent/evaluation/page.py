"""A comparison as a page of the documentation, written from its JSON: nothing on it is typed by hand.

    python -m ascent.evaluation.page README.md

writes a page's excerpts anew, pictures included: what stands between `<!-- excerpt of <JSON>: <arms> -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ascent.evaluation.arms import Arm
from ascent.evaluation.dynamics import summary
from ascent.evaluation.plot import plot
from ascent.evaluation.table import Row, compare_table, read_json

UNKNOWN = "–"
EXCERPT = re.compile(r"<!-- excerpt of (\S+): ([^>]+?) -->\n.*?<!-- end -->", re.DOTALL)


def write_page(result: Path, pictures: Mapping[str, Path], page: Path) -> None:
    """The page, its numbers as `<page>.json` beside it, and the pictures as `images/<page>_<name>.png`.

    Args:
        result: JSON of `table.write_json`.
        pictures: PNG files by name, `ends` and `dynamics`.
        page: Markdown file; its folders are made.
    """
    images = page.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    numbers = page.with_suffix(".json")
    shutil.copyfile(result, numbers)
    for name, path in pictures.items():
        shutil.copyfile(path, images / f"{page.stem}_{name}.png")
    page.write_text(text(numbers, page), encoding="utf-8")


def text(numbers: Path, page: Path) -> str:
    """The page's Markdown.

    Args:
        numbers: JSON beside the page.
        page: where the text goes; links and pictures are relative to it.
    """
    rows, arms, about = read_json(numbers)
    blocks = [
        f"# {len(arms)} methods on {about['world']}",
        _opening(rows, about),
        f"![Where every method ended](images/{page.stem}_ends.png)",
        "*A dot is the mean over the seeds, a line its 95% interval, a dash what a method does not have. "
        f"The dashed line is `{about['reference']}`.*",
        "## How they got there",
        f"![Curves of every method](images/{page.stem}_dynamics.png)",
        f"*Mean curves with 95% bands; `{about['reference']}` is dashed in every row.*",
        "## All numbers",
        _table(rows, arms, about),
        _below(numbers.name, len(arms) - 1, about["seeds"]),
        "## How to read it",
        _reading(arms, about),
        "## What it does not show",
        _limits(about),
        "## Where it was run",
        _machine(about, page),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _opening(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    reference, others = rows[0], rows[1:]
    above = [row.name for row in others if row.difference_low > 0.0]
    below = [row.name for row in others if row.difference_high < 0.0]
    best = max(rows, key=lambda row: row.mean)
    told = f"Every method gets {about['budget']:,.0f} {about['unit']}, {_seeds(about)}. "
    told += (
        f"Highest {about['score']}: `{best.name}` with {best.mean:.3f}; `{reference.name}` has {reference.mean:.3f}. "
    )
    for names, side in ((above, "above"), (below, "below")):
        found = ", ".join(f"`{name}`" for name in names) if names else "none"
        if about["seeds"] > 1:
            told += f"Clearly {side} `{reference.name}` (the interval of the difference excludes 0): {found}. "
    return told.strip()


def _seeds(about: Mapping[str, Any]) -> str:
    return "1 seed, so no intervals" if about["seeds"] == 1 else f"{about['seeds']} seeds"


def _below(numbers: str, differences: int, seeds: int) -> str:
    """What stands below the table."""
    bold = "Bold: the interval of the difference excludes 0. One in twenty does so by chance alone"
    first = f"{bold}; here are {differences}. " if seeds > 1 and differences else ""
    return f"{first}Every run stands in [{numbers}]({numbers})."


def _table(rows: Sequence[Row], arms: Sequence[Arm], about: Mapping[str, Any]) -> str:
    heads = ["method", f"{about['score']} [95%]", f"minus `{about['reference']}` [95%]", "reward in training"]
    heads += ["entropy", "clip fraction", "updates a step", "steps", "processor seconds"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    named = {arm.name: arm for arm in arms}
    for row in sorted(rows, key=lambda row: -row.mean):
        arm = named[row.name]
        difference = _span(row.difference, row.difference_low, row.difference_high, "+.3f")
        cells = [f"`{row.name}`", _span(row.mean, row.low, row.high, ".3f")]
        cells.append(f"**{difference}**" if row.differs else difference)
        for name, digits in (("reward", ".3f"), ("entropy", ".3f"), ("clip_fraction", ".4f")):
            cells.append(_number(arm, name, digits))
        cells += [
            str(about["updates"][row.name]),
            _number(arm, "step", ".0f"),
            _number(arm, "processor_seconds", ".0f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _span(value: float, low: float, high: float, digits: str) -> str:
    if math.isnan(value):
        return UNKNOWN
    return f"{value:{digits}}" + ("" if math.isnan(low) else f" [{low:{digits}}, {high:{digits}}]")


def _number(arm: Arm, name: str, digits: str) -> str:
    found = summary(arm, name)
    return UNKNOWN if found is None else f"{found.estimate:{digits}}"


def _reading(arms: Sequence[Arm], about: Mapping[str, Any]) -> str:
    cannot = [arm.name for arm in arms if about["updates"][arm.name] == 1 and summary(arm, "clip_fraction") is not None]
    points = [
        f"Budget: all curves end at {about['budget']:,.0f} {about['unit']}, the most that every run reached. A run "
        "whose evaluations lie before and behind it is read on the line between them.",
        *about["notes"],
        "Reward in training: mean over every answer drawn since the evaluation before; refused groups count.",
        "Entropy: of the policy over the tokens of its own held-out answers, so it is one measure for all, whatever "
        "rows a method learns from. The table has the last one.",
        "Clip fraction: share of an update's tokens whose gradient the clip removes, or whose weight it cuts where a "
        f"method keeps the gradient; the table has the mean over the run. {UNKNOWN}: the method has no clip.",
    ]
    if cannot:
        names = ", ".join(f"`{name}`" for name in cannot)
        points.append(
            f"{names}: with one update a step the ratio is 1 when the gradient is taken, so the clip has nothing to "
            "cut and 0 says nothing about its width."
        )
    points.append(
        "Intervals: 95%, bootstrap over seeds, widened for few seeds; differences are paired by seed. Processor "
        "seconds: up to the budget, evaluations included, on a machine with other work."
    )
    return "\n".join(f"- {point}" for point in points)


def _limits(about: Mapping[str, Any]) -> str:
    rates: dict[str, list[str]] = {}
    for name, rate in about["learning_rates"].items():
        rates.setdefault(rate, []).append(f"`{name}`")
    usual = max(rates, key=lambda rate: len(rates[rate]))
    others = "".join(f", {rate} for {', '.join(names)}" for rate, names in rates.items() if rate != usual)
    points = [
        f"One task, one model, {about['steps']} steps and {_seeds(about)}. The order of the methods can be "
        "another one anywhere else; what a paper claims is tested in its own experiment under `reproductions/`.",
        f"No tuning: every method has its own defaults (learning rate {usual}{others}), which favours those whose "
        "defaults happen to suit this size. A method with more updates a step has moved further after equal samples.",
        "Equal samples are not equal time: the last column says what they cost.",
    ]
    if about["left_out"]:
        names = "; ".join(f"`{name}` ({reason})" for name, reason in about["left_out"].items())
        points.append(f"Not taking part: {names}.")
    return "\n".join(f"- {point}" for point in points)


def _machine(about: Mapping[str, Any], page: Path) -> str:
    ran_on = dict(about["machine"])
    processor, cores = ran_on.pop("processor"), ran_on.pop("cores")
    versions = ", ".join(f"{name} {version}" for name, version in ran_on.items() if version)
    command = f"{about['command']} --page {page.as_posix()}"
    return (
        f"```text\n{command}\n```\n\n{about['date']}, {processor}, {cores} cores, one torch thread a run; {versions}. "
        "The command writes this page, its numbers and its pictures; runs that are there already are not run again."
    )


def with_excerpts(page: Path) -> str:
    """A page's text with its excerpts written anew; paths in them are relative to the page."""

    def block(found: re.Match[str]) -> str:
        numbers, names = found[1], found[2].split()
        return f"<!-- excerpt of {numbers}: {found[2]} -->\n{excerpt(page.parent, numbers, names)}\n<!-- end -->"

    return EXCERPT.sub(block, page.read_text(encoding="utf-8"))


def excerpt(folder: Path, numbers: str, names: Sequence[str]) -> str:
    """Some arms of a comparison: picture, scores and the command that makes them.

    Args:
        folder: of the page; `numbers` is relative to it.
        numbers: JSON that `write_page` put beside its page.
        names: of the arms; the first is the reference of the differences.
    """
    arms, about = _chosen(folder / numbers, names)
    rows = compare_table(arms, limits=_ends(about))
    told = ", ".join(f"`{row.name}` {_span(row.mean, row.low, row.high, '.3f')}" for row in rows)
    page = Path(numbers).with_suffix(".md").as_posix()
    command = about["command"].replace(" all ", f" {' '.join(names)} ", 1)
    return (
        f"![{len(arms)} methods on {about['world']}]({_picture(Path(numbers)).as_posix()})\n\n"
        f"*{about['score'].capitalize()} after {about['budget']:,.0f} {about['unit']}, mean of {_seeds(about)} "
        f"and 95% interval: {told}. The same runs as in [all methods on one task]({page}).*\n\n```text\n{command}\n```"
    )


def draw_excerpt(folder: Path, numbers: str, names: Sequence[str]) -> None:
    """The picture of an excerpt, `images/<JSON's name>.png` beside the JSON."""
    arms, about = _chosen(folder / numbers, names)
    path = folder / _picture(Path(numbers))
    plot(arms, path, budget=about["unit"], score=about["score"], title=about["world"], limits=_ends(about))


def _picture(numbers: Path) -> Path:
    return numbers.parent / "images" / f"{numbers.stem}.png"


def _ends(about: Mapping[str, Any]) -> tuple[float, float]:
    low, high = about["limits"] or (-math.inf, math.inf)
    return low, high


def _chosen(numbers: Path, names: Sequence[str]) -> tuple[list[Arm], dict[str, Any]]:
    _, arms, about = read_json(numbers)
    by_name = {arm.name: arm for arm in arms}
    absent = [name for name in names if name not in by_name]
    if absent:
        raise ValueError(f"arms of an excerpt must be among {', '.join(by_name)}; got {', '.join(absent)}.")
    return [by_name[name] for name in names], about


def main(pages: Sequence[str]) -> int:
    """Write the excerpts of pages anew, and draw their pictures."""
    for page in map(Path, pages):
        for numbers, names in EXCERPT.findall(page.read_text(encoding="utf-8")):
            draw_excerpt(page.parent, numbers, names.split())
        page.write_text(with_excerpts(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
