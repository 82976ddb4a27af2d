"""A progress bar with what matters: reward, entropy, KL, clip fraction, speed, time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from ascent.training.loop import Loop

SHOWN = {
    "episode_return": "return",
    "reward": "reward",
    "loss/likelihood": "loss",
    "entropy": "entropy",
    "approximate_kl": "KL",
    "clip_fraction": "clipped",
}


class ProgressBar:
    """A bar on a terminal, a line now and then elsewhere.

    Args:
        console: where it is drawn.
        title: left of the bar.
        unit: what `speed` counts, "tokens" or "steps".
    """

    def __init__(self, console: Console, title: str, unit: str, lines: int = 10) -> None:
        self.console, self.title, self.unit, self.lines = console, title, unit, lines
        self.latest: dict[str, float] = {}
        self.speed = 0.0
        self.decisions = 0
        self.clock = time.perf_counter()
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )
        self.task = self.bar.add_task(title, total=None, shown="")

    def __enter__(self) -> ProgressBar:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def updated(self, loop: Loop) -> None:
        """Nothing: the bar moves by step."""

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        """Move the bar."""
        now = time.perf_counter()
        seconds, self.clock = now - self.clock, now
        rate = (loop.decisions - self.decisions) / max(seconds, 1e-9)
        self.decisions = loop.decisions
        self.speed = rate if not self.speed else 0.8 * self.speed + 0.2 * rate
        self.latest.update(metrics)
        shown = [f"{label} {self.latest[name]:.3g}" for name, label in SHOWN.items() if name in self.latest]
        text = "  ".join([*shown, f"{self.speed:,.0f} {self.unit}/s"])
        self.bar.update(self.task, total=loop.total, completed=loop.step, shown=text)
        if not self.console.is_terminal and loop.step % max(1, loop.total // self.lines) == 0:
            self.console.print(f"{self.title} {loop.step}/{loop.total}  {text}", highlight=False, soft_wrap=True)

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        """Print the scores; time spent in an evaluation is no part of the speed."""
        text = "  ".join(f"{name} {score:.4g}" for name, score in scores.items())
        self.console.print(f"{self.title} step {loop.step}: held out  {text}", highlight=False, soft_wrap=True)
        self.clock = time.perf_counter()
