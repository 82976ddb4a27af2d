"""One result out of many scripts' tables, and pages that quote it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import quote
import report
import run
from report import Ratio

SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from report import Ratio, folder, machine, write
write({name!r}, "A title", [{{"arm": "ascent", "steps/s": {speed}}}], machine("torch"), "A note.",
      [Ratio("work of {name}", "peer", "{speed} steps/s", "100 steps/s", {speed} / 100, 2.0)])
(folder() / "own.png").write_bytes(b"picture")
{end}
"""


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fake scripts, of which `broken` fails after its table and `asked` runs only when named."""
    home = tmp_path / "scripts"
    home.mkdir()
    for name, speed, end in (
        ("first", 300, ""),
        ("broken", 50, "raise SystemExit(3)"),
        ("last", 150, ""),
        ("asked", 1, ""),
    ):
        text = SCRIPT.format(here=str(run.HERE), name=name, speed=speed, end=end)
        (home / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(run, "HERE", home)
    monkeypatch.setattr(run, "ON_REQUEST", ("asked",))
    monkeypatch.setattr(run, "SCRIPTS", {name: (f"{name}.py",) for name in ("first", "broken", "last", "asked")})
    return tmp_path / "results"


def ran(monkeypatch: pytest.MonkeyPatch, results: Path, *arguments: str) -> int:
    line = ["run.py", "--go-on", "--results", str(results), "--name", "2026-01-02-some-machine-2core", *arguments]
    monkeypatch.setattr(sys, "argv", line)
    return run.main()


def result(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "2026-01-02-some-machine-2core.json").read_text(encoding="utf-8"))
    return found


def test_a_failing_script_fails_the_command_after_the_others_ran(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ran(monkeypatch, scripts) == 1
    found = result(scripts)
    assert [(entry["script"], entry["status"]) for entry in found["scripts"]] == [
        ("first", "done"), ("broken", "failed (3)"), ("last", "done"),
    ]  # fmt: skip
    assert [table["name"] for table in found["tables"]] == ["first", "broken", "last"]
    assert {"processor", "cores", "python", "torch"} <= set(found["machine"])
    assert not {"commit", "time"} & set(found["machine"])
    text = (scripts / f"{found['name']}.md").read_text(encoding="utf-8")
    assert "| work of first | 300 steps/s | peer: 100 steps/s | 3.00 | 2.00 | yes |" in text
    assert "| work of last | 150 steps/s | peer: 100 steps/s | 1.50 | 2.00 | no |" in text
    assert text.index("## A title") > text.index("<!-- tables -->")
    names = {path.name for path in scripts.iterdir()}
    assert names == {f"{found['name']}{end}" for end in (".json", ".md", ".png", "-own.png")}


def test_a_part_run_keeps_the_other_tables_of_the_same_result(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(monkeypatch, scripts, "first", "last")
    before = result(scripts)
    slower = (run.HERE / "last.py").read_text(encoding="utf-8").replace("150", "90")
    (run.HERE / "last.py").write_text(slower, encoding="utf-8")
    assert ran(monkeypatch, scripts, "last") == 0
    after = result(scripts)
    assert after["tables"][0] == before["tables"][0]
    assert [ratio["ratio"] for ratio in run.comparisons(after)] == [3.0, 0.9]
    assert [entry["script"] for entry in after["scripts"]] == ["first", "last"]


def test_some_scripts_run_only_when_named(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(monkeypatch, scripts, "last", "asked")
    assert [entry["script"] for entry in result(scripts)["scripts"]] == ["last", "asked"]


def test_every_script_is_there() -> None:
    assert all((run.HERE / line[0]).is_file() for line in run.SCRIPTS.values())
    assert set(run.ON_REQUEST) <= set(run.SCRIPTS)


def test_an_unknown_script_is_refused_before_anything_runs(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ran(monkeypatch, scripts, "frist")
    assert "got frist" in capsys.readouterr().err
    assert not scripts.exists()


def test_an_interrupt_ends_the_scripts_children_and_keeps_the_results(tmp_path: Path) -> None:
    """A real Ctrl-C: the script has started a process of its own, which must not go on."""
    mark, results = tmp_path / "child", tmp_path / "results"
    results.mkdir()
    (results / "x.json").write_text("{}", encoding="utf-8")
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    (tmp_path / "slow.py").write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}, {str(mark)!r}])\n", encoding="utf-8"
    )
    driver = (
        # A shell gives its background jobs an ignored interrupt, and a child inherits it.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; sys.path.insert(0, {str(run.HERE)!r}); import run; from pathlib import Path\n"
        f"run.HERE, run.SCRIPTS = Path({str(tmp_path)!r}), {{'slow': ('slow.py',)}}\n"
        f"sys.argv = ['run.py', '--go-on', '--name', 'x', '--results', {str(results)!r}]\n"
        "sys.exit(run.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", driver], start_new_session=True)
    while not (mark.is_file() and mark.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    with pytest.raises(ProcessLookupError):
        while True:  # the child is gone, or about to be
            os.kill(int(mark.read_text()), 0)
            time.sleep(0.02)
    assert (results / "x.json").read_text(encoding="utf-8") == "{}" and len(list(results.iterdir())) == 1


def test_by_hand_a_script_only_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(report.FOLDER, raising=False)
    report.write("table", "A title", [{"a": 1.23456}], {"cores": 2}, ratios=[Ratio("w", "p", "1", "2", 0.5)])
    assert report.folder() is None
    assert "| 1.235 |" in capsys.readouterr().out


def test_a_busy_machine_is_refused_or_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "load", lambda: 3.0)
    with pytest.raises(SystemExit, match=r"load average 3\.00 > 1\.5"):
        report.refuse_busy(go_on=False)
    assert "busy machine: load average 3.00" in report.refuse_busy(go_on=True)
    monkeypatch.setattr(report, "load", lambda: 1.0)
    assert report.refuse_busy(go_on=False) == ""


def test_a_results_name_is_a_day_and_a_kind_of_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "processor", lambda: "Intel(R) Xeon(R) CPU @ 2.20GHz")
    assert run.stem().endswith(f"-intel-xeon-{os.cpu_count()}core")
    monkeypatch.setattr(run, "processor", lambda: "AMD EPYC")
    assert run.stem().endswith(f"-amd-epyc-{os.cpu_count()}core")


RESULT = {
    "name": "2026-01-02-some-machine-2core",
    "machine": {"processor": "P", "cores": 2, "threads": "1", "torch": "2.13"},
    "tables": [
        {
            "ratios": [
                vars(Ratio("a", "p", "10 s", "20 s", 2.0, 2.2)),
                vars(Ratio("b", "p", "3 MB", "9 MB", 3.0, quoted=False)),
            ]
        }
    ],
}


def test_a_pages_blocks_are_written_from_the_result() -> None:
    page = "text\n<!-- numbers from old -->\nstale\n<!-- end -->\nmore\n<!-- targets from old -->\n<!-- end -->\n"
    page += "<!-- tables from old -->\n"
    found = quote.quoted(page, RESULT)
    assert "stale" not in found and quote.named(found) == {RESULT["name"]}
    assert "2 cores of P, torch threads: 1, 2 January 2026 (torch 2.13):" in found
    assert "| a | 10 s | p: 20 s | 2.00 |\n<!-- end -->" in found
    assert "| a | 10 s | p: 20 s |  | 2.00 | 2.20 | no |\n| b | 3 MB | p: 9 MB |  | 3.00 |  |  |" in found
    assert quote.quoted(found, RESULT) == found


def test_the_profile_stands_beside_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def table(spent: float) -> dict[str, Any]:
        rows = [{"phase": "loss", "spent": spent, "unit": "us"}, {"phase": "new", "spent": 1.0, "unit": "us"}]
        return {"name": "phases_x", "title": "X", "rows": rows, "ratios": [vars(Ratio("a", "p", "", "", spent / 10))]}

    spoken = {
        "workload": "1M",
        "arm": "ascent",
        "sample, ms": "20 (19 to 21)",
        "step, ms": "5 (4 to 6)",
        "rest, ms": "1",
    }
    old = table(8.0)
    old["rows"].pop()
    monkeypatch.setattr(quote, "before", lambda: {"commit": "abc", "tables": [old]})
    now = {**RESULT, "tables": [{**table(2.0), "machine": {}}, {"title": "L", "rows": [spoken], "ratios": []}]}
    found = quote.profile(now)
    assert "commit `abc`" in found and "**X, us**" in found
    assert "| loss | 8 | 2 | 4.00 |\n| new |  | 1 |  |" in found
    assert "**1M: a step of language, milliseconds**" in found and "| sample |  | 20 |  |" in found
    assert "| a |  | p:  | 0.80 | 0.20 |  |  |" in quote.compared(now)


def test_the_readme_and_the_documentation_quote_what_was_measured() -> None:
    assert quote.stale() == []


def test_a_number_that_was_changed_by_hand_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = []
    for page in quote.PAGES:
        copy = tmp_path / page.name
        copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
        pages.append(copy)
    monkeypatch.setattr(quote, "PAGES", pages)
    assert quote.stale() == []
    text = pages[0].read_text(encoding="utf-8")
    row = next(line for line in text.split("<!-- numbers from ")[1].splitlines() if line.endswith("|"))
    pages[0].write_text(text.replace(row, row.replace("|", "| ", 1)), encoding="utf-8")
    assert any("README.md differs" in line for line in quote.stale())
