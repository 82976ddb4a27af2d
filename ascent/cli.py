"""The command line: ascent train | compare | reproduce | methods | resume."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

import ascent
from ascent.core.registry import cards
from ascent.systems import config as configuration
from ascent.systems.config import FAMILIES, BadConfig, Config

USAGE = """ascent: every policy gradient on one small core

  ascent train --method grpo --task arithmetic          a language model learns a text task
  ascent train --method ppo --env CartPole-v1           a controller learns a Gymnasium environment
  ascent train --config runs/<run>/config.json          the same run again (other flags override)
  ascent compare grpo rloo --task arithmetic --seeds 3  arms side by side: table, picture, CSV, JSON
  ascent reproduce <slug>                               a paper's small honest experiment
  ascent methods [--json]                               what there is
  ascent resume runs/<run>                              go on where a run was stopped or killed

`ascent train --help` lists the flags of language runs, `ascent train --env ID --help` those of control runs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of the user are one line, without a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    if words[0] == "--version":
        print(ascent.__version__)
        return 0
    commands = _commands()
    if words[0] not in commands:
        near = difflib.get_close_matches(words[0], commands, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"ascent: command must be one of {', '.join(commands)}; got {words[0]!r}.{hint}", file=sys.stderr)
        return 2
    try:
        return commands[words[0]](words[1:])
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ArithmeticError, RuntimeError, TypeError, LookupError) as error:
        if "--debug" in words:
            raise
        print(f"ascent: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadConfig) else 1


def _commands() -> dict[str, Callable[[Sequence[str]], int]]:
    return {"train": _train, "compare": _compare, "reproduce": _reproduce, "methods": _methods, "resume": _resume}


def _train(words: Sequence[str]) -> int:
    from ascent.systems.run import train

    train(parse(words))
    return 0


def parse(words: Sequence[str], program: str = "ascent train") -> Config:
    """The configuration of a train command: flags, over `--config FILE` where one is given."""
    words = list(words)
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
        if flag is None or flag in names or flag in ("help", "debug") or flag.removeprefix("no_") in names:
            continue
        near = difflib.get_close_matches(flag, names, n=1)
        other = [family for family, some in FAMILIES.items() if flag in {item.name for item in dataclasses.fields(some)}]
        hint = f" Did you mean --{near[0].replace('_', '-')}?" if near else ""
        hint = f" It belongs to {other[0]} runs." if other else hint
        raise BadConfig(f"unknown flag --{flag.replace('_', '-')}.{hint} `ascent train --help` lists all.")


def _resume(words: Sequence[str]) -> int:
    from ascent.systems.run import resume

    if len(words) != 1 or words[0].startswith("-"):
        print("usage: ascent resume runs/<run>", file=sys.stderr)
        return 0 if words[:1] == ["--help"] else 2
    resume(Path(words[0]))
    return 0


def _methods(words: Sequence[str]) -> int:
    found = [describe(card) for card in cards()]
    if "--json" in words:
        print(json.dumps(found, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "title", "paper", "year", "family", "status")
    for item in found:
        table.add_row(item["slug"], item["title"], item["paper"], str(item["year"]), item["family"], item["status"])
    Console().print(table)
    return 0


def describe(card: Any) -> dict[str, Any]:
    """A method for `ascent methods --json`."""
    built = card.build()
    return {
        "slug": card.slug,
        "title": card.title,
        "paper": card.paper,
        "year": card.year,
        "url": card.url,
        "family": card.family,
        "status": card.status,
        "parts": {path: type(part).__name__ for path, part in built.parts.items()},
        "needs": sorted(built.needs),
        "parameters": [
            {"name": item.name, "default": item.default, "type": item.annotation, "doc": item.doc}
            for item in card.parameters
        ],
    }


def _compare(words: Sequence[str]) -> int:
    from ascent.systems.compare import command

    return command(words)


def _reproduce(words: Sequence[str]) -> int:
    from ascent.systems.reproduce import command

    return command(words)


if __name__ == "__main__":
    raise SystemExit(main())
