"""What the loop asks of a sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ascent.core.decisions import Decisions


class Sampler(Protocol):
    """A policy in a world.

    Attributes:
        consumed: prompts or environment steps so far, over all processes.
    """

    @property
    def consumed(self) -> int: ...

    def act(self, step: int) -> Decisions:
        """The next collection; draws are hashes of the sampler's seed, `step` and what they are for."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """JSON values and tensors from which `load_state_dict` goes on exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
