"""Where a benchmark's numbers go: a Markdown table for people and JSON for machines, with what they ran on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, Python, the versions of `packages`, the commit and the time."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "torch's choice"),
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "commit": _commit(),
        "time": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def write(name: str, title: str, rows: Sequence[Mapping[str, Any]], ran_on: Mapping[str, Any], notes: str = "") -> Path:
    """Write `results/<name>.md` and `.json`; print the Markdown. All rows have the keys of the first."""
    columns = list(rows[0])
    lines = [f"## {title}", "", notes.strip(), "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_shown(row[column]) for column in columns)} |" for row in rows]
    lines += ["", "Ran on: " + ", ".join(f"{key} {value}" for key, value in ran_on.items()) + "."]
    text = "\n".join(lines) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    content = {"title": title, "rows": rows, "machine": ran_on}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(text)
    return RESULTS / f"{name}.md"


def _shown(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    here = Path(__file__).parent
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
