"""The one batch: what a policy decided, in columns `[N, T]`.

N streams (rows) of T decisions (columns). A bandit or a single transition has T = 1; episodes may end
inside a row. Only `mask` is required; every other column appears when a stage of the loop writes it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from types import MappingProxyType
from typing import Self, overload

import torch
from torch import Tensor

Columns = Mapping[str, Tensor]
EMPTY: Columns = MappingProxyType({})

# What each column holds: the shapes that it may have and the kind of number in it.
SHAPES: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "mask": (("NT",), "bool"),
        "action": (("NT", "NT*"), "any"),
        "behaviour_log_prob": (("NT",), "float"),
        "old_log_prob": (("NT",), "float"),
        "reference_log_prob": (("NT",), "float"),
        "reward": (("NT",), "float"),
        "terminated": (("NT",), "bool"),
        "truncated": (("NT",), "bool"),
        "value": (("NT", "NT*"), "float"),
        "next_value": (("NT", "NT*"), "float"),
        "value_target": (("NT", "NT*"), "float"),
        "advantage": (("NT",), "float"),
        "group": (("N", "NT"), "int"),
        "trajectory": (("N", "NT"), "int"),
        "turn": (("N", "NT"), "int"),
        "segment": (("N", "NT"), "int"),
        "key": (("N", "NT"), "int"),
        "index": (("N", "NT"), "int"),
        "policy_version": (("N", "NT"), "int"),
    }
)


# Where a batch remembers whether every entry is decided: asking the mask costs as much as adding two columns.
_WHOLE = "_whole"


class MissingColumn(LookupError):
    """A column was read that no stage has written."""

    def __init__(self, name: str, present: Sequence[str], reader: str = "") -> None:
        asker = f"{reader} needs" if reader else "the reader needs"
        near = difflib.get_close_matches(name, present, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        super().__init__(
            f"{asker} column {name!r}, which is absent{hint}; present: {', '.join(present) or 'none'}. "
            f"Pass it to the constructor or write it with .replace({name}=...)."
        )
        self.name = name


class Column:
    """A tensor that may be absent: reading it then raises `MissingColumn` with its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: Table, owner: type) -> Tensor: ...
    def __get__(self, instance: Table | None, owner: type) -> Tensor | None:
        if instance is None:
            return None
        tensor: Tensor | None = instance.__dict__.get(self.name)
        if tensor is None:
            raise MissingColumn(self.name, list(instance), type(instance).__name__ + " reader")
        return tensor

    def __set__(self, instance: Table, tensor: Tensor | None) -> None:
        instance.__dict__[self.name] = tensor


class Table:
    """What `Decisions` and `Evaluation` share: named optional tensors and a mapping of further ones."""

    EXTRAS = "extras"

    def __iter__(self) -> Iterator[str]:
        """Names of the columns that are present."""
        for name in self.__dict__:
            if name not in ("context", "context_row", self.EXTRAS, _WHOLE) and self.__dict__[name] is not None:
                yield name
        yield from self.__dict__[self.EXTRAS]

    def __contains__(self, name: object) -> bool:
        return self.__dict__.get(str(name)) is not None or name in self.__dict__[self.EXTRAS]

    def column(self, name: str, reader: str = "") -> Tensor:
        """The column `name`, a field or an extra. Raises MissingColumn, which names `reader`."""
        tensor: Tensor | None = self.__dict__.get(name)
        if tensor is None:
            tensor = self.__dict__[self.EXTRAS].get(name)
        if tensor is None:
            raise MissingColumn(name, list(self), reader)
        return tensor

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(self.column(name).shape)}" for name in self)
        return f"{type(self).__name__}({shapes})"

    def _copy(self, changes: Mapping[str, object]) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.__dict__.update(changes)
        if "mask" in changes and _WHOLE not in changes:
            new.__dict__.pop(_WHOLE, None)
        return new


