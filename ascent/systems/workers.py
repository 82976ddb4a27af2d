"""An experiment's runs side by side in worker processes, and what a result must say about where it was made."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from ascent.systems.manifest import PACKAGES, version


def spread(slug: str, function: str, calls: Sequence[tuple[Any, ...]], jobs: int | None = None) -> list[Any]:
    """`function(*call)` of `reproductions/<slug>/experiment.py` for every call, in the order of the calls.

    Args:
        slug: of the experiment.
        function: name of a function of that module; its results must be picklable.
        calls: arguments of each call; draws must come from seeds among them, so that order and place do not matter.
        jobs: worker processes, one torch thread each; as many as there are cores when not given, 0 runs them here.
    """
    if jobs == 0:
        return [call_experiment(slug, function, call) for call in calls]
    context = multiprocessing.get_context("spawn")
    count = min(jobs or len(os.sched_getaffinity(0)), max(len(calls), 1))
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        return list(pool.map(call_experiment, [slug] * len(calls), [function] * len(calls), calls))


def call_experiment(slug: str, function: str, call: tuple[Any, ...]) -> Any:
    """One call, with one torch thread: many threads are slower on small tensors."""
    from ascent.systems.reproduce import experiment

    torch.set_num_threads(1)
    return vars(experiment(slug))[function](*call)


def provenance() -> dict[str, Any]:
    """Versions, kind of machine and date of a measured result."""
    cores = len(os.sched_getaffinity(0))
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()} CPU, {platform.system()}, {cores} cores, 1 torch thread a run",
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES if version(package)},
    }
