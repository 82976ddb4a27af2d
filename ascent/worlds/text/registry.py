"""Text tasks by name."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ascent.worlds.text.arithmetic import Arithmetic
from ascent.worlds.text.countdown import Countdown
from ascent.worlds.text.sorting import Sorting
from ascent.worlds.text.task import TextTask

TASKS: Mapping[str, Callable[..., TextTask]] = MappingProxyType(
    {"arithmetic": Arithmetic, "countdown": Countdown, "sorting": Sorting}
)


class UnknownTask(ValueError):
    """No task has this name."""


def names() -> tuple[str, ...]:
    """Every task by name: our own, then reasoning-gym's where it is installed."""
    return (*TASKS, *_gym_names())


def task(name: str, seed: int = 0, **options: Any) -> TextTask:
    """Build a task: `arithmetic`, `sorting`, `countdown`, or any data set of reasoning-gym.

    Our own names win over reasoning-gym's; `reasoning_gym/<name>` says the latter outright.

    Raises:
        UnknownTask: no such name; the nearest one is suggested.
        TypeError, ValueError: an option that the task does not have, or out of its range.
    """
    if name in TASKS:
        return TASKS[name](seed=seed, **options)
    bare = name.removeprefix("reasoning_gym/")
    if bare in _gym_names():
        from ascent.worlds.text.reasoning import ReasoningGym

        return ReasoningGym(bare, seed=seed, **options)
    near = difflib.get_close_matches(bare, names(), n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownTask(f"task must be one of {', '.join(TASKS)} or a reasoning-gym data set; got {name!r}.{hint}")


def _gym_names() -> tuple[str, ...]:
    if importlib.util.find_spec("reasoning_gym") is None:
        return ()
    from ascent.worlds.text.reasoning import data_sets

    return data_sets()
