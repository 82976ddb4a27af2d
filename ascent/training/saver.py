"""Saves the run every so many updates, at its end, and when it is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from ascent.training import checkpoint
from ascent.training.learn import Diverged

if TYPE_CHECKING:
    from ascent.training.loop import Loop


class Interrupted(KeyboardInterrupt):
    """The user ended the run; it was saved first."""


class Saver:
    """Writes checkpoints between updates.

    Args:
        folder: of the checkpoints.
        every: updates between two checkpoints; 0 saves only at the end and at an interruption.
        keep: newest checkpoints that stay.
        say: hears of a checkpoint that could not be written; the run goes on.
    """

    def __init__(self, folder: Path, every: int, keep: int, say: Callable[[str], None]) -> None:
        self.folder, self.every, self.keep, self.say = folder, every, keep, say
        self.stopping = False

    def __enter__(self) -> Saver:
        self.previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self.previous:
            signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> Any:
        """The first signal ends the run after the update in progress; a second one ends it at once."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.say("stopping after this update (again: at once, from the last checkpoint)")

    def updated(self, loop: Loop) -> None:
        """Save when due; end the run when asked. All processes stop at the same update."""
        self.stopping = loop.processes.anyone(self.stopping)
        if (self.every and loop.updates % self.every == 0) or self.stopping:
            try:
                self.save(loop)
            except checkpoint.SaveFailed as error:
                if self.stopping:
                    raise
                self.say(f"warning: {error}")
        if self.stopping:
            raise Interrupted

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        """Nothing: a checkpoint belongs to an update."""

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        """Nothing."""

    def save(self, loop: Loop) -> None:
        """A checkpoint now: the first, so that any kill can be resumed, and the last.

        Raises:
            SaveFailed: it cannot be written.
            Diverged: a model is not finite; the checkpoint before stays the newest.
        """
        for name, model in loop.system.models.items():
            if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
                raise Diverged(
                    f"the parameters of model {name!r} are not finite after update {loop.updates}. "
                    "Lower learning_rate; the last good checkpoint stays."
                )
        state = loop.state_dict()
        if loop.processes.main:
            checkpoint.save(self.folder, loop.updates, state, self.keep)
