"""Memories: what a Collect writes and a Learn draws from. Each carries its content through a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ascent.core.decisions import Decisions, concatenate
from ascent.core.random import Ahead, key, uniform
from ascent.training.rows import Rows, Saved


class Memory(Protocol):
    """Holds collections between acting and learning."""

    def put(self, collection: Decisions) -> None: ...
    def draw(self, round_: int) -> Decisions: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Fresh:
    """The collections since the last draw, each used once: on-policy learning."""

    def __init__(self) -> None:
        self.parts: list[Decisions] = []

    def put(self, collection: Decisions) -> None:
        self.parts.append(collection)

    def draw(self, round_: int) -> Decisions:
        if not self.parts:
            raise RuntimeError("nothing was collected since the last draw; put a Collect before this Learn.")
        joined = concatenate(self.parts)
        self.parts = []
        return joined

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.to_tensors() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.parts = [Decisions.from_tensors(flat) for flat in state["parts"]]


class Window:
    """The last `recent` collections of the same streams, joined along time so that credit may cross them."""

    def __init__(self, recent: int) -> None:
        if recent < 1:
            raise ValueError(f"recent must be >= 1 collections; got {recent}.")
        self.recent = recent
        self.parts: list[Decisions] = []

    def put(self, collection: Decisions) -> None:
        self.parts = [*self.parts, collection][-self.recent :]

    def draw(self, round_: int) -> Decisions:
        if not self.parts:
            raise RuntimeError("the window is empty; put a Collect before this Learn.")
        return along_time(self.parts)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.to_tensors() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.parts = [Decisions.from_tensors(flat) for flat in state["parts"]]


class Remaining:
    """A view of a full window without its oldest collection, which leaves before the next update."""

    def __init__(self, window: Window) -> None:
        self.window = window

    def put(self, collection: Decisions) -> None:
        self.window.put(collection)

    def draw(self, round_: int) -> Decisions:
        parts = self.window.parts
        full = len(parts) == self.window.recent and len(parts) > 1
        return along_time(parts[1:] if full else parts)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The window that is viewed carries the content."""


