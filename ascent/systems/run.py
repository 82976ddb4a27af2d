"""A run: from a configuration to a run folder, and on from a killed one."""

from __future__ import annotations

import contextlib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ascent.core.method import Method
from ascent.core.registry import card
from ascent.evaluation.picture import draw
from ascent.systems import config as configuration
from ascent.systems import device
from ascent.systems.assembly import Assembly
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.systems.manifest import composition, manifest, write
from ascent.systems.stepwise import ANSWERS
from ascent.training import checkpoint
from ascent.training.loop import Loop, Watcher
from ascent.training.processes import Processes
from ascent.training.progress import ProgressBar
from ascent.training.recorder import METRICS, Recorder, read
from ascent.training.saver import Interrupted, Saver

WHOLE = {
    "props": "props",
    "sac": "off_policy",
    "td3": "off_policy",
    "ddpg": "off_policy",
    "bapo": "bapo",
    "kdrl": "kdrl",
    "capo": "capo",
    "p3o": "p3o",
    "stabilizing_rl": "stabilizing_rl",
    "submodular_rl": "submodular_rl",
    "ggtd": "ggtd",
    "vagram": "vagram",
    "yann_rl": "yann_rl",
    "bayesian_network_marl": "bayesian_network_marl",
    "otr": "supervised",
    "sft": "supervised",
}
"""Methods that are whole systems, by the module with their assembly."""


GROVES = ("control", "submodular_rl")
"""Assemblies whose one policy may be trees."""


class FolderExists(FileExistsError):
    """The run folder is there already."""


@dataclass(frozen=True)
class Result:
    """What a run left.

    Attributes:
        folder: the run folder.
        score: name of the held-out score.
        before, after: its first and last measurement; None where nothing was evaluated.
        metrics: every line of metrics.jsonl.
        picture: path of the picture.
        model: folder of the trained policy.
    """

    folder: Path
    score: str
    before: float | None
    after: float | None
    metrics: list[dict[str, Any]]
    picture: Path
    model: Path


def train(config: Config, method: Method | None = None) -> Result:
    """Train into a new run folder, by the configured method or by a composed one.

    Raises:
        BadConfig: before anything heavy loads.
        FolderExists: the run folder exists.
        Diverged: loss or gradient stopped being finite; the last good checkpoint stays.
    """
    config = device.settled(config)
    folder = config.folder
    processes = Processes.launched(device.place(config))
    if folder.exists() and any(folder.iterdir()):
        raise FolderExists(
            f"run folder {folder} exists; continue it with `ascent resume {folder}`, choose another with --output, "
            "or remove it."
        )
    processes.wait()
    method = config.composed() if method is None else config.applied(method)
    assembly = assemble(config, method, processes)
    if processes.main:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "config.json", config.to_json())
        write(folder / "manifest.json", manifest(config, method))
    return _run(config, assembly, processes, None)


def resume(folder: Path, quiet: bool = False, method: Method | None = None) -> Result:
    """Go on from the newest readable checkpoint of a run folder, to the same end.

    Raises:
        BadConfig: the folder holds no run, or one by a method that was composed otherwise.
        CorruptCheckpoint: no checkpoint is readable.
    """
    for name in ("config.json", "manifest.json"):
        if not (folder / name).exists():
            raise BadConfig(f"{folder} is no run folder: it holds no {name}. `ascent train` makes one.")
    config = configuration.read(folder / "config.json")
    if config.folder.resolve() != folder.resolve():
        config = _moved(config, folder)
    method = config.composed() if method is None else config.applied(method)
    recorded = json.loads((folder / "manifest.json").read_text())["method"]["composition"]
    if recorded != composition(method):
        raise BadConfig(
            f"{folder} was trained by another composition of {method.slug!r} than the registered one (see its "
            "manifest.json); resume it from Python with the same one: ascent.resume(folder, method)."
        )
    config = device.settled(config)
    processes = Processes.launched(device.place(config))
    console = _console(quiet or config.quiet)
    path, state = checkpoint.newest(
        folder / "checkpoints", lambda text: console.print(text, highlight=False), processes.device
    )
    console.print(f"resuming from {path}", highlight=False)
    return _run(config, assemble(config, method, processes), processes, state)


