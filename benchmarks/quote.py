"""Writes a result's numbers into the README and the documentation, or checks that they are those of the result.

    python benchmarks/quote.py                                # of the newest result
    python benchmarks/quote.py 2026-11-22-amd-epyc-2core
    python benchmarks/quote.py --check                        # exit code 1 where a page says something else

A page holds blocks between `<!-- <kind> from <result> -->` and `<!-- end -->`: `numbers` is the short table,
`targets` every comparison with its target. `<!-- tables from <result> -->` stands alone: the site's hook puts all
tables there. Pictures are copied to docs/images.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from report import grid
from run import RESULTS, comparisons, targets, told

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
IMAGES = ROOT / "docs" / "images"
BLOCK = re.compile(r"<!-- (numbers|targets) from (\S+) -->\n.*?<!-- end -->", re.DOTALL)
ALONE = re.compile(r"<!-- tables from (\S+) -->")


def numbers(result: Mapping[str, Any]) -> str:
    """The short table, with the machine and the versions that it was measured with."""
    ran_on = dict(result["machine"])
    cores, processor, threads = ran_on.pop("cores"), ran_on.pop("processor"), ran_on.pop("threads")
    day = date.fromisoformat(result["name"][:10])
    first = f"{cores} cores of {processor}, torch threads: {threads}, {day.day} {day:%B %Y} ({told(ran_on)}):"
    rows = [row for row, ratio in zip(targets(result), comparisons(result), strict=True) if ratio["quoted"]]
    return f"{first}\n\n{grid([{key: row[key] for key in ('work', 'Ascent', 'peer', 'ratio')} for row in rows])}"


def quoted(text: str, result: Mapping[str, Any]) -> str:
    """A page's text with its blocks written anew."""
    name = result["name"]

    def block(found: re.Match[str]) -> str:
        inside = numbers(result) if found[1] == "numbers" else grid(targets(result))
        return f"<!-- {found[1]} from {name} -->\n{inside}\n<!-- end -->"

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
