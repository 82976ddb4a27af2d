"""The worker's side of a benchmark in turns: a stopwatch by phase, and a channel that answers one line a step."""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import IO, Any

PHASES = ("sample", "score", "evaluate", "backward", "step", "rest")


def nothing() -> None:
    """A processor is in step with its clock; a GPU must be waited for."""


class Stopwatch:
    """Wall time by phase. A phase inside another one is taken out of it; what no phase covers is `rest`.

    Args:
        wait: called before the clock is read, so that a device has finished what was asked of it.
    """

    def __init__(self, wait: Callable[[], None] = nothing) -> None:
        self.wait = wait
        self.totals: dict[str, float] = {}
        self.open: list[str] = []
        self.mark = self.began = self.processor = 0.0

    def start(self) -> None:
        """A step begins."""
        self.wait()
        self.totals, self.open = dict.fromkeys(PHASES, 0.0), []
        self.mark = self.began = time.perf_counter()
        self.processor = time.process_time()

    def stop(self) -> dict[str, Any]:
        """The step is over: wall and processor seconds, and wall seconds by phase."""
        self.wait()
        wall, processor = time.perf_counter() - self.began, time.process_time() - self.processor
        covered = sum(seconds for name, seconds in self.totals.items() if name != "rest")
        return {"wall": wall, "cpu": processor, "phases": {**self.totals, "rest": max(wall - covered, 0.0)}}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, whose time counts as phase `name`."""

        @functools.wraps(function)
        def inner(*arguments: Any, **options: Any) -> Any:
            self._turn(name, True)
            try:
                return function(*arguments, **options)
            finally:
                self._turn(name, False)

        return inner

    def _turn(self, name: str, entering: bool) -> None:
        self.wait()
        now = time.perf_counter()
        if self.open and self.totals:
            self.totals[self.open[-1]] += now - self.mark
        self.mark = now
        if entering:
            self.open.append(name)
        else:
            self.open.pop()


class Channel:
    """One JSON line in for every JSON line out. Libraries print, so the answers have a channel of their own.

    Args:
        watch: times the steps.
        peak: the most memory so far, in MB.
    """

    def __init__(self, answers: IO[str], watch: Stopwatch, peak: Callable[[], float]) -> None:
        self.answers, self.watch, self.peak = answers, watch, peak
        self.before = 0.0

    @classmethod
    def own(cls, watch: Stopwatch, peak: Callable[[], float]) -> Channel:
        """On what was standard output; from now on prints go to standard error."""
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        return cls(answers, watch, peak)

    def say(self, **fields: Any) -> None:
        """Answer, then wait to be asked again; at the end of the questions the process leaves."""
        print(json.dumps({**fields, "peak": self.peak()}), file=self.answers, flush=True)
        if not sys.stdin.readline():
            os._exit(0)

    def loaded(self) -> None:
        """Everything is imported, nothing is built. Time to the first step counts from here."""
        self.say()
        self.before = time.perf_counter()

    def ready(self) -> None:
        """Model, optimiser and prompts are there."""
        self.say(build=time.perf_counter() - self.before)
        self.watch.start()

    def answer(self, tokens: float) -> None:
        """A step is over; it drew so many response tokens."""
        self.say(**self.watch.stop(), tokens=tokens)
        self.watch.start()


def resident() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
