"""Stages that walk others until a held-out score stops improving, or only every so often."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ascent.training.program import Hook, Stage, walk

if TYPE_CHECKING:
    from ascent.training.loop import Loop

Report = Callable[[], Mapping[str, Tensor]]
"""Further numbers about a fitted model."""


class Periodic:
    """The stages, in rounds 0, every, 2 every, ... of the phase."""

    def __init__(self, name: str, every: int, stages: Sequence[Stage]) -> None:
        self.name, self.every, self.stages = name, every, tuple(stages)
        self.place = 0

    def run(self, loop: Loop, round_: int) -> None:
        if round_ % self.every == 0:
            walk(self, loop, round_ // self.every)

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place, "stages": {stage.name: stage.state_dict() for stage in self.stages}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"]
        for stage in self.stages:
            stage.load_state_dict(state["stages"][stage.name])


class UntilNoBetter:
    """Epochs of the stages until the held-out losses stop falling; the best weights are restored.

    An epoch counts as better if the loss of any member fell by more than the share `improvement` of its least. The
    losses of different runs of this stage are not compared, since what they measure may have changed between.

    Args:
        name: unique in the program; prefixes what is reported.
        stages: of one turn.
        turns: turns of an epoch, asked at the start of each.
        model: whose parameters are kept and restored.
        judge: the held-out losses [E] of the members.
        patience: epochs without improvement after which the walk ends.
        improvement: see above, >= 0.
        most: epochs at most.
        before: hooks at the start of a run.
        after: is told the least losses [E] at its end.
        report: numbers to record at its end.
    """

    def __init__(
        self,
        name: str,
        stages: Sequence[Stage],
        turns: Callable[[], int],
        model: nn.Module,
        judge: Callable[[], Tensor],
        patience: int,
        improvement: float,
        most: int,
        before: Sequence[Hook] = (),
        after: Callable[[Tensor], None] | None = None,
        report: Report | None = None,
    ) -> None:
        self.name, self.stages, self.turns, self.model, self.judge = name, tuple(stages), turns, model, judge
        self.patience, self.improvement, self.most = patience, improvement, most
        self.before, self.after, self.report = tuple(before), after, report
        self.place = self.turn = self.epoch = self.waited = 0
        self.running = False
        self.least: Tensor | None = None
        self.best: dict[str, Tensor] = {}

    def run(self, loop: Loop, round_: int) -> None:
        if not self.running:
            for hook in self.before:
                hook()
            self.epoch = self.waited = 0
            self.least, self.best, self.running = None, {}, True
            self.weigh(self.judge())  # the weights before the first epoch compete too
        while self.epoch < self.most and self.waited < self.patience:
            wanted = self.turns()
            while self.turn < wanted:
                walk(self, loop, self.turn)
                self.turn += 1
            self.turn, self.epoch = 0, self.epoch + 1
            self.waited = 0 if self.weigh(self.judge()) else self.waited + 1
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.best[name])
        assert self.least is not None
        if self.after is not None:
            self.after(self.least)
        found = {"epochs": torch.tensor(float(self.epoch)), "held_out": self.least.mean()}
        found |= {} if self.report is None else self.report()
        loop.record({f"{self.name}/{name}": number for name, number in found.items()})
        self.best, self.running = {}, False

    def weigh(self, losses: Tensor) -> bool:
        """Keep the present weights if any member improved; whether one did."""
        if self.least is not None:
            fallen = (self.least - losses) > self.improvement * self.least.abs()
            if not bool(fallen.any()):
                return False
        self.least = losses if self.least is None else torch.minimum(self.least, losses)
        self.best = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        return True

    def state_dict(self) -> dict[str, Any]:
        counters = {name: vars(self)[name] for name in ("place", "turn", "epoch", "waited", "running")}
        stages = {stage.name: stage.state_dict() for stage in self.stages}
        return {**counters, "least": self.least, "best": self.best, "stages": stages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("place", "turn", "epoch", "waited", "running"):
            setattr(self, name, state[name])
        self.least, self.best = state["least"], dict(state["best"])
        for stage in self.stages:
            stage.load_state_dict(state["stages"][stage.name])
