"""Views of replay memories for learning a model: a part held out, bootstraps, and a mixture of two memories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.random import key, uniform
from ascent.training.memory import Memory, Replay


class HeldOut:
    """A replay memory in two parts by a hash of each transition: one to fit a model on, one to judge it.

    A transition keeps its part, and how often it is in each member's bootstrap (Poisson with mean 1, the limit of
    drawing with replacement), for ever. `annotate` is asked once for all rows at `begin`, and not at every draw.

    Args:
        replay: of transitions with `trajectory` and `index`.
        batch: transitions of a draw, uniform with replacement.
        share: of the transitions that is held out, in (0, 1).
        members: of the ensemble.
        seed: of the parts, bootstraps and draws.
        annotate: writes columns that the loss reads.
    """

    def __init__(
        self,
        replay: Replay,
        batch: int,
        share: float,
        members: int,
        seed: int,
        annotate: Callable[[Decisions], Decisions],
    ) -> None:
        self.replay, self.batch, self.share, self.members, self.seed = replay, batch, share, members, seed
        self.annotate = annotate
        self._parts: tuple[Decisions, Decisions] | None = None

    def begin(self) -> None:
        """Forget what was annotated; the next reader asks anew."""
        self._parts = None

    @property
    def parts(self) -> tuple[Decisions, Decisions]:
        """The rows to fit on, with the column `bootstrap` [N, 1, E], and those held out."""
        if self._parts is None:
            content = self.replay.content()
            names = content.column("trajectory").flatten(), content.column("index").flatten()
            part = uniform(torch.full(names[0].shape, key(self.seed, "held_out")), *names) < self.share
            if not part.any() or part.all():  # a handful of transitions: all of them do both
                part = torch.zeros_like(part)
                fitted, held = ~part, ~part
            else:
                fitted, held = ~part, part
            draws = uniform(
                torch.full((len(content), 1), key(self.seed, "bootstrap")),
                names[0][:, None],
                names[1][:, None],
                torch.arange(self.members),
            )
            counts = poisson(draws) if self.members > 1 else torch.ones_like(draws)
            content = self.annotate(content).with_extras({"bootstrap": counts.float().unsqueeze(1)})
            self._parts = content.rows(fitted), content.rows(held)
        return self._parts

    @property
    def turns(self) -> int:
        """Draws that take as many transitions as there are."""
        return -(-len(self.parts[0]) // self.batch)

    def put(self, collection: Decisions) -> None:
        self.replay.put(collection)

    def draw(self, round_: int) -> Decisions:
        fitted = self.parts[0]
        drawn = uniform(torch.full((self.batch,), key(self.seed, "fit", round_)), torch.arange(self.batch))
        rows = fitted.rows((drawn * len(fitted)).long())
        assert rows.whole
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The memory that is viewed carries the content."""
        self._parts = None


def poisson(draws: Tensor) -> Tensor:
    """Counts of mean 1 from uniform draws: the number of cumulative probabilities that each one passes."""
    steps = torch.arange(16, dtype=torch.float64)
    cumulative = torch.exp(-1.0 - torch.lgamma(steps + 1.0)).cumsum(0)
    return torch.searchsorted(cumulative, draws.contiguous(), right=True)


class Mixture:
    """Draws of one memory or another, whole batches, by a hash of the round.

    Args:
        first, second: memories of the same columns.
        share: the probability of `second`, asked at each draw; `first` alone while `second` holds nothing.
        seed: of the choice.
    """

    def __init__(self, first: Memory, second: Replay, share: Callable[[], float], seed: int) -> None:
        self.first, self.second, self.share = first, second, share
        self.key = torch.tensor(key(seed, "mixture"))

    def put(self, collection: Decisions) -> None:
        raise TypeError("a Mixture is drawn from; collect into one of its memories.")

    def draw(self, round_: int) -> Decisions:
        other = self.second.written > 0 and float(uniform(self.key, round_)) < self.share()
        return self.second.draw(round_) if other else self.first.draw(round_)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The memories carry the content."""
