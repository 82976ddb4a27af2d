"""The command line: ascent train | compare | reproduce | entropy | methods | resume."""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ascent
from ascent.core.registry import cards
from ascent.systems.arguments import parse
from ascent.systems.config import BadConfig

USAGE = """ascent: every policy gradient on one small core

  ascent train --method grpo --task arithmetic          a language model learns a text task
  ascent train --method ppo --env CartPole-v1           a controller learns a Gymnasium environment
  ascent train --config runs/<run>/config.json          the same run again (other flags override)
  ascent compare grpo rloo --task arithmetic --seeds 3  arms side by side: table, pictures, CSV, JSON
  ascent compare all --task arithmetic                  every method that the task can feed
  ascent reproduce <slug>                               a paper's small honest experiment
  ascent entropy tokens --task arithmetic               which tokens fork; also: survival, temperature
  ascent methods [--json]                               what there is
  ascent resume runs/<run>                              go on where a run was stopped or killed

`ascent train --help` lists the flags of language runs, `ascent train --env ID --help` those of control runs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors of the user are one line, without a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != "--debug"]
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
    except (ValueError, OSError, ArithmeticError, RuntimeError, TypeError, LookupError, ImportError) as error:
        if "--debug" in given:
            raise
        print(f"ascent: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadConfig) else 1


def _commands() -> dict[str, Callable[[Sequence[str]], int]]:
    return {
        "train": _train,
        "compare": _compare,
        "reproduce": _reproduce,
        "entropy": _entropy,
        "methods": _methods,
        "resume": _resume,
    }


def _train(words: Sequence[str]) -> int:
    from ascent.systems.run import train

    train(parse(words))
    return 0


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
    width = shutil.get_terminal_size().columns
    for item in found:
        line = f"{item['slug']:<21}{item['year']}  {item['family']:<11} {item['status']:<9} {item['title']}"
        print(line if len(line) <= width else line[: width - 1] + "…")
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
    from ascent.systems.arms import placeholder
    from ascent.systems.compare import compare

    parser = argparse.ArgumentParser(
        "ascent compare", allow_abbrev=False, epilog="Further flags are those of `ascent train`, for every arm."
    )
    parser.add_argument(
        "arms",
        nargs="+",
        help="methods: slug, or slug:name=value,name=value; the first is the reference. Or `all`: every method that "
        "the task or environment can feed",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs per arm")
    parser.add_argument("--output", type=Path, help="folder of the results, runs/compare-<world>")
    parser.add_argument("--jobs", type=int, help="worker processes, as many as there are cores")
    parser.add_argument("--without", nargs="+", default=[], help="methods that `all` leaves out")
    parser.add_argument("--reference", help="the arm that differences are to; of `all` grpo, in control ppo")
    parser.add_argument("--page", type=Path, help="write the result as a Markdown page, numbers and pictures beside it")
    parser.add_argument("--ray", nargs="?", const="local", help="run on Ray: here, or on the cluster at this address")
    own = ("seeds", "output", "jobs", "without", "reference", "page", "ray", "help")
    flag = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    known = parser.parse_known_args([*words[:flag], *_only(words[flag:], own, True)])[0]
    rest = _only(words[flag:], own, False)
    base = parse(["--method", placeholder(known.arms, known.reference), *rest], "ascent compare")
    compare(
        known.arms,
        base,
        known.seeds,
        known.output,
        known.jobs,
        without=known.without,
        reference=known.reference,
        page=known.page,
        ray=known.ray,
    )
    return 0


def _only(words: Sequence[str], names: Sequence[str], among: bool) -> list[str]:
    """The flags called `names` with their values, or all the others."""
    taken: list[str] = []
    mine = False
    for word in words:
        if word.startswith("-"):
            mine = word.lstrip("-").partition("=")[0] in names
        if mine == among:
            taken.append(word)
    return taken


def _entropy(words: Sequence[str]) -> int:
    from ascent.systems.entropy_study import command

    return command(words)


def _reproduce(words: Sequence[str]) -> int:
    from ascent.systems.reproduce import available, reproduce

    parser = argparse.ArgumentParser("ascent reproduce", allow_abbrev=False)
    parser.add_argument("slug", help=f"one of {', '.join(available())}")
    parser.add_argument("--output", type=Path, help="folder of the results, runs/reproduce-<slug>")
    known = parser.parse_args(list(words))
    print(f"results: {reproduce(known.slug, known.output)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
