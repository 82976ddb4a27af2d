"""Where the library's time goes in a control run: each phase's own time, from clocks around the functions.

The clocks sit on the seams that every method uses, so a phase that a faster path skips shows 0. They cost about a
microsecond a call.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from control_arms import ours
from control_work import Work

from ascent.core.method import Method
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.learning import Learning
from ascent.sampling.vector import VectorSampler
from ascent.training.steps import Stepper
from ascent.worlds.gym import Environments

SEAMS: dict[str, list[tuple[type, str]]] = {
    "environment": [(Environments, "step"), (Environments, "reset")],
    "collect": [(VectorSampler, "act")],
    "annotate and credit": [(ActorCritic, "annotate"), (Method, "credit")],
    "evaluate": [(ActorCritic, "evaluate"), (Learning, "evaluate")],
    "prepare": [(Method, "prepare")],
    "loss": [(Method, "loss")],
    "backward": [(torch.Tensor, "backward")],
    "stepper": [(Stepper, "step")],
}


UNIT = "microseconds of processor time per environment step"


class Clocks:
    """Each phase's own seconds of processor time: what it calls is taken off."""

    def __init__(self) -> None:
        self.own: dict[str, float] = defaultdict(float)
        self.running: list[list[float]] = []

    def around(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            self.running.append([0.0])
            try:
                return function(*arguments, **named)
            finally:
                whole = time.process_time() - began
                (inner,) = self.running.pop()
                self.own[phase] += whole - inner
                if self.running:
                    self.running[-1][0] += whole

        return timed


@contextmanager
def clocked() -> Iterator[Clocks]:
    """Clocks on every seam while it lasts."""
    clocks = Clocks()
    seams = [(phase, owner, name, owner.__dict__.get(name)) for phase, all_ in SEAMS.items() for owner, name in all_]
    try:
        for phase, owner, name, function in seams:
            if function is not None:
                setattr(owner, name, clocks.around(phase, function))
        yield clocks
    finally:
        for _, owner, name, function in seams:
            if function is not None:
                setattr(owner, name, function)


def phases(work: Work, repeats: int = 3, steps: int = 6144) -> list[dict[str, Any]]:
    """One row per phase: what it takes of an environment step (median over the repeats), and its share."""
    rounds = max(1, steps // work.size)
    arm = ours(work, 0, 2 + repeats * rounds)
    arm(2)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        with clocked() as clocks:
            began = time.process_time()
            arm(rounds)
            whole = time.process_time() - began
        for phase in SEAMS:
            found[phase].append(clocks.own[phase])
        found["the rest of the loop"].append(whole - sum(clocks.own.values()))
    scale = 1e6 / (rounds * work.size)
    middle = {phase: statistics.median(seconds) * scale for phase, seconds in found.items()}
    middle["together"] = total = sum(middle.values())
    return [
        {"phase": phase, "spent": round(spent, 2), "unit": UNIT, "share": f"{spent / total:.0%}"}
        for phase, spent in middle.items()
    ]
