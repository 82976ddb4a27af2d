"""What an assembly hands to a run, and the check that its world can feed its method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ascent.core.method import DEFAULTED, Method
from ascent.core.registry import cards
from ascent.systems.config import BadConfig
from ascent.training.loop import System


@dataclass
class Assembly:
    """A system ready to run.

    Attributes:
        system: models, memories, program, evaluation.
        method: of the main model.
        unit: what its speed counts, "tokens" or "steps".
        score: the held-out score that says whether it learnt.
        save: writes the trained policy into a folder.
    """

    system: System
    method: Method
    unit: str
    score: str
    save: Callable[[Path], None]


def refuse_unfed(method: Method, fed: frozenset[str], world: str) -> None:
    """Raise BadConfig, naming the missing needs, where a world cannot feed a method."""
    missing = sorted(method.needs - fed - DEFAULTED - {"mask"})
    if missing:
        acting = [card for card in cards() if card.family != "supervised"]
        fitting = [card.slug for card in acting if not card.build().needs - fed - DEFAULTED - {"mask"}]
        raise BadConfig(
            f"method {method.slug!r} needs {', '.join(missing)}, which {world} does not give. "
            f"Methods that run here: {', '.join(fitting)}."
        )
