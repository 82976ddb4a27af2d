"""Command-line words as a configuration."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ascent.systems import config as configuration
from ascent.systems.config import FAMILIES, BadConfig, Config


def parse(words: Sequence[str], program: str = "ascent train") -> Config:
    """The configuration of a train command: flags, over `--config FILE` where one is given."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    stored: Config | None = None
    if "--config" in words:
        place = words.index("--config")
        if place + 1 == len(words):
            raise BadConfig("config needs a file: --config runs/<run>/config.json")
        stored = configuration.read(Path(words[place + 1]))
        words[place : place + 2] = []
        stored = dataclasses.replace(stored, output=None)
    control = isinstance(stored, FAMILIES["control"]) if stored else any(_flag(word) == "env" for word in words)
    kind = FAMILIES["control" if control else "language"]
    _refuse_unknown(words, kind)
    arguments: dict[str, Any] = {} if stored is None else {"default": stored}
    return tyro.cli(Annotated[kind, tyro.conf.arg(name="")], args=words, prog=program, **arguments)  # type: ignore[return-value]


def _flag(word: str) -> str | None:
    return word[2:].partition("=")[0].replace("-", "_") if word.startswith("--") else None


def _refuse_unknown(words: Sequence[str], kind: type) -> None:
    """Say the nearest flag, and the family that a misplaced one belongs to."""
    names = {item.name for item in dataclasses.fields(kind)}
    for word in words:
        flag = _flag(word)
        if flag is None or flag in names or flag == "help" or flag.removeprefix("no_") in names:
            continue
        near = difflib.get_close_matches(flag, names, n=1)
        other = [
            family for family, some in FAMILIES.items() if flag in {item.name for item in dataclasses.fields(some)}
        ]
        hint = f" Did you mean --{near[0].replace('_', '-')}?" if near else ""
        hint = f" It belongs to {other[0]} runs." if other else hint
        raise BadConfig(f"unknown flag --{flag.replace('_', '-')}.{hint} `ascent train --help` lists all.")
