"""Calls on Ray: workers of this machine, or of a cluster by its address."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

LOCAL = "local"


def on_ray(
    function: Callable[[Any], Any], calls: Sequence[Any], jobs: int, address: str = LOCAL
) -> Generator[tuple[int, Any]]:
    """(place, `function(calls[place])`) as each is finished, one core a call.

    Args:
        function: at the top of a module that every node can import.
        calls: one argument each.
        jobs: cores that a local Ray offers; a cluster knows its own.
        address: "local" starts Ray here, "auto" or "<host>:<port>" or "ray://..." joins a cluster.

    Raises:
        ImportError: Ray is not installed.
        Exception: what a call raised, without Ray's wrapping.
    """
    try:
        import ray
        from ray.exceptions import RayTaskError
    except ImportError as error:
        raise ImportError("--ray needs Ray: pip install 'ascent-rl[ray]'") from error

    started = not ray.is_initialized()
    if started:
        local = {"num_cpus": jobs, "include_dashboard": False} if address == LOCAL else {"address": address}
        ray.init(log_to_driver=False, logging_level="warning", **local)
    try:
        # A fresh worker for each call: threads and generators are those of a process of its own.
        task = ray.remote(num_cpus=1, max_calls=1)(there)
        place_of = {task.remote(os.getcwd(), function, call): place for place, call in enumerate(calls)}
        waiting = list(place_of)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1)
            try:
                yield place_of[done[0]], ray.get(done[0])
            except RayTaskError as error:
                raise error.cause from None
    finally:
        if started:
            ray.shutdown()


def there(folder: str, function: Callable[[Any], Any], call: Any) -> Any:
    """One call in the driver's working directory: run folders and reward files are named from there."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"{folder} does not exist on Ray node {os.uname().nodename}; start the comparison in a directory that all "
            "nodes share."
        )
    os.chdir(folder)
    return function(call)