class Replay:
    """A ring of single decisions [M, 1]; a draw is uniform, by a hash of (seed, round, place).

    Args:
        capacity: M, most decisions held; the ring grows up to it as decisions come, and then the oldest leave.
        batch: decisions of a draw.
        seed: of the draws.

    A checkpoint saves what was put since the one before (`rows.py`).
    """

    def __init__(self, capacity: int, batch: int, seed: int) -> None:
        for name, number in (("capacity", capacity), ("batch", batch)):
            if number < 1:
                raise ValueError(f"{name} must be >= 1 decisions; got {number}.")
        self.capacity, self.batch, self.seed = capacity, batch, seed
        self.ring: dict[str, Tensor] = {}
        self.written = 0
        self.saved = Saved()
        self._table: Decisions | None = None
        self._uniform = Ahead(self._hashed)

    def put(self, collection: Decisions) -> None:
        flat = collection.flatten().to_tensors()
        count = len(flat["column/mask"])
        # Of a collection longer than the ring only its end stays: a place is written once.
        first = max(count - self.capacity, 0)
        self._write(self.written + first, {name: tensor[first:] for name, tensor in flat.items()})
        self.written += count

    def _write(self, first: int, columns: Mapping[str, Tensor]) -> None:
        """Put the rows numbered from `first` in their places."""
        count = len(next(iter(columns.values())))
        self._grow(min(first + count, self.capacity), columns)
        start = first % self.capacity
        before_end = min(count, self.capacity - start)
        for name, tensor in columns.items():
            self.ring[name][start : start + before_end] = tensor[:before_end]
            if before_end < count:
                self.ring[name][: count - before_end] = tensor[before_end:]

    def _grow(self, wanted: int, columns: Mapping[str, Tensor]) -> None:
        """Make room for `wanted` rows, twice as many as before at least, so that growing costs little in sum."""
        size = len(next(iter(self.ring.values()))) if self.ring else 0
        if wanted <= size:
            return
        size_then = min(max(wanted, 2 * size, 1024), self.capacity)
        for name, tensor in columns.items():
            grown = tensor.new_zeros(size_then, *tensor.shape[1:])
            if size:
                grown[:size] = self.ring[name]
            self.ring[name] = grown
        self._table = None

    def draw(self, round_: int) -> Decisions:
        filled = min(self.written, self.capacity)
        if not filled:
            raise RuntimeError("the replay memory is empty; put a Collect before this Learn.")
        if self._table is None:
            self._table = Decisions.from_tensors(self.ring)
        drawn = self._table.rows((self._uniform(round_) * filled).long())
        assert drawn.whole  # asked here once, for all who learn from the draw
        return drawn

    def content(self) -> Decisions:
        """Every row held, by place."""
        filled = min(self.written, self.capacity)
        return Decisions.from_tensors({name: tensor[:filled] for name, tensor in self.ring.items()})

    def _hashed(self, rounds: Tensor) -> Tensor:
        """[rounds, batch] numbers in [0, 1)."""
        keys = torch.tensor([key(self.seed, "replay", round_) for round_ in rounds.tolist()])
        return uniform(keys[:, None], torch.arange(self.batch))

    def _read(self, first: int, last: int) -> dict[str, Tensor]:
        places = torch.arange(first, last) % self.capacity
        return {name: tensor[places] for name, tensor in self.ring.items()}

    def _note(self, saved: Saved) -> None:
        self.saved = saved

    def state_dict(self) -> dict[str, Any]:
        first = max(self.written - self.capacity, 0)
        return {"rows": Rows(first, self.written, self._read, self.saved, self._note)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        rows: Rows = state["rows"]
        self.ring, self.written, self._table, self.saved = {}, rows.last, None, rows.saved
        if rows.last > rows.first:
            self._write(rows.first, rows.read(rows.first, rows.last))


class Shared:
    """A view of a memory whose draws are annotated, each once: several stages of a round learn from the same batch.

    Args:
        memory: what is drawn from.
        annotate: (drawn, round) -> drawn with further columns: noise, what target networks say of the successors.

    `note` adds columns that one stage tells those after it; they travel in a checkpoint, the rest is drawn again.
    """

    def __init__(self, memory: Memory, annotate: Callable[[Decisions, int], Decisions]) -> None:
        self.memory, self.annotate = memory, annotate
        self.round = -1
        self.drawn: Decisions | None = None
        self.noted: dict[str, Tensor] = {}

    def put(self, collection: Decisions) -> None:
        self.memory.put(collection)

    def draw(self, round_: int) -> Decisions:
        if self.drawn is None or self.round != round_:
            drawn = self.annotate(self.memory.draw(round_), round_)
            self.noted = self.noted if self.round == round_ else {}
            self.round, self.drawn = round_, drawn.with_extras(self.noted) if self.noted else drawn
        return self.drawn

    def note(self, columns: Mapping[str, Tensor]) -> None:
        """Write columns [N, ...] into the present draw."""
        if self.drawn is None:
            raise RuntimeError("nothing is drawn yet; note columns of a draw.")
        self.noted = {**self.noted, **columns}
        self.drawn = self.drawn.with_extras(columns)

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round, "noted": self.noted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.round, self.drawn, self.noted = state["round"], None, dict(state["noted"])


class Every:
    """A view of a memory for a stage that runs in every n-th round only, so that it draws what others draw then."""

    def __init__(self, memory: Memory, every: int) -> None:
        self.memory, self.every = memory, every

    def put(self, collection: Decisions) -> None:
        self.memory.put(collection)

    def draw(self, round_: int) -> Decisions:
        return self.memory.draw((round_ + 1) * self.every - 1)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The memory that is viewed carries the content."""


class Dataset:
    """Recorded decisions, walked in shuffled order `batch` contexts (or rows) at a time: offline learning.

    Rows that share a `group` stay in one batch. The order of an epoch is a hash of (seed, epoch). A batch that
    crosses the end of an epoch holds a group only once, and so perhaps fewer than `batch`.
    """

    def __init__(self, content: Decisions, batch: int, seed: int) -> None:
        self.content, self.batch, self.seed = content, batch, seed
        names = content.column("group") if "group" in content else torch.arange(len(content))
        self.units = torch.unique(names, return_inverse=True)[1].cpu()
        self.count = int(self.units.max()) + 1 if len(content) else 0
        if not 1 <= batch <= self.count:
            raise ValueError(f"batch must be in [1, {self.count}] groups of the data set; got {batch}.")

    def put(self, collection: Decisions) -> None:
        raise TypeError("a Dataset is recorded; collect into Fresh, Window or Replay instead.")

    def draw(self, round_: int) -> Decisions:
        start = round_ * self.batch
        epoch, place = divmod(start, self.count)
        order = torch.cat([self._order(epoch), self._order(epoch + 1)])
        chosen = order[place : place + self.batch]
        return self.content.rows(torch.nonzero(torch.isin(self.units, chosen)).squeeze(1))

    def _order(self, epoch: int) -> Tensor:
        return torch.argsort(
            uniform(torch.full((self.count,), key(self.seed, "dataset", epoch)), torch.arange(self.count))
        )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The draw is a function of the round; there is nothing to restore."""


def along_time(parts: Sequence[Decisions]) -> Decisions:
    """Collections of the same streams joined along T; per-row [N] columns are taken from the last."""
    if len(parts) == 1:
        return parts[0]
    flats = [part.to_tensors() for part in parts]
    joined = {
        name: torch.cat([flat[name] for flat in flats], dim=1) if flats[0][name].dim() > 1 else flats[-1][name]
        for name in flats[0]
    }
    return Decisions.from_tensors(joined)
