"""The Python face of the command line: `ascent.train`, `ascent.compare`, `ascent.resume`.

What they need is imported when they are called, so that `import ascent` stays light.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascent.core.method import Method

if TYPE_CHECKING:
    from ascent.systems.compare import Comparison
    from ascent.systems.config import Config
    from ascent.systems.run import Result


def train(method: str | Method, **options: Any) -> Result:
    """Train and return what the run left.

    Args:
        method: a slug, or a composed Method (`ascent.method("grpo").replace(advantage=...)`).
        options: fields of `LanguageConfig`, or of `ControlConfig` where `env` is given; `parameters`, a dictionary
            of the method's keyword arguments; `reward` may be functions of a module as well as "file.py:function".

    Raises:
        BadConfig: an option is unknown or out of range; before anything heavy loads.
    """
    from ascent.systems.run import train as run

    given = method if isinstance(method, Method) else None
    return run(_config(given.slug if given else str(method), options), given)


def resume(folder: str | Path, method: Method | None = None, quiet: bool = False) -> Result:
    """Go on with a stopped or killed run; `method` is the composed one that it was started with, if it was."""
    from ascent.systems.run import resume as run

    return run(Path(folder), quiet, method)


def compare(
    methods: Sequence[str] | str,
    seeds: int = 3,
    folder: str | Path | None = None,
    jobs: int | None = None,
    *,
    without: Sequence[str] = (),
    reference: str | None = None,
    page: str | Path | None = None,
    ray: str | None = None,
    **options: Any,
) -> Comparison:
    """Train several arms on equal budgets; a table, pictures, CSV and JSON.

    Args:
        methods: slugs, or `slug:name=value,name=value`; differences are to the first. Or "all": every method that the
            task or environment can feed.
        seeds: runs per arm.
        folder: of the results.
        jobs: worker processes.
        without: methods that "all" leaves out.
        reference: the arm that differences are to.
        page: a Markdown file that is written of the result.
        ray: "local" or a cluster's address runs them on Ray (extra `ray`).
        options: of `train`, for every arm.
    """
    from ascent.systems.arms import placeholder
    from ascent.systems.compare import compare as run

    words = [methods] if isinstance(methods, str) else list(methods)
    base = _config(placeholder(words, reference), options)
    places = [None if path is None else Path(path) for path in (folder, page)]
    return run(words, base, seeds, places[0], jobs, without=without, reference=reference, page=places[1], ray=ray)


def _config(slug: str, options: dict[str, Any]) -> Config:
    from ascent.systems.config import make

    values = dict(options)
    parameters = values.pop("parameters", {})
    values["set"] = (*values.get("set", ()), *(f"{name}={json.dumps(value)}" for name, value in parameters.items()))
    if "reward" in values:
        rewards = values["reward"] if isinstance(values["reward"], list | tuple) else [values["reward"]]
        values["reward"] = tuple(_location(reward) for reward in rewards)
    return make("control" if "env" in values else "language", {"method": slug, **values})


def _location(reward: str | Callable[..., Any]) -> str:
    """`file.py:function`, so that the run folder says what was run and a resumed run finds it."""
    if isinstance(reward, str):
        return reward
    file = inspect.getsourcefile(reward)
    if file is None or "<" in reward.__qualname__:
        raise ValueError(
            f"reward {reward!r} must be a function at the top of a file, so that a resumed run can load it."
        )
    return f"{file}:{reward.__qualname__}"
