"""Reward functions with TRL's signature: `f(prompts, completions, **columns) -> list[float | None]`.

Every mistake that a function can make is reported with its name and the mend; none reaches the advantage.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

RewardFunction = Callable[..., Any]


class RewardError(RuntimeError):
    """A reward function raised, hung, or returned something that is no list of scores."""


def load(location: str) -> RewardFunction:
    """The function behind `file.py:function`. The file is run: give only files that you trust.

    Raises:
        ValueError: the location has another form, or the file holds no such function.
        FileNotFoundError: no such file.
    """
    place, separator, name = location.rpartition(":")
    if not separator or not place.endswith(".py") or not name:
        raise ValueError(f"reward must look like file.py:function; got {location!r}.")
    path = Path(place)
    if not path.is_file():
        raise FileNotFoundError(f"reward file {place!r} does not exist; give its path from the present folder.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"reward file {place!r} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise RewardError(f"reward file {place!r} fails on import with {type(error).__name__}: {error}.") from error
    functions = [key for key, item in vars(module).items() if callable(item) and not key.startswith("_")]
    found = vars(module).get(name)
    if not callable(found):
        near = get_close_matches(name, functions, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{place!r} has no function {name!r}; it has {', '.join(functions) or 'none'}.{hint}")
    return cast(RewardFunction, found)


def total(each: Sequence[Sequence[float | None]], weights: Sequence[float]) -> list[float | None]:
    """Weighted sums over the functions that apply to a row; None where none does."""
    sums: list[float | None] = []
    for scores in zip(*each, strict=True):
        applied = [weight * score for weight, score in zip(weights, scores, strict=True) if score is not None]
        sums.append(sum(applied) if applied else None)
    return sums


@dataclass(frozen=True)
class Rewards:
    """One reward function or several, sync or async, with weights.

    Args:
        functions: each `f(prompts, completions, **columns)` returning one number or None (not applicable) a
            completion. A function without `**columns` is given only the columns that it names.
        weights: one a function; empty means 1 each.
        names: one a function; empty takes the functions' own.
        timeout: seconds that one function may take for one batch, > 0.
        messages: give chat prompts their completions as messages, as TRL does.

    Raises:
        ValueError: no functions, or weights or names of another number.
    """

    functions: tuple[RewardFunction, ...]
    weights: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    timeout: float = 60.0
    messages: bool = True

    def __post_init__(self) -> None:
        count = len(self.functions)
        if count == 0:
            raise ValueError("functions must hold at least one reward function; got none.")
        if not self.timeout > 0:
            raise ValueError(f"timeout must be > 0 seconds; got {self.timeout!r}.")
        own = [str(getattr(function, "__name__", type(function).__name__)) for function in self.functions]
        unique = tuple(name if own.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(own))
        object.__setattr__(self, "weights", tuple(self.weights) or (1.0,) * count)
        object.__setattr__(self, "names", tuple(self.names) or unique)
        for name in ("weights", "names"):
            if len(self.__dict__[name]) != count:
                raise ValueError(f"{name} must hold one entry a function ({count}); got {self.__dict__[name]!r}.")
        if not all(math.isfinite(weight) for weight in self.weights):
            raise ValueError(f"weights must be finite numbers; got {self.weights!r}.")

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[float | None]:
        """The weighted sum of all functions, None where none applies."""
        return total(self.each(prompts, completions, **columns), self.weights)

    def each(
        self, prompts: Sequence[Any], completions: Sequence[str], **columns: Sequence[Any]
    ) -> list[list[float | None]]:
        """The checked scores of each function.

        Raises:
            RewardError: a function raised, took longer than `timeout`, returned another number of scores than
                there are completions, or a score that is no finite number.
        """
        given: list[Any] = list(completions)
        if self.messages:
            given = [
                text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
                for prompt, text in zip(prompts, completions, strict=True)
            ]
        offered = {"prompts": list(prompts), "completions": given, **columns}
        return [
            checked(name, self._call(name, function, offered), len(given))
            for name, function in zip(self.names, self.functions, strict=True)
        ]

    def _call(self, name: str, function: RewardFunction, offered: dict[str, Any]) -> Any:
        arguments = _accepted(name, function, offered)
        outcome: dict[str, Any] = {}

        def work() -> None:
            try:
                result = function(**arguments)
                outcome["result"] = asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result
            except Exception as error:
                outcome["error"] = error

        # A daemon thread: a function that hangs must not keep the program from ending.
        thread = threading.Thread(target=work, name=f"reward {name}", daemon=True)
        thread.start()
        thread.join(self.timeout)
        if thread.is_alive():
            raise RewardError(
                f"reward {name!r} took longer than timeout={self.timeout:g} s for one batch of completions; make it "
                "faster, give it a time limit of its own, or raise the timeout."
            )
        if "error" in outcome:
            error = outcome["error"]
            raise RewardError(
                f"reward {name!r} raised {type(error).__name__}: {error}. Repair it, or return None for completions "
                "that it cannot judge."
            ) from error
        return outcome["result"]


async def _awaited(result: Any) -> Any:
    return await result


def _accepted(name: str, function: RewardFunction, offered: dict[str, Any]) -> dict[str, Any]:
    """What a function asks for among what is offered."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return offered
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for item in parameters:
        if item.kind in named and item.default is inspect.Parameter.empty and item.name not in offered:
            raise RewardError(
                f"reward {name!r} asks for {item.name!r}, which the data does not have; it has {', '.join(offered)}. "
                "Add the column to the data, or give the parameter a default."
            )
    if any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters):
        return offered
    return {item.name: offered[item.name] for item in parameters if item.kind in named and item.name in offered}


def checked(name: str, scores: Any, count: int) -> list[float | None]:
    """Scores as a list of finite numbers or None, one a completion. Raises RewardError, which names the function."""
    if isinstance(scores, str | bytes | dict) or not hasattr(scores, "__iter__"):
        raise RewardError(
            f"reward {name!r} returned {type(scores).__name__}; return a list with one number or None a completion."
        )
    listed = list(scores)
    if len(listed) != count:
        raise RewardError(
            f"reward {name!r} returned {len(listed)} scores for {count} completions; return exactly one a completion, "
            "None where it does not apply."
        )
    values: list[float | None] = []
    for place, score in enumerate(listed):
        if score is None:
            values.append(None)
            continue
        try:
            number = math.nan if isinstance(score, str | bytes) else float(score)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise RewardError(
                f"reward {name!r} returned {score!r} for completion {place}; each score must be a finite number, "
                "or None where it does not apply."
            )
        values.append(number)
    return values
