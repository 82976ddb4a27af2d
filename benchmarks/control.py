"""Steps per second of PPO: this library, Stable-Baselines3, a hand-written loop, and the environment alone.

    OMP_NUM_THREADS=1 python benchmarks/control.py                     # every workload: about six minutes
    OMP_NUM_THREADS=1 python benchmarks/control.py cartpole --repeats 7
    OMP_NUM_THREADS=1 python benchmarks/control.py cartpole --phases   # where the library's time goes

Same environments side by side, network (64-64 tanh, separate), number of updates, constants and seeds for all
(`control_work.py`, `control_arms.py`). First the gate: on one recorded batch advantages, loss and gradients of all
arms are equal to 1e-6, or nothing is timed (`control_gate.py`). Then two rollouts of warm-up each, and the arms take
turns, A B C D D C B A; steps per second of wall and of processor time, medians and range over the repeats. The
ratios are medians over the repeats too. A busy machine is refused, or marked with --go-on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import ceil
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from control_arms import ARMS, FLOOR, HAND, OURS, PEER, USUAL, Arm
from control_gate import Found, gate
from control_phases import phases
from control_work import WORKS, Work
from report import Ratio, machine, refuse_busy, write

WARM_UP = 2
PACKAGES = ("torch", "gymnasium", "numpy", "stable-baselines3")
Measured = dict[str, list[tuple[float, float]]]
"""By arm, steps per second of wall and of processor time in each repeat."""


def measure(work: Work, arms: Sequence[str], steps: int, repeats: int) -> Measured:
    """Every arm in turn, `repeats` times, over at least `steps` environment steps each."""
    rounds = ceil(steps / work.size)
    ready: dict[str, Arm] = {}
    for name in arms:
        ready[name] = ARMS[name](work, 0, WARM_UP + repeats * rounds)
        ready[name](WARM_UP)
    measured: Measured = {name: [] for name in ready}
    for repeat in range(repeats):
        for name in reversed(arms) if repeat % 2 else arms:
            wall, cpu = time.perf_counter(), time.process_time()
            ready[name](rounds)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            measured[name].append((rounds * work.size / spent[0], rounds * work.size / spent[1]))
    return measured


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per arm."""
    table = []
    for name, found in measured.items():
        walls, cpus = zip(*found, strict=True)
        row: dict[str, Any] = {
            "arm": name,
            "steps/s": round(statistics.median(walls)),
            "lowest to highest": f"{min(walls):.0f} to {max(walls):.0f}",
            "steps per CPU second": round(statistics.median(cpus)),
            "its range": f"{min(cpus):.0f} to {max(cpus):.0f}",
        }
        for other in (PEER, HAND):
            row[f"times as fast as {other}"] = round(faster(measured, name, other), 2) if other in measured else ""
        table.append(row)
    return table


def faster(measured: Measured, name: str, other: str) -> float:
    """How many times as many steps per CPU second, the median over the repeats."""
    pairs = zip(measured[name], measured[other], strict=True)
    return statistics.median(mine[1] / theirs[1] for mine, theirs in pairs)


def ratios(work: Work, measured: Measured) -> list[Ratio]:
    """The library beside its peer and the hand-written loop."""
    found = []
    for other, target in ((PEER, work.fast), (HAND, work.close and 1 / work.close)):
        if OURS in measured and other in measured:
            speeds = (statistics.median(wall for wall, _ in measured[name]) for name in (OURS, other))
            mine, theirs = (f"{speed:,.0f} steps/s" for speed in speeds)
            found.append(Ratio(work.title, other, mine, theirs, round(faster(measured, OURS, other), 2), target))
    return found


def notes(work: Work, checked: Mapping[str, Found], steps: int, repeats: int, mark: str) -> str:
    """What was done, and what the gate found."""
    floor = ", the bare environment is the floor" if FLOOR in USUAL else ""
    gates = "; ".join(
        f"{name}: " + ", ".join(f"{quantity} {difference:.0e}" for quantity, difference in found.items())
        for name, found in checked.items()
    )
    return (
        f"{mark}{work.environments} x {work.steps} steps per rollout, {work.passes} passes of {work.minibatches} "
        f"minibatches, actor and critic 64-64 tanh, learning rate {work.learning_rate:g}"
        f"{' falling linearly' if work.anneal != 'none' else ''}, entropy bonus {work.entropy:g}, "
        f"value clip {work.value_clip or 'none'}. Median of {repeats} turns of {ceil(steps / work.size) * work.size} "
        f"steps{floor}; times as fast by processor time.\n\nGate, largest differences on a recorded batch: {gates}."
    )


def show_phases(name: str, work: Work) -> None:
    """The table of the library's phases."""
    write(f"phases_{name}", f"Where a step of {work.title} goes", phases(work), machine(*PACKAGES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="work", help=f"of {', '.join(WORKS)}; all when none is named")
    parser.add_argument("--arms", nargs="+", default=list(USUAL), choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=25_000, help="environment steps of an arm per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--go-on", action="store_true", help="measure on a busy machine too, and say so in the table")
    parser.add_argument("--phases", action="store_true", help="only show where the library's time goes")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.works if name not in WORKS]
    if unknown:
        parser.error(f"work must be of {', '.join(WORKS)}; got {', '.join(unknown)}.")
    torch.set_num_threads(1)
    has_peer = find_spec("stable_baselines3") is not None
    if not has_peer:
        print("stable-baselines3 is not installed and left out; make install-bench brings it.", file=sys.stderr)
    arms = [name for name in chosen.arms if has_peer or PEER not in name]
    for name in chosen.works or WORKS:
        work = WORKS[name]
        if chosen.phases:
            show_phases(name, work)
            continue
        mark = refuse_busy(chosen.go_on)
        checked = gate(work, has_peer)
        measured = measure(work, arms, chosen.steps, chosen.repeats)
        text = notes(work, checked, chosen.steps, chosen.repeats, mark)
        write(f"control_{name}", work.title, rows(measured), machine(*PACKAGES), text, ratios(work, measured))
        show_phases(name, work)


if __name__ == "__main__":
    main()