def _moved(config: Config, folder: Path) -> Config:
    values = {**config.to_json(), "output": str(folder)}
    return configuration.make(values.pop("family"), values)


def assemble(config: Config, method: Method, processes: Processes) -> Assembly:
    """The system of a configuration; a method that is a whole system brings its own assembly."""
    if config.threads:
        torch.set_num_threads(config.threads)
    control = isinstance(config, ControlConfig)
    # A language method that was given the credit of steps has no system of its own in an environment.
    bare = control and card(config.method).family == "language" and not ANSWERS & method.needs
    name = "control" if bare else WHOLE.get(config.method, "control" if control else "language")
    if isinstance(config, ControlConfig) and config.policy == "trees" and name not in GROVES:
        raise BadConfig(
            f"policy must be mlp for method {config.method!r}: its system learns by networks. Drop --policy trees, or "
            "take a method of one policy, such as ppo."
        )
    module = importlib.import_module(f"ascent.systems.{name}")
    built: Assembly = module.build(config, method, processes)
    return built


def _console(quiet: bool) -> Console:
    return Console(quiet=quiet)


def _run(config: Config, assembly: Assembly, processes: Processes, state: dict[str, Any] | None) -> Result:
    folder, main = config.folder, processes.main
    console = _console(config.quiet or not main)
    watchers: list[Watcher] = []
    with contextlib.ExitStack() as stack:
        loop = Loop(assembly.system, watchers, processes, config.evaluate_every)
        if state is not None:
            loop.load_state_dict(state)
        bar = stack.enter_context(ProgressBar(console, f"{config.method} {config.world}", assembly.unit))
        saver = stack.enter_context(
            Saver(
                folder / "checkpoints",
                config.save_every,
                config.keep,
                lambda text: console.print(text, highlight=False),
            )
        )
        if main:
            # A run that was killed before its first update evaluates anew, so not even step 0 is kept.
            since = loop.step if loop.updates else -1
            recorder = Recorder(folder, tensorboard=config.tensorboard, wandb_project=config.wandb, since=since)
            stack.callback(recorder.close)
            watchers.append(recorder)
        watchers += [bar, saver]
        if state is None:
            saver.save(loop)
        try:
            loop.run()
        except Interrupted:
            console.print(f"saved; go on with: ascent resume {folder}", highlight=False)
            raise
        saver.save(loop)
    return _finish(config, assembly, console, main)


def _result(folder: Path, score: str) -> Result:
    metrics = read(folder / METRICS)
    scores = [line[f"held_out/{score}"] for line in metrics if f"held_out/{score}" in line]
    before, after = (scores[0], scores[-1]) if scores else (None, None)
    return Result(folder, score, before, after, metrics, folder / "curves.png", folder / "policy")


def stored(config: Config) -> Result:
    """The result of a run that is finished."""
    return _result(config.folder, json.loads((config.folder / "result.json").read_text())["score"])


def _finish(config: Config, assembly: Assembly, console: Console, main: bool) -> Result:
    folder = config.folder
    result = _result(folder, assembly.score)
    metrics, before, after = result.metrics, result.before, result.after
    if main:
        assembly.save(result.model)
        draw(metrics, result.picture, f"{config.method} on {config.world}, seed {config.seed}", assembly.score)
        write(folder / "result.json", {"score": assembly.score, "before": before, "after": after})
        if before is not None and after is not None:
            console.print(f"held-out {assembly.score}: {before:.4g} before, {after:.4g} after", highlight=False)
        console.print(
            f"run folder: {folder}\npolicy:     {result.model}\npicture:    {result.picture}", highlight=False
        )
    return result
