"""Several arms on equal budgets, several seeds each: one table, one picture, CSV and JSON."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.plot import plot
from ascent.evaluation.table import Row, compare_table, screen, write_csv, write_json
from ascent.systems import config as configuration
from ascent.systems.assembly import refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.systems.device import settled
from ascent.systems.run import WHOLE, Result, resume, stored, train


@dataclass(frozen=True)
class Comparison:
    """What `compare` leaves: the table's rows, and its folder with picture, CSV, JSON and every run."""

    rows: list[Row]
    arms: list[Arm]
    folder: Path


def arm_config(base: Config, arm: str) -> Config:
    """The configuration of an arm written `slug` or `slug:name=value,name=value`."""
    slug, _, text = arm.partition(":")
    own = tuple(entry for entry in text.split(",") if entry)
    return dataclasses.replace(base, method=slug, set=(*base.set, *own))


def compare(
    arms: Sequence[str], base: Config, seeds: int = 3, folder: Path | None = None, jobs: int | None = None
) -> Comparison:
    """Train every arm with every seed and compare the held-out score at the largest budget that all reached.

    A run that is there already is not run again, an unfinished one is resumed: a stopped comparison goes on.

    Args:
        arms: methods, `slug` or `slug:name=value,...`; the first one is the reference of the differences.
        base: everything else; its method, seed and output are replaced.
        seeds: runs per arm, >= 1.
        folder: of the results; runs/compare-<world> when not given.
        jobs: worker processes; as many as there are cores when not given, one torch thread each.

    Raises:
        BadConfig: an arm is unknown, twice there, or not to be built; before anything runs.
    """
    if seeds < 1:
        raise BadConfig(f"seeds must be >= 1; got {seeds}.")
    if jobs is not None and jobs < 1:
        raise BadConfig(f"jobs must be >= 1 worker processes; got {jobs}.")
    if not base.evaluate_every:
        raise BadConfig("evaluate_every must be >= 1 in a comparison, which compares held-out scores; got 0.")
    if len(set(arms)) < len(arms) or not arms:
        raise BadConfig(f"arms must be one or more different methods; got {', '.join(arms) or 'none'}.")
    folder = folder or Path(f"runs/compare-{base.world}")
    runs: dict[tuple[str, int], Config] = {}
    for arm in arms:
        for seed in range(base.seed, base.seed + seeds):
            output = str(folder / arm.replace(":", "-").replace(",", "-") / f"seed{seed}")
            config = dataclasses.replace(
                arm_config(base, arm), seed=seed, output=output, threads=1, quiet=True, tensorboard=False
            )
            if WHOLE.get(config.method) != "supervised":
                refuse_unfed(config, config.composed())
            runs[arm, seed] = config
    console = Console()
    _warm_up(next(iter(runs.values())))
    results = _run_all(runs, jobs or len(os.sched_getaffinity(0)), console)
    found = [
        Arm(arm, [_seed(results[arm, seed], seed) for seed in range(base.seed, base.seed + seeds)]) for arm in arms
    ]
    found = at_common_budget(found)
    score = next(iter(results.values())).score
    limits = (0.0, 1.0) if score.startswith("pass@") else (-math.inf, math.inf)
    rows = compare_table(found, limits=limits)
    unit = "prompts" if isinstance(base, LanguageConfig) else "environment steps"
    plot(found, folder / "comparison.png", budget=unit, score=f"held-out {score}", title=base.world, limits=limits)
    write_csv(rows, folder / "comparison.csv")
    write_json(rows, folder / "comparison.json", found)
    console.print(screen(rows, f"held-out {score}"))
    console.print(f"picture: {folder / 'comparison.png'}", highlight=False)
    return Comparison(rows, found, folder)


def _warm_up(config: Config) -> None:
    """Make the embedded model once, not in every worker."""
    if isinstance(config, LanguageConfig) and config.model == "embedded":
        from ascent.systems.language import own_rewards, world
        from ascent.systems.warm_up import warmed_up
        from ascent.training.processes import Processes

        task = world(config, own_rewards(config))
        warmed_up(task, config.warm_up_steps, 0, config.temperature, False, Console(), Processes())


def _run_all(runs: dict[tuple[str, int], Config], jobs: int, console: Console) -> dict[tuple[str, int], Result]:
    """Every run in worker processes; seeds of all arms side by side, so that machine noise is shared."""
    order = sorted(runs, key=lambda run: run[1])
    results: dict[tuple[str, int], Result] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(runs)), mp_context=context) as pool, Progress(console=console) as bar:
        task = bar.add_task("runs", total=len(runs))
        futures = {pool.submit(run_or_resume, runs[run].to_json()): run for run in order}
        try:
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                bar.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def run_or_resume(values: dict[str, object]) -> Result:
    """A run's result: read where it is finished, resumed where it was stopped, else trained."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    plain = dict(values)
    config = settled(configuration.make(str(plain.pop("family")), plain))
    folder = config.folder
    if (folder / "config.json").exists():
        before = configuration.read(folder / "config.json")
        if before != config:
            raise BadConfig(f"{folder} holds a run of another configuration; choose another --output, or remove it.")
        return stored(config) if (folder / "result.json").exists() else resume(folder, quiet=True)
    return train(config)


def _seed(result: Result, seed: int) -> Seed:
    name = f"held_out/{result.score}"
    curve = [(float(line["consumed"]), float(line[name])) for line in result.metrics if name in line]
    if not curve:
        raise BadConfig("a comparison needs held-out evaluations; set --evaluate-every to 1 or more.")
    return Seed(seed, curve, curve[-1][1])


def at_common_budget(arms: Sequence[Arm]) -> list[Arm]:
    """Every curve up to the largest budget that all runs reached, and the score there.

    Refilled prompts count for the arm that drew them, so evaluations of different arms fall on different budgets; at
    the common one the score lies on the line between the evaluations before and after it.
    """
    limit = min(run.curve[-1][0] for arm in arms for run in arm.seeds)

    def cut(run: Seed) -> Seed:
        budgets, scores = zip(*run.curve, strict=True)
        final = float(np.interp(limit, budgets, scores))
        return Seed(run.seed, [*(point for point in run.curve if point[0] < limit), (limit, final)], final)

    return [Arm(arm.name, [cut(run) for run in arm.seeds]) for arm in arms]

