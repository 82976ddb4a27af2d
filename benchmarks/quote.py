"""Writes a result's numbers into the README and the documentation, or checks that they are those of the result.

    python benchmarks/quote.py                                # of the newest result
    python benchmarks/quote.py 2026-11-22-amd-epyc-2core
    python benchmarks/quote.py --check                        # exit code 1 where a page says something else

A page holds blocks between `<!-- <kind> from <result> -->` and `<!-- end -->`: `numbers` is the short table,
`targets` every comparison with its target, `profile` where the time goes; the last two also say what `before.json`
holds, measured by the same scripts before the optimisations. `<!-- tables from <result> -->` stands alone: the site's
hook puts all tables there. Pictures are copied to docs/images.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from report import grid
from run import RESULTS, comparisons, targets, told

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
IMAGES = ROOT / "docs" / "images"
BEFORE = Path(__file__).parent / "before.json"
BLOCK = re.compile(r"<!-- (numbers|targets|profile) from (\S+) -->\n.*?<!-- end -->", re.DOTALL)
ALONE = re.compile(r"<!-- tables from (\S+) -->")


def numbers(result: Mapping[str, Any]) -> str:
    """The short table, with the machine and the versions that it was measured with."""
    ran_on = dict(result["machine"])
    cores, processor, threads = ran_on.pop("cores"), ran_on.pop("processor"), ran_on.pop("threads")
    day = date.fromisoformat(result["name"][:10])
    first = f"{cores} cores of {processor}, torch threads: {threads}, {day.day} {day:%B %Y} ({told(ran_on)}):"
    rows = [row for row, ratio in zip(targets(result), comparisons(result), strict=True) if ratio["quoted"]]
    return f"{first}\n\n{grid([{key: row[key] for key in ('work', 'Ascent', 'peer', 'ratio')} for row in rows])}"


def compared(result: Mapping[str, Any]) -> str:
    """Every comparison with its target, and the ratio before the optimisations."""
    old = {(ratio["work"], ratio["peer"]): f"{ratio['ratio']:.2f}" for ratio in comparisons(before())}
    rows = []
    for row, ratio in zip(targets(result), comparisons(result), strict=True):
        rows.append({**row, "ratio before": old.get((ratio["work"], ratio["peer"]), "")})
    columns = ("work", "Ascent", "peer", "ratio before", "ratio", "target", "met")
    return grid([{key: row[key] for key in columns} for row in rows])


def profile(result: Mapping[str, Any]) -> str:
    """A table for each piece of work with phases: before, after, and how many times shorter each became."""
    old = {title: spent for table in before()["tables"] for title, spent in phases(table).items()}
    parts = [f"Before: commit `{before()['commit']}`; after: the commit of the tables below."]
    for title, now in ((title, spent) for table in result["tables"] for title, spent in phases(table).items()):
        then = old.get(title, {})
        rows = [
            {"phase": phase, "before": then.get(phase, ""), "after": spent, "before / after": _times(then, now, phase)}
            for phase, spent in now.items()
        ]
        parts += [f"**{title}**", grid(rows)]
    return "\n\n".join(parts)


def phases(table: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By work, what each phase took, out of a table that has phases; empty for others.

    Control writes a row a phase (`spent` in `unit`), language a row a workload and arm with columns `<phase>, ms`.
    """
    found: dict[str, dict[str, float]] = {}
    for row in table["rows"]:
        if {"phase", "spent", "unit"} <= set(row):
            found.setdefault(f"{table['title']}, {row['unit']}", {})[row["phase"]] = row["spent"]
        elif row.get("arm") == "ascent" and "workload" in row:
            spans = {key[:-4]: float(cell.split()[0]) for key, cell in row.items() if key.endswith(", ms") and cell}
            spans.pop("floor", None)
            if len(spans) > 2:
                found[f"{row['workload']}: a step of language, milliseconds"] = spans
    return found


def _times(then: Mapping[str, float], now: Mapping[str, float], phase: str) -> str:
    return f"{then[phase] / now[phase]:.2f}" if now[phase] and then.get(phase) else ""


def before() -> dict[str, Any]:
    """What the same scripts measured before the optimisations."""
    found: dict[str, Any] = json.loads(BEFORE.read_text(encoding="utf-8"))
    return found


def quoted(text: str, result: Mapping[str, Any]) -> str:
    """A page's text with its blocks written anew."""
    name = result["name"]

    def block(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} from {name} -->\n{KINDS[found[1]](result)}\n<!-- end -->"

    return ALONE.sub(f"<!-- tables from {name} -->", BLOCK.sub(block, text))


def named(text: str) -> set[str]:
    """The results that a page quotes."""
    return {found[1] for found in BLOCK.findall(text)} | set(ALONE.findall(text))


def pictures(name: str, results: Path = RESULTS) -> dict[str, Path]:
    """What the documentation calls a result's pictures, and where they are."""
    return {f"benchmarks{path.stem.removeprefix(name)}.png": path for path in sorted(results.glob(f"{name}*.png"))}


def read(name: str) -> dict[str, Any]:
    """A result by its name."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def stale() -> list[str]:
    """What the pages say and their result does not."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        names = named(text)
        if len(names) != 1:
            found.append(f"{page.name} must quote one result; it quotes {sorted(names) or 'none'}.")
            continue
        (name,) = names
        if not (RESULTS / f"{name}.json").is_file():
            found.append(f"{page.name} quotes {name}, which is not in benchmarks/results.")
            continue
        if quoted(text, read(name)) != text:
            found.append(f"{page.name} differs from benchmarks/results/{name}.json.")
        for image, path in pictures(name).items():
            if not (IMAGES / image).is_file() or (IMAGES / image).read_bytes() != path.read_bytes():
                found.append(f"docs/images/{image} is not the picture of {name}.")
    return found


KINDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "numbers": numbers,
    "targets": compared,
    "profile": profile,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = sorted(path.stem for path in RESULTS.glob("*.json"))
    parser.add_argument("name", nargs="?", choices=names, default=names[-1] if names else None)
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    if chosen.check:
        found = stale()
        print("\n".join([*found, "python benchmarks/quote.py writes them anew."] if found else ["all as measured"]))
        return bool(found)
    result = read(chosen.name)
    for page in PAGES:
        page.write_text(quoted(page.read_text(encoding="utf-8"), result), encoding="utf-8")
    for image, path in pictures(chosen.name).items():
        (IMAGES / image).write_bytes(path.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