@dataclass(frozen=True, eq=False, repr=False)
class Decisions(Table):
    """What was decided, by whom, with which consequence. Shapes are in `SHAPES`.

    Attributes:
        mask: [N, T] bool, True where the policy decided (not padding, not tool output).
        context: row-first tensors that the policy saw, opaque to the core (token ids, observations).
        context_row: [N] int, which row of `context` a row saw; absent means its own.
        extras: row-first columns of one paper, [N, ...], and further `<scorer>_log_prob`.

    Raises:
        ValueError: a column has a wrong shape, kind, device or a non-finite number where `mask` is True.
    """

    mask: Column = Column()
    context: Columns = field(default_factory=lambda: EMPTY)
    context_row: Tensor | None = None
    action: Column = Column()
    behaviour_log_prob: Column = Column()
    old_log_prob: Column = Column()
    reference_log_prob: Column = Column()
    reward: Column = Column()
    terminated: Column = Column()
    truncated: Column = Column()
    value: Column = Column()
    next_value: Column = Column()
    value_target: Column = Column()
    advantage: Column = Column()
    group: Column = Column()
    trajectory: Column = Column()
    turn: Column = Column()
    segment: Column = Column()
    key: Column = Column()
    index: Column = Column()
    policy_version: Column = Column()
    extras: Columns = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        mask = self.__dict__["mask"]
        if not isinstance(mask, Tensor) or mask.dim() != 2 or mask.dtype != torch.bool:
            got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"mask must be a bool tensor of shape [N, T]; got {got}. Use lengths > arange(T).")
        for name in SHAPES:
            tensor = self.__dict__[name]
            if tensor is not None:
                self._check(name, tensor)
        for name, tensor in self.extras.items():
            if name in SHAPES:
                raise ValueError(f"extras[{name!r}] hides the column {name!r}; pass {name}=... instead.")
            if tensor.shape[:1] != mask.shape[:1]:
                raise ValueError(f"extras[{name!r}] must be row-first [{len(mask)}, ...]; got {tuple(tensor.shape)}.")
        self._check_context()

    def _check(self, name: str, tensor: Tensor) -> None:
        forms, kind = SHAPES[name]
        rows, columns = self.mask.shape
        shape = tuple(tensor.shape)
        good = {"N": shape == (rows,), "NT": shape == (rows, columns), "NT*": shape[:2] == (rows, columns)}
        if not any(good[form] for form in forms):
            spelt = {"N": f"[{rows}]", "NT": f"[{rows}, {columns}]", "NT*": f"[{rows}, {columns}, *]"}
            wanted = " or ".join(spelt[form] for form in forms)
            raise ValueError(
                f"{name} must have shape {wanted} (mask is [N, T] = [{rows}, {columns}]); got {list(shape)}."
            )
        number = tensor.dtype
        kinds = {
            "any": True,
            "bool": number == torch.bool,
            "float": number.is_floating_point,
            "int": not number.is_floating_point and not number.is_complex and number != torch.bool,
        }
        if not kinds[kind]:
            raise ValueError(f"{name} must hold {kind} numbers; got {number}. Convert it before constructing.")
        if tensor.device != self.mask.device:
            raise ValueError(f"{name} is on {tensor.device} but mask is on {self.mask.device}; move them together.")
        # A sum is finite only if all of its numbers are, and cheaper to ask; only then is it asked number by number.
        if kind == "float" and not isfinite(float(tensor.detach().sum())) and self._broken(tensor):
            wrong = ~torch.isfinite(tensor.reshape(rows, columns, -1)).all(-1) & self.mask
            row, column = torch.nonzero(wrong)[0].tolist()
            raise ValueError(
                f"{name}[{row}, {column}] is {tensor[row, column].tolist()} where mask is True; every decided entry "
                "must be finite. Mask the row out or repair the stage that wrote it."
            )

    def _broken(self, tensor: Tensor) -> bool:
        """Whether a decided entry is not finite."""
        return not bool(torch.isfinite(tensor[self.mask]).all())

    def _check_context(self) -> None:
        rows = len(self.mask)
        for name, tensor in self.context.items():
            if self.context_row is None and len(tensor) != rows:
                raise ValueError(
                    f"context[{name!r}] has {len(tensor)} rows, mask has {rows}; they must agree, or pass "
                    "context_row [N] to share contexts between rows."
                )
        if self.context_row is not None:
            count = min((len(tensor) for tensor in self.context.values()), default=0)
            good = self.context_row.shape == (rows,)
            if good and rows:
                low, high = (int(end) for end in self.context_row.aminmax())
                good = low >= 0 and high < count
            if not good:
                raise ValueError(f"context_row must be [N] = [{rows}] integers in [0, {count}).")

    def __len__(self) -> int:
        return len(self.mask)

    @property
    def whole(self) -> bool:
        """Whether every entry is decided: no padding, nothing masked. Asked once, and true of its rows then."""
        known: bool | None = self.__dict__.get(_WHOLE)
        if known is None:
            known = self.__dict__[_WHOLE] = bool(self.mask.all())
        return known

    def replace(self, **columns: Tensor | None) -> Decisions:
        """A copy with these columns written (checked); unknown names are refused, see `with_extras`."""
        unknown = [name for name in columns if name not in FIELDS]
        if unknown:
            near = difflib.get_close_matches(unknown[0], FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"Decisions has no column {unknown[0]!r}{hint} (a paper's own go through with_extras)")
        new = self._copy(columns)
        for name, tensor in columns.items():
            if tensor is not None and name in SHAPES:
                new._check(name, tensor)
        return new

    def with_extras(self, columns: Columns) -> Decisions:
        """A copy with further row-first columns; a name that is a field (`advantage`) is written there."""
        named = {name: tensor for name, tensor in columns.items() if name in SHAPES}
        extras = {name: tensor for name, tensor in columns.items() if name not in SHAPES}
        return self._copy({**named, "extras": {**self.extras, **extras}})

    def with_context(self, context: Columns) -> Decisions:
        """A copy that saw other tensors, one for each row or each `context_row`."""
        new = self._copy({"context": context})
        new._check_context()
        return new

    def per_decision(self, name: str, reader: str = "") -> Tensor:
        """Column `name` as [N, T]: a per-row [N] column is repeated along its row."""
        tensor = self.column(name, reader)
        return tensor if tensor.dim() > 1 else tensor[:, None].expand(self.mask.shape)

    def rows(self, index: Tensor | slice) -> Decisions:
        """The rows `index` ([M] int or [N] bool or slice), not re-checked. Shared contexts stay shared."""
        changes: dict[str, object] = {}
        for name in SHAPES:
            tensor = self.__dict__[name]
            if tensor is not None:
                changes[name] = tensor[index]
        changes["extras"] = {name: tensor[index] for name, tensor in self.extras.items()}
        if self.context_row is None:
            changes["context"] = {name: tensor[index] for name, tensor in self.context.items()}
        else:
            changes["context_row"] = self.context_row[index]
        return self._of(changes)

    def cut(self, sizes: Sequence[int]) -> list[Decisions]:
        """Consecutive rows, `sizes` of them, which add up to N; views, not copies. Shared contexts stay shared."""
        several = list(sizes)
        parts: list[dict[str, object]] = [{} for _ in several]
        for name in SHAPES:
            if self.__dict__[name] is not None:
                for part, tensor in zip(parts, self.__dict__[name].split(several), strict=True):
                    part[name] = tensor
        shared = self.context_row is not None
        if shared:
            for part, tensor in zip(parts, self.__dict__["context_row"].split(several), strict=True):
                part["context_row"] = tensor
        for room in ("extras",) if shared else ("extras", "context"):
            for part in parts:
                part[room] = {}
            for name, whole in self.__dict__[room].items():
                for part, tensor in zip(parts, whole.split(several), strict=True):
                    part[room][name] = tensor  # type: ignore[index]
        return [self._of(part) for part in parts]

    def _of(self, changes: dict[str, object]) -> Decisions:
        """A copy with some of the rows, which are whole where all are."""
        part = self._copy(changes)
        if self.__dict__.get(_WHOLE):
            part.__dict__[_WHOLE] = True
        return part

    def flatten(self) -> Decisions:
        """Each decided entry as a row of its own: [M, 1] with M = mask.sum(). Contexts must be [N, T, ...]."""
        rows, columns = self.mask.shape
        if self.context_row is not None:
            raise ValueError("flatten needs one context per decision, but context_row shares them; use unit='row'.")
        whole = self.whole
        flat_mask = self.mask.reshape(-1)

        def spread(tensor: Tensor, name: str) -> Tensor:
            if tensor.dim() == 1:
                tensor = tensor[:, None].expand(rows, columns)
            if tensor.shape[:2] != (rows, columns):
                wanted = f"[N, T, ...] = [{rows}, {columns}, ...]"
                raise ValueError(f"flatten needs {name!r} as {wanted}; got {list(tensor.shape)}.")
            flat = tensor.reshape(rows * columns, 1, *tensor.shape[2:])
            return flat if whole else flat[flat_mask]

        changes: dict[str, object] = {}
        for name in SHAPES:
            tensor = self.__dict__[name]
            if tensor is not None:
                changes[name] = spread(tensor, name)
        changes["extras"] = {name: spread(tensor, name) for name, tensor in self.extras.items()}
        changes["context"] = {name: spread(tensor, name) for name, tensor in self.context.items()}
        return self._copy({**changes, _WHOLE: True})

    def cleaned(self) -> Decisions:
        """A copy whose float columns are 0 where `mask` is False, so that no padding reaches a gradient."""
        changes: dict[str, object] = {}
        if self.whole:
            return self
        for name, (_, kind) in SHAPES.items():
            tensor = self.__dict__[name]
            if kind == "float" and tensor is not None:
                mask = self.mask.reshape(*self.mask.shape, *(1,) * (tensor.dim() - 2))
                changes[name] = torch.where(mask, tensor, torch.zeros((), dtype=tensor.dtype, device=tensor.device))
        extras = dict(self.extras)
        for name, tensor in extras.items():
            if tensor.is_floating_point() and tensor.shape[:2] == self.mask.shape:
                # An extra [N, K] may have K = T by chance: only what is not finite is replaced.
                mask = self.mask.reshape(*self.mask.shape, *(1,) * (tensor.dim() - 2))
                zero = torch.zeros((), dtype=tensor.dtype, device=tensor.device)
                extras[name] = torch.where(mask | tensor.isfinite(), tensor, zero)
        return self._copy({**changes, "extras": extras})

    def to_tensors(self) -> dict[str, Tensor]:
        """Everything as one flat mapping, for a safetensors file; `from_tensors` reads it back."""
        flat = {f"column/{name}": self.__dict__[name] for name in SHAPES if self.__dict__[name] is not None}
        flat |= {f"context/{name}": tensor for name, tensor in self.context.items()}
        flat |= {f"extras/{name}": tensor for name, tensor in self.extras.items()}
        if self.context_row is not None:
            flat["context_row"] = self.context_row
        return flat

    @classmethod
    def from_tensors(cls, flat: Columns) -> Decisions:
        """The inverse of `to_tensors`."""
        parts: dict[str, dict[str, Tensor]] = {"column": {}, "context": {}, "extras": {}}
        for name, tensor in flat.items():
            if name != "context_row":
                room, _, key = name.partition("/")
                parts[room][key] = tensor
        context, extras = parts["context"], parts["extras"]
        return cls(**parts["column"], context=context, extras=extras, context_row=flat.get("context_row"))


