"""What a person sees while a run goes."""

from __future__ import annotations

import io

from rich.console import Console

from ascent.training.loop import Loop, System
from ascent.training.program import Phase
from ascent.training.progress import ProgressBar


def shown(terminal: bool, steps: int = 40) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
    loop = Loop(System({}, {}, (Phase("train", (), steps),)))
    with ProgressBar(console, "grpo arithmetic", "tokens") as bar:
        bar.evaluated(loop, {"pass@1": 0.25})
        for step in range(1, steps + 1):
            loop.step, loop.decisions = step, 100 * step
            bar.stepped(loop, {"reward": 0.5, "entropy": 1.25, "approximate_kl": 0.001, "clip_fraction": 0.1})
    return console.file.getvalue()


def test_elsewhere_than_on_a_terminal_it_is_about_ten_lines() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines[0] == "grpo arithmetic step 0: held out  pass@1 0.25"
    assert len(lines) == 11
    assert lines[-1].startswith("grpo arithmetic 40/40  reward 0.5  entropy 1.25  KL 0.001  clipped 0.1")
    assert lines[-1].endswith("tokens/s")


def test_a_short_run_prints_every_step() -> None:
    assert len(shown(terminal=False, steps=3).splitlines()) == 4


def test_on_a_terminal_it_is_a_bar_with_the_time_left() -> None:
    text = shown(terminal=True)
    assert "40/40" in text
    assert "reward 0.5" in text
    assert "left" in text


def test_a_quiet_console_shows_nothing() -> None:
    console = Console(file=io.StringIO(), quiet=True)
    with ProgressBar(console, "run", "steps") as bar:
        bar.stepped(Loop(System({}, {}, ())), {"reward": 1.0})
    assert console.file.getvalue() == ""
