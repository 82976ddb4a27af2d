"""The loop that trains everything: it walks a program, and reports, evaluates and saves between the updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ascent.training.buffers import keep_freed_memory
from ascent.training.memory import Memory
from ascent.training.processes import Processes
from ascent.training.program import Phase

Evaluator = Callable[[int], Mapping[str, float]]
"""Held-out scores at a step."""


@dataclass
class System:
    """What a run is about: models that learn, memories, and the program of its phases."""

    models: Mapping[str, nn.Module]
    memories: Mapping[str, Memory]
    program: Sequence[Phase]
    evaluate: Evaluator | None = None
    consumed: Callable[[], int] = field(default=lambda: 0)

    def state_dict(self) -> dict[str, Any]:
        return {
            "models": {name: model.state_dict() for name, model in self.models.items()},
            "memories": {name: memory.state_dict() for name, memory in self.memories.items()},
            "program": {phase.name: phase.state_dict() for phase in self.program},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, model in self.models.items():
            model.load_state_dict(state["models"][name])
        for name, memory in self.memories.items():
            memory.load_state_dict(state["memories"][name])
        for phase in self.program:
            phase.load_state_dict(state["program"][phase.name])


class Watcher(Protocol):
    """Sees the run between updates: progress, logs, checkpoints. May raise to end it."""

    def updated(self, loop: Loop) -> None: ...
    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None: ...
    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None: ...


class Loop:
    """Walks a system's program to its end. `evaluate_every` counts steps (rounds of a phase); 0 is never."""

    def __init__(
        self,
        system: System,
        watchers: Sequence[Watcher] = (),
        processes: Processes | None = None,
        evaluate_every: int = 0,
    ) -> None:
        keep_freed_memory()
        self.system, self.watchers, self.evaluate_every = system, watchers, evaluate_every
        self.processes = processes or Processes()
        self.step = self.updates = self.decisions = 0
        self.total = sum(phase.until for phase in system.program)
        self.recorded: dict[str, list[Tensor]] = {}

    def run(self) -> None:
        """Every phase to its end; a restored loop goes on where its state was taken."""
        if self.step == 0 and self.updates == 0:
            self.evaluate()
        for phase in self.system.program:
            phase.run(self)

    @property
    def progress(self) -> float:
        """Fraction of the program's rounds that is done."""
        return self.step / max(self.total, 1)

    def record(self, metrics: Mapping[str, Tensor]) -> None:
        """Metrics of an update or a collection; the step reports their mean. They stay tensors until then."""
        for name, metric in metrics.items():
            self.recorded.setdefault(name, []).append(metric)

    def updated(self) -> None:
        """After an optimiser step."""
        self.updates += 1
        for watcher in self.watchers:
            watcher.updated(self)

    def stepped(self) -> None:
        """After a round of a phase."""
        self.step += 1
        metrics = {name: sum(float(x) for x in values) / len(values) for name, values in self.recorded.items()}
        self.recorded = {}
        for watcher in self.watchers:
            watcher.stepped(self, metrics)
        if self.evaluate_every and (self.step % self.evaluate_every == 0 or self.step == self.total):
            self.evaluate()

    def evaluate(self) -> None:
        """Held-out evaluation, reported."""
        if self.system.evaluate is not None and self.evaluate_every and self.processes.main:
            scores = self.system.evaluate(self.step)
            for watcher in self.watchers:
                watcher.evaluated(self, scores)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs to go on bit for bit."""
        recorded = {name: [float(x) for x in values] for name, values in self.recorded.items()}
        return {"step": self.step, "updates": self.updates, "recorded": recorded, "system": self.system.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.step, self.updates = state["step"], state["updates"]
        self.recorded = {
            name: list(torch.tensor(values, dtype=torch.float64)) for name, values in state["recorded"].items()
        }
        self.system.load_state_dict(state["system"])