FIELDS: tuple[str, ...] = tuple(item.name for item in fields(Decisions))


def _padded(tensor: Tensor, columns: int, width: int) -> Tensor:
    """`tensor` [N, T, ...] with T grown to `width` by zeros (False); per-row tensors come back as they are."""
    if tensor.dim() < 2 or tensor.shape[1] != columns or columns == width:
        return tensor
    filler = tensor.new_zeros(len(tensor), width - columns, *tensor.shape[2:])
    return torch.cat([tensor, filler], dim=1)


def concatenate(parts: Sequence[Decisions]) -> Decisions:
    """Rows of all parts under one another, shorter ones padded with mask False.

    Every part must have the same columns, and ids (`group`, `trajectory`) must already be distinct.
    Context tensors are padded to the longest along their second dimension.
    """
    if not parts:
        raise ValueError("concatenate needs at least one Decisions; got an empty sequence.")
    if len(parts) == 1:
        return parts[0]
    width = max(part.mask.shape[1] for part in parts)
    flats = [part.to_tensors() for part in parts]
    names = set(flats[0])
    for flat in flats:
        if set(flat) != names:
            odd = sorted(set(flat) ^ names)
            raise ValueError(f"concatenate: columns {odd} are in some parts only; write them in all or in none.")
    joined: dict[str, Tensor] = {}
    for name in flats[0]:
        tensors = [flat[name] for flat in flats]
        if name == "context_row":
            offsets = [0]
            for part in parts[:-1]:
                offsets.append(offsets[-1] + len(next(iter(part.context.values()))))
            tensors = [tensor + offset for tensor, offset in zip(tensors, offsets, strict=True)]
        elif name.startswith("context/"):
            if tensors[0].dim() > 1:
                longest = max(tensor.shape[1] for tensor in tensors)
                tensors = [_padded(tensor, tensor.shape[1], longest) for tensor in tensors]
        else:
            tensors = [_padded(tensor, part.mask.shape[1], width) for tensor, part in zip(tensors, parts, strict=True)]
        joined[name] = torch.cat(tensors)
    return Decisions.from_tensors(joined)
