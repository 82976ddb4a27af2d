"""Arms in processes of their own that take their steps in turns: the asking side of `language_phases.Channel`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from language_work import Work


class Ended(RuntimeError):
    """An arm's process ended early."""

    def __init__(self, arm: str, variant: str) -> None:
        super().__init__(f"the {arm} arm ({variant or 'as it is'}) ended early; its messages are above.")
        self.variant = variant


class Worker:
    """One arm in a process of its own."""

    def __init__(self, script: str, arm: str, work: Work, variant: str) -> None:
        self.name, self.variant = arm, variant
        command = [sys.executable, script, "--arm", arm, "--work", json.dumps(asdict(work)), "--variant", variant]
        environment = {**os.environ, "OMP_NUM_THREADS": str(work.threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def hear(self) -> dict[str, Any]:
        """The next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Ended(self.name, self.variant)
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self) -> dict[str, Any]:
        """Let it go on until its next answer."""
        assert self.process.stdin is not None
        print("on", file=self.process.stdin, flush=True)
        return self.hear()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def turns(script: str, work: Work, arms: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The measured steps of each (arm, variant), taken in turns; with what building and the first step took.

    Args:
        script: starts an arm with `--arm`, `--work` and `--variant`, which then speaks over a `Channel`.
        work: of all arms.
        arms: in A B B A order.

    Raises:
        Ended: an arm stopped before its last step.
    """
    workers = [Worker(script, arm, work, variant) for arm, variant in arms]
    try:
        loaded = [worker.hear() for worker in workers]
        built = [worker.ask() for worker in workers]
        measured: list[list[dict[str, Any]]] = [[] for _ in arms]
        for step in range(work.steps + work.warm_up):
            for place in range(len(workers)) if step % 2 else reversed(range(len(workers))):
                measured[place].append(workers[place].ask())
    finally:
        for worker in workers:
            worker.end()
    return [
        {
            "arm": arm,
            "variant": variant,
            "first": built[place]["build"] + measured[place][0]["wall"],
            "loaded": loaded[place]["peak"],
            "steps": measured[place][work.warm_up :],
        }
        for place, (arm, variant) in enumerate(arms)
    ]
