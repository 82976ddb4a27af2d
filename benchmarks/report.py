"""Where a benchmark's numbers go: a Markdown table for people, and JSON for `run.py`, which puts all of them together.

A script calls `write` once per table. Run by hand it only prints; under `make bench` the environment variable
`ASCENT_BENCHMARK_FOLDER` names a folder, and every table (`<name>.json`) and picture goes there.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = "ASCENT_BENCHMARK_FOLDER"
QUIET = 1.5  # load average above which other work disturbs a timing


@dataclass(frozen=True)
class Ratio:
    """One comparison: what the README, the table of targets and the picture quote.

    Attributes:
        work: what both sides did.
        peer: the other side.
        ours, theirs: the two numbers as people read them, with units.
        ratio: how many times better ours is (1 is equal, larger is better), > 0.
        target: of the ratio, or None.
        quoted: whether the README's short table has it.
    """

    work: str
    peer: str
    ours: str
    theirs: str
    ratio: float
    target: float | None = None
    quoted: bool = True


def folder() -> Path | None:
    """Where tables and pictures go, or None where nothing is kept."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else None


def write(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    ran_on: Mapping[str, Any],
    notes: str = "",
    ratios: Sequence[Ratio] = (),
) -> dict[str, Any]:
    """Print a table and keep it as `<name>.json` where a folder is named. All rows have the keys of the first.

    Args:
        name: of the table, unique among all scripts; letters, digits and underscores.
        title: of its section.
        ran_on: what `machine` gave.
        notes: Markdown above the table.
        ratios: the comparisons in it.
    """
    table = {
        "name": name,
        "title": title,
        "notes": notes.strip(),
        "rows": [dict(row) for row in rows],
        "ratios": [asdict(ratio) for ratio in ratios],
        "machine": dict(ran_on),
    }
    print(markdown(table), flush=True)
    place = folder()
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return table


def markdown(table: Mapping[str, Any], level: int = 2) -> str:
    """A table as a section, with what it ran on."""
    ran_on = ", ".join(f"{key} {value}" for key, value in table["machine"].items())
    parts = [f"{'#' * level} {table['title']}", table["notes"], grid(table["rows"]), f"Ran on: {ran_on}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def grid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; "" without rows."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_shown(row[column]) for column in columns)} |" for row in rows]
    return "\n".join(lines)


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, threads, Python, the versions of `packages`, the commit, the time and the load average."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "torch's choice"),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="minutes"),
        "load average": round(load(), 2),
    }


def load() -> float:
    """Processes that wanted a core, averaged over the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def refuse_busy(go_on: bool) -> str:
    """A mark for the notes of what is measured on a busy machine; "" on a quiet one.

    Raises:
        SystemExit: the machine is busy and `go_on` is False.
    """
    now = load()
    if now <= QUIET:
        return ""
    if not go_on:
        raise SystemExit(f"load average {now:.2f} > {QUIET}: other work disturbs the timing. Wait, or pass --go-on.")
    return f"**Measured on a busy machine: load average {now:.2f} at the start.** "


def _shown(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit that is checked out, marked where tracked files differ from it; "unknown" outside of a repository."""
    here = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=here, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def processor() -> str:
    """The processor's name as the system gives it."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
