"""Training seconds until a task is solved: this library beside Stable-Baselines3, the same tuned settings.

    OMP_NUM_THREADS=1 python benchmarks/time_to_reward.py                       # every task
    OMP_NUM_THREADS=1 python benchmarks/time_to_reward.py cartpole --seeds 40

Settings of rl-baselines3-zoo (`TASKS`). At fixed steps every arm plays the same held-out episodes of its seed with
deterministic actions, off the clock; a run ends at the task's mean return. Arms take turns seed by seed, so that all
see the same machine; on two cores two runs go side by side. The zoo tuned its Pendulum settings for generalised
state-dependent exploration (gSDE), which the library does not have: that is an arm of its own beside the two equal
ones. Runs that never get there count as infinite. The steps that a seed needs spread by a factor of ten on CartPole, so
it runs 15 seeds, and beside every ratio stands its interval by bootstrap over the seeds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import inf, isfinite
from multiprocessing import get_context
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from control_arms import OURS, PEER, assembly, peer_model
from control_work import Work
from numpy.typing import NDArray
from off_policy_arms import TO_REWARD, until
from report import Ratio, machine, refuse_busy, write

from ascent.evaluation.intervals import bounds
from ascent.evaluation.returns import evaluate_returns
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import Actor
from ascent.sampling.vector import ActingPolicy
from ascent.training.loop import Loop
from ascent.worlds.gym import Environments

SDE = "stable-baselines3 with gSDE"


@dataclass(frozen=True)
class Task:
    """What is to be reached.

    Attributes:
        work: environment, sizes and constants; rounds: at most so many.
        solved: mean return over the held-out `episodes` that ends a run; every: rounds between two evaluations. A
            good policy's Pendulum returns spread by 100 around -180, so few episodes would say more of the starts.
        sde: the zoo's own settings explore by gSDE, as a further arm.
        seeds: runs of each arm.
    """

    title: str
    work: Work
    rounds: int
    solved: float
    episodes: int
    every: int
    sde: bool = False
    seeds: int = 5


ON_POLICY: Mapping[str, Task] = {
    "cartpole": Task(
        "PPO CartPole-v1 to a mean return of 475",
        Work("CartPole-v1", 8, 32, 20, 1, discount=0.98, trace=0.8, learning_rate=1e-3, anneal="both"),
        rounds=390,
        solved=475.0,
        episodes=20,
        every=10,
        seeds=15,
    ),
    "pendulum": Task(
        "PPO Pendulum-v1 to a mean return of -200",
        Work("Pendulum-v1", 4, 1024, 10, 64, discount=0.9, learning_rate=1e-3),
        rounds=24,
        solved=-200.0,
        episodes=100,
        every=1,
        sde=True,
    ),
}


@dataclass(frozen=True)
class OffPolicy:
    """SAC with the same sizes and rates in all arms (`off_policy_arms.TO_REWARD`)."""

    title: str
    solved: float = -200.0
    episodes: int = 100
    every: int = 250
    budget: int = 15_000
    seeds: int = 5


TASKS: Mapping[str, Task | OffPolicy] = {**ON_POLICY, "sac": OffPolicy("SAC Pendulum-v1 to a mean return of -200")}


class Solved(Exception):
    """The run has reached the return."""


@dataclass
class Clock:
    """Training time; stopped while something else happens."""

    wall: float = 0.0
    cpu: float = 0.0
    since: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self.since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall += time.perf_counter() - self.since[0]
        self.cpu += time.process_time() - self.since[1]


def held_out(policy: ActingPolicy, task: Task, seed: int) -> float:
    """Mean return of a policy of either library; how hard the starts are differs by seed, not by arm."""
    return evaluate_returns(policy, task.work.env, task.episodes, seed, environments=10).mean


Run = Callable[[int, Clock], int | None]
"""A seed's run on a clock: environment steps until solved, or None."""


@dataclass
class Theirs:
    """A policy of Stable-Baselines3 as the evaluation sees it: its most likely actions."""

    policy: Any
    head: Head

    def numpy_actor(self) -> Actor:
        @torch.no_grad()
        def outputs(observation: NDArray[Any]) -> NDArray[Any]:
            features = self.policy.extract_features(torch.from_numpy(observation), self.policy.pi_features_extractor)
            found: NDArray[Any] = self.policy.action_net(self.policy.mlp_extractor.forward_actor(features)).numpy()
            return found

        return Actor(self.head, None, outputs)


