"""Runs the benchmarks one after the other and puts all of their tables into one result.

    make bench                                   # everything, about 20 minutes
    make bench BENCHMARKS="control import_time"  # some; the others' tables of the same day and machine stay
    python benchmarks/run.py --go-on             # on a busy machine too; the tables then say so

Writes `benchmarks/results/<date>-<machine kind>.md`, `.json`, `.png` (the comparisons at a glance) and the pictures of
single scripts. A script that fails does not stop the others, and makes this command fail in the end. Ctrl-C ends the
script that runs, with everything that it started, and leaves the results as they were. `quote.py` then writes the
numbers into the README and the documentation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from picture import draw
from report import FOLDER, commit, grid, load, processor, refuse_busy

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SCRIPTS: Mapping[str, Sequence[str]] = {
    "import_time": ("import_time.py",),
    "memory": ("memory.py",),
    "control": ("control.py", "--go-on"),
    "off_policy": ("off_policy.py", "--go-on"),
    "language": ("language.py", "--go-on"),
    "time_to_reward": ("time_to_reward.py", "cartpole", "pendulum", "--go-on"),
    "time_to_reward_sac": ("time_to_reward.py", "sac", "--go-on"),
}
"""In this order; whether the machine is busy is asked once, here. Those that use two cores come last."""
ON_REQUEST = ("time_to_reward_sac",)
"""Run only when named, or together they would take more than 20 minutes."""
OWN = ("commit", "time", "load average")
"""What a table says about its run beside the versions, which are the same for all."""


def stem() -> str:
    """<date>-<machine kind>, such as 2026-11-22-amd-epyc-2core: no name of a host, no path."""
    kind = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\(\w+\)|cpu|processor|@.*", "", processor().lower())).strip("-")
    return f"{datetime.now(UTC):%Y-%m-%d}-{kind}-{os.cpu_count()}core"


def run(name: str, line: Sequence[str], place: Path) -> dict[str, Any]:
    """One script with its own folder for tables; what it took.

    Raises:
        KeyboardInterrupt: handed on, after the script and all that it started were ended.
    """
    before, began = load(), time.perf_counter()
    environment = {"OMP_NUM_THREADS": "1", **os.environ, FOLDER: str(place)}
    command = [sys.executable, str(HERE / line[0]), *line[1:]]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        end(process)
        raise
    return {
        "script": name,
        "status": "done" if code == 0 else f"failed ({code})",
        "seconds": round(time.perf_counter() - began, 1),
        "load average before": round(before, 2),
        "load average after": round(load(), 2),
        "commit": commit(),
    }


def end(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """Interrupt the process and its children, and kill what is left."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def tables(place: Path, script: str) -> list[dict[str, Any]]:
    """What a script wrote, in its order."""
    files = sorted(place.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return [{**json.loads(path.read_text(encoding="utf-8")), "script": script} for path in files]


def merged(
    old: Mapping[str, Any], name: str, ran: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The result of this run, with the tables of scripts that ran earlier and not now.

    Args:
        old: the result so far, or empty; name: of the result.
        ran: what `run` gave for each script; found: their tables, with the key "script".
    """
    again = {entry["script"] for entry in ran}
    order = {script: place for place, script in enumerate(SCRIPTS)}

    def together(mine: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        kept = [dict(entry) for entry in earlier if entry["script"] not in again]
        return sorted([*kept, *map(dict, mine)], key=lambda entry: order.get(entry["script"], len(order)))

    all_ = together(found, old.get("tables", ()))
    versions = {key: value for table in all_ for key, value in table["machine"].items() if key not in OWN}
    return {"name": name, "machine": versions, "scripts": together(ran, old.get("scripts", ())), "tables": all_}


def comparisons(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every ratio of every table."""
    return [ratio for table in result["tables"] for ratio in table["ratios"]]


def targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table of comparisons: what was measured, beside what was aimed at."""
    return [
        {
            "work": ratio["work"],
            "Ascent": ratio["ours"],
            "peer": f"{ratio['peer']}: {ratio['theirs']}",
            "ratio": f"{ratio['ratio']:.2f}",
            "target": "" if ratio["target"] is None else f"{ratio['target']:.2f}",
            "met": "" if ratio["target"] is None else "yes" if ratio["ratio"] >= ratio["target"] else "no",
        }
        for ratio in comparisons(result)
    ]


def told(ran_on: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in ran_on.items())


def page(result: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The result as Markdown."""
    common = result["machine"]
    parts = [f"# Benchmarks {result['name']}", f"Ran on: {told(common)}.", grid(result["scripts"])]
    parts += [f"![{name.removesuffix('.png')}]({name})" for name in pictures]
    parts += ["A ratio says how many times better Ascent is; 1 is equal.", grid(targets(result)), "<!-- tables -->"]
    for table in result["tables"]:
        own = {key: value for key, value in table["machine"].items() if common.get(key) != value}
        parts += [f"## {table['title']}", table["notes"], grid(table["rows"]), f"Run: {told(own)}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def keep(path: Path, content: str) -> None:
    """Write whole or not at all."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(content, encoding="utf-8")
    aside.replace(path)


def publish(result: Mapping[str, Any], drawn: Sequence[Path], results: Path) -> None:
    """Write Markdown, JSON and pictures under the result's name; `drawn` are the scripts' own pictures."""
    name = result["name"]
    results.mkdir(parents=True, exist_ok=True)
    for path in drawn:
        (results / f"{name}-{path.name}").write_bytes(path.read_bytes())
    if comparisons(result):
        draw(comparisons(result), results / f"{name}.png")
    pictures = sorted((path.name for path in results.glob(f"{name}*.png")), key=len)
    keep(results / f"{name}.json", json.dumps(result, indent=1) + "\n")
    keep(results / f"{name}.md", page(result, pictures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "scripts",
        nargs="*",
        metavar="script",
        help=f"of {', '.join(SCRIPTS)}; all save {', '.join(ON_REQUEST)} if none is named",
    )
    parser.add_argument("--go-on", action="store_true", help="measure on a busy machine too, and say so in the tables")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--name", default=stem(), help="of the result; <date>-<machine kind> if not given")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.scripts if name not in SCRIPTS]
    if unknown:
        parser.error(f"script must be of {', '.join(SCRIPTS)}; got {', '.join(unknown)}.")
    refuse_busy(chosen.go_on)
    ran, found, drawn = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in chosen.scripts or [name for name in SCRIPTS if name not in ON_REQUEST]:
                place = Path(folder) / name
                place.mkdir()
                print(f"== {name}", flush=True)
                ran.append(run(name, SCRIPTS[name], place))
                print(f"== {name}: {ran[-1]['status']} in {ran[-1]['seconds']:.0f} s\n", flush=True)
                found += tables(place, name)
                drawn += sorted(place.glob("*.png"))
        except KeyboardInterrupt:
            print("\ninterrupted; the results are as they were.", file=sys.stderr)
            return 130
        earlier = chosen.results / f"{chosen.name}.json"
        old = json.loads(earlier.read_text(encoding="utf-8")) if earlier.is_file() else {}
        publish(merged(old, chosen.name, ran, found), drawn, chosen.results)
    print(f"{grid(ran)}\n\nwritten: {chosen.results / chosen.name}.md, .json, .png")
    return 0 if all(entry["status"] == "done" for entry in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
