"""What runs in verl, and how: `python -m ascent.plugins.verl methods | overrides <method> | check <overrides>`.

methods                         every method, and why not where verl cannot feed it
overrides <method> [name=value] the command-line overrides of verl that run a method, one a line
check <overrides of verl>       composes verl's ppo_trainer configuration with them and finds contradictions
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import OmegaConf

from ascent.core.registry import cards
from ascent.plugins.verl.check import compose, problems
from ascent.plugins.verl.functions import plain
from ascent.plugins.verl_feed import overrides, support


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if command == "methods":
        for item in cards():
            found = support(item.build())
            print(f"{item.slug:22s} {'yes' if found.supported else 'no ':3s}  {found.reason}")
        return 0
    if command == "overrides" and rest:
        print(*overrides(rest[0], plain(OmegaConf.from_dotlist(rest[1:]))), sep="\n")
        return 0
    if command == "check" and rest:
        found = problems(compose(rest))
        for problem in found:
            print(f"- {problem}", file=sys.stderr)
        print("not ready" if found else "the configuration fits its method")
        return 1 if found else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