def ours(task: Task, seed: int, clock: Clock) -> int | None:
    """Environment steps of the library until solved, or None."""
    system = assembly(task.work, seed, task.rounds).system
    policy: Any = system.models["policy"]

    class Watch:
        def updated(self, loop: Loop) -> None: ...
        def evaluated(self, loop: Loop, scores: Any) -> None: ...

        def stepped(self, loop: Loop, metrics: Any) -> None:
            if loop.step % task.every == 0:
                clock.stop()
                if held_out(policy, task, seed) >= task.solved:
                    raise Solved
                clock.start()

    loop = Loop(system, [Watch()])
    clock.start()
    try:
        loop.run()
    except Solved:
        return loop.step * task.work.size
    clock.stop()
    return None


def peer(task: Task, seed: int, clock: Clock, **more: Any) -> int | None:
    """The same with Stable-Baselines3."""
    from stable_baselines3.common.callbacks import BaseCallback

    class Watch(BaseCallback):
        rollouts, solved = 0, False

        def _on_step(self) -> bool:
            return not self.solved

        def look(self) -> None:
            if self.rollouts and self.rollouts % task.every == 0:
                clock.stop()
                self.solved = held_out(Theirs(model.policy, head), task, seed) >= task.solved
                clock.start()

        def _on_rollout_start(self) -> None:
            # A rollout starts after the update before it, so these are whole rounds.
            self.look()
            if self.solved:
                clock.stop()
            self.rollouts += 1

        def _on_training_end(self) -> None:
            if not self.solved:
                self.look()
                self.rollouts += 1
                clock.stop()

    watch, head = Watch(), Head.of(Environments(task.work.env).actions)
    model = peer_model(task.work, seed, task.rounds, **more)
    clock.start()
    model.learn(task.rounds * task.work.size, callback=watch)
    return (watch.rollouts - 1) * task.work.size if watch.solved else None


def off_policy(task: OffPolicy, arm: str, seed: int, clock: Clock) -> int | None:
    """The same for SAC."""
    return until(arm, seed, clock, task.solved, task.every, task.budget, task.episodes)


def arms(task: Task | OffPolicy) -> dict[str, Run]:
    """The arms of a task that can run here."""
    found: dict[str, Run]
    if isinstance(task, OffPolicy):
        found = {name: partial(off_policy, task, name) for name in (OURS, PEER)}
    else:
        found = {OURS: partial(ours, task), PEER: partial(peer, task)}
        if task.sde:
            found[SDE] = partial(peer, task, use_sde=True, sde_sample_freq=4)
    if find_spec("stable_baselines3") is None:
        print("stable-baselines3 is not installed and left out; make install-bench brings it.", file=sys.stderr)
        return {OURS: found[OURS]}
    return found


def told(task: Task | OffPolicy) -> str:
    """Its settings in a sentence."""
    look = f"{task.episodes} held-out episodes"
    if isinstance(task, OffPolicy):
        widths = "-".join(map(str, TO_REWARD.hidden))
        return (
            f"Actor and two critics {widths}, batch {TO_REWARD.batch}, one update a step after {TO_REWARD.start}, "
            f"learning rate {TO_REWARD.learning_rate:g}, learned temperature; at most {task.budget} steps; {look} "
            f"every {task.every} steps, off the clock."
        )
    work = task.work
    return (
        f"{work.environments} x {work.steps} steps per rollout, {work.passes} passes of {work.minibatches} "
        f"minibatches, discount {work.discount:g}, trace {work.trace:g}, learning rate {work.learning_rate:g}"
        f"{', it and the clip range falling to 0' if work.anneal == 'both' else ''}; at most "
        f"{task.rounds * work.size} steps; {look} every {task.every * work.size} steps, off the clock."
    )


