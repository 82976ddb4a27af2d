"""Every method by its slug, with what a reader and a command line need to know of it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ascent.core.method import Method

Factory = Callable[..., Method]


class UnknownMethod(ValueError):
    """No method has this slug."""


@dataclass(frozen=True)
class Parameter:
    """One keyword argument of a method: its name, default, annotation and documentation."""

    name: str
    default: Any
    annotation: str
    doc: str


@dataclass(frozen=True)
class Card:
    """What is known of a method without building it.

    Attributes:
        slug: name on the command line and of its file and page.
        title, paper, year, url: of the source; `paper` is "authors, venue".
        family: "language", "control", "both" or "supervised".
        status: "baseline" or "paper".
        build: keyword arguments -> Method.
        parameters: the keyword arguments, in order.
    """

    slug: str
    title: str
    paper: str
    year: int
    url: str
    family: str
    status: str
    build: Factory
    parameters: tuple[Parameter, ...]


_CARDS: dict[str, Card] = {}


def _parameters(build: Factory) -> tuple[Parameter, ...]:
    """Parameters of a factory, documented by the `Args:` section of its docstring."""
    text = inspect.getdoc(build) or ""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): ((?:.*\n?)(?: {6,}.*\n?)*)", section.group(1), re.MULTILINE) if section else []
    docs = {name: " ".join(doc.split()) for name, doc in entries}
    found = []
    for item in inspect.signature(build).parameters.values():
        if item.default is inspect.Parameter.empty:
            raise TypeError(f"parameter {item.name!r} of {build.__name__} needs a default (the paper's).")
        if item.name not in docs:
            raise TypeError(f"parameter {item.name!r} of {build.__name__} is not documented under Args.")
        found.append(Parameter(item.name, item.default, str(item.annotation), docs[item.name]))
    return tuple(found)


def register(
    slug: str, *, title: str, paper: str, year: int, url: str, family: str, status: str = "paper"
) -> Callable[[Factory], Factory]:
    """Register a factory of keyword arguments under `slug`; its docstring's `Args:` documents them."""

    def add(build: Factory) -> Factory:
        if slug in _CARDS and _CARDS[slug].build.__module__ != build.__module__:
            modules = f"{_CARDS[slug].build.__module__} and {build.__module__}"
            raise ValueError(f"method {slug!r} is registered twice: {modules}.")
        _CARDS[slug] = Card(slug, title, paper, year, url, family, status, build, _parameters(build))
        return build

    return add


def discover(package: str = "ascent.methods") -> None:
    """Import every module of a package so that its methods register."""
    module = importlib.import_module(package)
    for item in pkgutil.iter_modules(module.__path__):
        importlib.import_module(f"{package}.{item.name}")


def cards() -> tuple[Card, ...]:
    """All registered methods, by slug."""
    discover()
    return tuple(_CARDS[slug] for slug in sorted(_CARDS))


def card(slug: str) -> Card:
    """The card of one method. Raises UnknownMethod with the nearest name."""
    discover()
    if slug not in _CARDS:
        near = difflib.get_close_matches(slug, _CARDS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownMethod(f"method must be one of {', '.join(sorted(_CARDS))}; got {slug!r}.{hint}")
    return _CARDS[slug]


def method(slug: str, **parameters: Any) -> Method:
    """Build a method by name with the paper's parameters as keyword arguments.

    Raises:
        UnknownMethod: no such slug; the nearest one is suggested.
        TypeError: no such parameter; the nearest one is suggested.
        ValueError: a parameter outside its range.
    """
    entry = card(slug)
    names = [item.name for item in entry.parameters]
    for name in parameters:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"method {slug!r} has no parameter {name!r}; it has {', '.join(names) or 'none'}.{hint}")
    defaults = {item.name: item.default for item in entry.parameters}
    built = entry.build(**parameters)
    return dataclasses.replace(built, slug=slug, parameters={**defaults, **parameters})
