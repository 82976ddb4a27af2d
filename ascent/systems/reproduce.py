"""`ascent reproduce <slug>`: a paper's small honest experiment, from the repository's `reproductions` folder."""

from __future__ import annotations

import difflib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ascent.systems.config import BadConfig


def home() -> Path:
    """The folder of all experiments: beside the package in a clone, or in the present folder."""
    beside = Path(__file__).parents[2] / "reproductions"
    return beside if beside.is_dir() else Path("reproductions")


def available() -> list[str]:
    """Slugs that have an experiment."""
    return sorted(path.parent.name for path in home().glob("*/experiment.py"))


def experiment(slug: str) -> ModuleType:
    """The module `reproductions/<slug>/experiment.py`, with its `run(folder)`.

    Raises:
        BadConfig: there is none; the nearest name is suggested.
    """
    found = available()
    if slug not in found:
        near = difflib.get_close_matches(slug, found, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadConfig(
            f"slug must be one of {', '.join(found) or 'none here'}; got {slug!r}.{hint} "
            "Experiments live in the repository's reproductions folder: run this from a clone."
        )
    path = home() / slug / "experiment.py"
    # As a package, so that a long experiment may have files beside it: `from .strings import ...`.
    name = f"reproductions.{slug}"
    specification = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def reproduce(slug: str, folder: Path | None = None) -> Path:
    """Run the experiment; writes result.json, its pictures and verdict.md into `folder` and returns it.

    Without `folder` the results go to runs/reproduce-<slug>; the committed ones are beside the experiment.
    """
    module = experiment(slug)
    target = folder or Path(f"runs/reproduce-{slug}")
    target.mkdir(parents=True, exist_ok=True)
    module.run(target)
    return target