def timed(name: str, arm: str, seed: int) -> dict[str, Any]:
    """One run: steps and seconds, infinite where it never got there."""
    torch.set_num_threads(1)
    clock = Clock()
    steps = arms(TASKS[name])[arm](seed, clock)
    print(f"{arm} seed {seed}: {steps} steps, {clock.wall:.2f} s wall, {clock.cpu:.2f} s CPU", flush=True)
    if steps is None:
        return {"seed": seed, "steps": inf, "wall": inf, "cpu": inf}
    return {"seed": seed, "steps": steps, "wall": clock.wall, "cpu": clock.cpu}


def run(name: str, seeds: int, at_once: int) -> dict[str, list[dict[str, Any]]]:
    """By arm, steps and seconds of every seed; `at_once` runs side by side, each in a process of its own."""
    jobs = [(name, arm, seed) for seed in range(seeds) for arm in arms(TASKS[name])]
    if at_once == 1:
        done = [timed(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
            done = list(pool.map(timed, *zip(*jobs, strict=True)))
    runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms(TASKS[name])}
    for (_, arm, _), found in zip(jobs, done, strict=True):
        runs[arm].append(found)
    return runs


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def median(found: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(each[key] for each in found))


def rows(runs: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per arm."""
    return [
        {
            "arm": name,
            "solved": f"{sum(isfinite(each['steps']) for each in found)}/{len(found)}",
            "median steps": median(found, "steps"),
            "median seconds": round(median(found, "wall"), 2),
            "median CPU seconds": round(median(found, "cpu"), 2),
            "steps (CPU seconds), by seed": ", ".join(f"{each['steps']:.0f} ({each['cpu']:.1f})" for each in found),
        }
        for name, found in runs.items()
    ]


def spread(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """The interval of the ratio of their median processor time to ours, seeds drawn in pairs."""

    def log_ratio(seconds: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        middle = np.log(np.median(seconds, axis=axis))
        return np.asarray(middle[..., 1] - middle[..., 0])

    pairs = [[own["cpu"], other["cpu"]] for own, other in zip(mine, theirs, strict=True)]
    if len(pairs) < 2 or not np.isfinite(pairs).all():
        return "no interval: too few runs, or some never got there"
    low, high = np.exp(bounds(pairs, "time to reward", statistic=log_ratio))
    return f"{low:.2f} to {high:.2f}"


def intervals(runs: Mapping[str, list[dict[str, Any]]]) -> str:
    """A sentence with the interval beside every peer."""
    found = [f"{name} {spread(runs[OURS], theirs)}" for name, theirs in runs.items() if name != OURS]
    return f" 95% interval of the ratio, by bootstrap over the seeds: {', '.join(found)}." if found else ""


def ratios(task: Task | OffPolicy, runs: Mapping[str, list[dict[str, Any]]]) -> list[Ratio]:
    """Beside each peer that is there and got there; the arm with equal settings is the target."""
    found, mine = [], median(runs[OURS], "cpu")
    for name in runs:
        theirs = median(runs[name], "cpu")
        if name != OURS and isfinite(mine) and isfinite(theirs):
            target = 1.0 if name == PEER else None
            own, other = (f"{median(runs[arm], 'wall'):.1f} s" for arm in (OURS, name))
            found.append(Ratio(task.title, name, own, other, round(theirs / mine, 2), target))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="task", help=f"of {', '.join(TASKS)}; all when none is named")
    parser.add_argument("--seeds", type=int, help="runs of each arm; a task has its own number")
    parser.add_argument("--at-once", type=int, default=min(2, cores()), help="runs side by side, one to a core")
    parser.add_argument("--go-on", action="store_true", help="measure on a busy machine too, and say so in the table")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.tasks if name not in TASKS]
    if unknown:
        parser.error(f"task must be of {', '.join(TASKS)}; got {', '.join(unknown)}.")
    mark = refuse_busy(chosen.go_on)
    for name in chosen.tasks or TASKS:
        task = TASKS[name]
        seeds = chosen.seeds or task.seeds
        runs = run(name, seeds, chosen.at_once)
        beside = f", {chosen.at_once} runs side by side, one to a core" if chosen.at_once > 1 else ""
        notes = f"{mark}{told(task)} Medians of {seeds} seeds{beside}; the ratio is of processor time.{intervals(runs)}"
        packages = ("torch", "gymnasium", "stable-baselines3")
        write(f"time_{name}", task.title, rows(runs), machine(*packages), notes, ratios(task, runs))


if __name__ == "__main__":
    main()
