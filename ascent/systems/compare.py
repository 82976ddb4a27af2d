"""Several arms on equal budgets, several seeds each: one table, pictures, CSV and JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.dynamics import at_common_budget, measured
from ascent.evaluation.page import write_page
from ascent.evaluation.panels import draw_dynamics, draw_ends
from ascent.evaluation.plot import COLOURS, plot
from ascent.evaluation.table import Row, compare_table, screen, write_csv, write_json
from ascent.plugins.ray import on_ray
from ascent.systems import config as configuration
from ascent.systems.about import about, command, per
from ascent.systems.arms import Chosen, arm_config, choose
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.systems.device import settled
from ascent.systems.run import Result, resume, stored, train
from ascent.training.learn import Diverged


@dataclass(frozen=True)
class Comparison:
    """What `compare` leaves: the table's rows, and its folder with pictures, CSV, JSON and every run.

    Attributes:
        rows: of the table.
        arms: curves up to the common budget.
        folder: of the results.
        left_out: why a method is not among `all`, by slug.
    """

    rows: list[Row]
    arms: list[Arm]
    folder: Path
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)


def compare(
    arms: Sequence[str],
    base: Config,
    seeds: int = 3,
    folder: Path | None = None,
    jobs: int | None = None,
    *,
    without: Sequence[str] = (),
    reference: str | None = None,
    page: Path | None = None,
    ray: str | None = None,
) -> Comparison:
    """Train every arm with every seed and compare the held-out score at the largest budget that all reached.

    A run that is there already is not run again, an unfinished one is resumed: a stopped comparison goes on.

    Args:
        arms: methods, `slug` or `slug:name=value,...`, or the one word `all`: every method that the world can feed.
        base: everything else; its method, seed and output are replaced.
        seeds: runs per arm, >= 1.
        folder: of the results; runs/compare-<world> when not given.
        jobs: worker processes; as many as there are cores when not given, one torch thread each.
        without: methods that `all` leaves out.
        reference: the arm that differences are to; the first one when not given, with `all` grpo or ppo.
        page: a Markdown file that is written of the result, with its numbers and pictures beside it.
        ray: run them on Ray instead: "local", or a cluster's address; the table is the same.

    Raises:
        BadConfig: an arm is unknown, twice there, or not to be built; before anything runs.
        Diverged: a run of the reference, or of every other arm. Another arm is left out then, and named.
    """
    if seeds < 1:
        raise BadConfig(f"seeds must be >= 1; got {seeds}.")
    if jobs is not None and jobs < 1:
        raise BadConfig(f"jobs must be >= 1 worker processes; got {jobs}.")
    if not base.evaluate_every:
        raise BadConfig("evaluate_every must be >= 1 in a comparison, which compares held-out scores; got 0.")
    if page is not None and page.suffix != ".md":
        raise BadConfig(f"page must be a Markdown file, name.md; got {page}.")
    chosen = choose(arms, base, without, reference)
    folder = folder or Path(f"runs/compare-{base.world}")
    numbers = range(base.seed, base.seed + seeds)
    runs: dict[tuple[str, int], Config] = {}
    for arm in chosen.arms:
        for seed in numbers:
            output = str(folder / arm.replace(":", "-").replace(",", "-") / f"seed{seed}")
            runs[arm, seed] = dataclasses.replace(
                arm_config(base, arm), seed=seed, output=output, threads=1, quiet=True, tensorboard=False
            )
    console = Console()
    for slug, reason in chosen.left_out.items():
        console.print(f"left out: {slug}: {reason}", highlight=False)
    _warm_up(next(iter(runs.values())))
    results, diverged = _run_all(runs, jobs or len(os.sched_getaffinity(0)), console, ray)
    chosen = _without(chosen, diverged)
    for slug in diverged:
        console.print(f"left out: {slug}: {chosen.left_out[slug]}", highlight=False)
    found = at_common_budget(
        [Arm(arm, [_seed(results[arm, seed], runs[arm, seed]) for seed in numbers]) for arm in chosen.arms]
    )
    score = next(iter(results.values())).score
    told = {
        "command": command(arms, base, seeds, without, reference),
        "score": f"held-out {score}",
        "limits": [0.0, 1.0] if score.startswith("pass@") else None,
        "budget": found[0].seeds[0].curve[-1][0],
        "seeds": seeds,
    }
    document = about(base, chosen, [runs[run].folder for run in results], told)
    rows = _leave(found, document, folder)
    pictures = {name: folder / f"{name}.png" for name in ("ends", "dynamics")}
    console.print(screen(rows, document["score"]))
    console.print(f"pictures: {', '.join(str(path) for path in sorted(folder.glob('*.png')))}", highlight=False)
    if page is not None:
        write_page(folder / "comparison.json", pictures, page)
        console.print(f"page: {page}", highlight=False)
    return Comparison(rows, found, folder, chosen.left_out)


def _without(chosen: Chosen, diverged: Mapping[str, Diverged]) -> Chosen:
    """The arms of which no run diverged."""
    left = tuple(arm for arm in chosen.arms if arm not in diverged)
    if diverged and (chosen.arms[0] not in left or len(left) == 1):
        raise next(iter(diverged.values()))
    return Chosen(left, {**chosen.left_out, **{arm: f"diverged: {error}" for arm, error in diverged.items()}})


def _leave(found: Sequence[Arm], document: Mapping[str, Any], folder: Path) -> list[Row]:
    """Table, pictures, CSV and JSON in the folder; comparison.png only of so few arms that one panel shows them."""
    score, title, kinds, unit = document["score"], document["world"], document["kinds"], document["unit"]
    limits = tuple(document["limits"] or (-math.inf, math.inf))
    rows = compare_table(found, limits=limits)
    if len(found) <= len(COLOURS):
        plot(found, folder / "comparison.png", budget=unit, score=score, title=title, limits=limits)
    draw_ends(found, folder / "ends.png", kinds=kinds, score=score, title=title, limits=limits)
    path = folder / "dynamics.png"
    draw_dynamics(found, path, kinds=kinds, budget=unit, score=score, title=title, limits=limits)
    write_csv(rows, folder / "comparison.csv")
    write_json(rows, folder / "comparison.json", found, document)
    return rows


def _warm_up(config: Config) -> None:
    """Make the embedded model once, not in every worker."""
    if isinstance(config, LanguageConfig) and config.model == "embedded":
        from ascent.systems.language import own_rewards, world
        from ascent.systems.warm_up import warmed_up
        from ascent.training.processes import Processes

        task = world(config, own_rewards(config))
        warmed_up(task, config.warm_up_steps, 0, config.temperature, False, Console(), Processes())


def _run_all(
    runs: dict[tuple[str, int], Config], jobs: int, console: Console, ray: str | None
) -> tuple[dict[tuple[str, int], Result], dict[str, Diverged]]:
    """Every run in worker processes; seeds of all arms side by side, so that machine noise is shared.

    Returns the results, and by arm why a run of it has none.
    """
    order = sorted(runs, key=lambda run: run[1])
    calls = [runs[run].to_json() for run in order]
    results: dict[tuple[str, int], Result] = {}
    diverged: dict[str, Diverged] = {}
    with contextlib.ExitStack() as stack:
        finished = in_processes(calls, jobs) if ray is None else on_ray(attempted, calls, jobs, ray)
        stack.enter_context(contextlib.closing(finished))
        bar = stack.enter_context(Progress(console=console))
        task = bar.add_task("runs", total=len(runs))
        for place, result in finished:
            if isinstance(result, Diverged):
                diverged.setdefault(order[place][0], result)
            else:
                results[order[place]] = result
            bar.advance(task)
    return results, diverged


def in_processes(calls: Sequence[dict[str, object]], jobs: int) -> Generator[tuple[int, Result | Diverged]]:
    """(place, result) of each run as it is finished, in worker processes of this machine."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(calls)), mp_context=context) as pool:
        futures = {pool.submit(attempted, call): place for place, call in enumerate(calls)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def attempted(values: dict[str, object]) -> Result | Diverged:
    """`run_or_resume`; a run that diverged is an answer too, so that the others go on."""
    try:
        return run_or_resume(values)
    except Diverged as error:
        return error


def run_or_resume(values: dict[str, object]) -> Result:
    """A run's result: read where it is finished, resumed where it was stopped, else trained."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    plain = dict(values)
    config = settled(configuration.make(str(plain.pop("family")), plain))
    folder = config.folder
    if (folder / "config.json").exists():
        before = configuration.read(folder / "config.json")
        if dataclasses.replace(before, output=config.output) != config:
            raise BadConfig(f"{folder} holds a run of another configuration; choose another --output, or remove it.")
        return stored(config) if (folder / "result.json").exists() else resume(folder, quiet=True)
    return train(config)


def _seed(result: Result, config: Config) -> Seed:
    name, size = f"held_out/{result.score}", per(config)
    curve = [(float(line["consumed"]) * size, float(line[name])) for line in result.metrics if name in line]
    if not curve:
        raise BadConfig("a comparison needs held-out evaluations; set --evaluate-every to 1 or more.")
    return Seed(config.seed, curve, curve[-1][1], measured(result.metrics, result.score, size))
