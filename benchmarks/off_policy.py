"""Environment steps per second of SAC, each with one update: this library, Stable-Baselines3 and a hand-written loop.

    OMP_NUM_THREADS=1 python benchmarks/off_policy.py
    OMP_NUM_THREADS=1 python benchmarks/off_policy.py --profile      # the library's functions by their own time

Pendulum, 1 environment, actor and two critics 256-256, batch 256, one update a step (`off_policy_arms.py`). First the
gate: on one recorded batch the losses and every gradient of critics, policy and temperature are equal to those of the
hand-written loop to 1e-6, or nothing is timed. Then the arms take turns, A B C C B A, over `--steps` each. The matrix
products of an update alone are the floor.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from off_policy_arms import ARMS, FLOOR, HAND, OURS, PEER, Arm, Ours, Setting
from report import Ratio, machine, refuse_busy, write
from scratch_sac import ScratchSAC

from ascent.core.decisions import Decisions
from ascent.training.learn import Learn
from ascent.training.program import Repeat

TOLERANCE = 1e-6
TITLE = "SAC Pendulum-v1, 1 environment, one update a step"
Measured = dict[str, list[tuple[float, float]]]


def learners(arm: Ours) -> dict[str, Learn]:
    """The library's learning stages by name."""
    block = arm.train.stages[0]
    assert isinstance(block, Repeat)
    updates = block.stages[1]
    assert isinstance(updates, Repeat)
    return {stage.name: stage for stage in updates.stages if isinstance(stage, Learn)}


def doubled(decisions: Decisions) -> Decisions:
    """The same numbers in float64."""
    flat = {name: x.double() if x.is_floating_point() else x for name, x in decisions.to_tensors().items()}
    return Decisions.from_tensors(flat)


def gate(setting: Setting) -> dict[str, float]:
    """Largest relative differences of losses and gradients from the hand-written loop, on one drawn batch.

    Raises:
        SystemExit: one is above the tolerance: the arms would not do the same work.
    """
    arm = Ours(setting, 0)
    arm.advance(setting.start + 100)
    for model in arm.system.models.values():
        model.double()
    stages, round_ = learners(arm), 10**6
    shared: Any = stages["critic"].memory
    replay = shared.memory
    drawn = shared.annotate(doubled(replay.draw(round_)), round_)
    hand = ScratchSAC(setting.env, setting.hidden, setting.batch, setting.capacity, setting.start).twin()
    models = arm.system.models
    pairs = [(hand.actor, models["policy"]), (hand.targets, models["critic_target"])]
    for mine, model in [*pairs, (hand.critics, models["critic"]), ([hand.log_temperature], models["temperature"])]:
        _adopt(mine, model)
    batch = {name: drawn.context[name][:, 0] for name in ("observation", "next_observation")}
    batch |= {"action": drawn.action[:, 0], "reward": drawn.reward[:, 0], "terminated": drawn.terminated[:, 0].double()}
    batch["noise"] = drawn.column("action_noise")[:, 0].double()
    batch["next_noise"] = drawn.column("next_action_noise")[:, 0].double()
    actor_loss, log_prob = hand.actor_loss(batch)
    losses = {"critic": hand.critic_loss(batch), "policy": actor_loss, "temperature": hand.temperature_loss(log_prob)}
    drawn = drawn.with_extras({"own_log_prob": log_prob[:, None]})
    found: dict[str, float] = {}
    for name, theirs in losses.items():
        stage = stages[name]
        rows = stage.method.credit(drawn)
        loss, _ = stage.method.loss(stage.learner.evaluate(rows, stage.method.evaluates), rows)
        loss.backward()
        theirs.backward()
        moved = {"critic": hand.critics, "policy": hand.actor, "temperature": [hand.log_temperature]}[name]
        ours = [parameter.grad for _, parameter in _ordered(stage.model)]
        found[f"{name} loss"] = float((loss - theirs).detach().abs() / theirs.detach().abs().clamp(min=1e-12))
        largest = max(float(parameter.grad.abs().max()) for parameter in moved if parameter.grad is not None)
        found[f"{name} gradient"] = (
            max(
                float((mine - other.grad).abs().max())
                for mine, other in zip(ours, moved, strict=True)
                if mine is not None and other.grad is not None
            )
            / largest
        )
    wrong = {name: difference for name, difference in found.items() if not difference <= TOLERANCE}
    if wrong:
        raise SystemExit(f"the gate is shut: {wrong} differ from the hand-written loop, so nothing is timed.")
    return found


def _ordered(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """Weights and biases in turn, by layer."""
    named = list(model.named_parameters())
    if any(name.startswith("weight.") for name, _ in named):
        named.sort(key=lambda pair: (int(pair[0].split(".")[1]), pair[0].startswith("bias")))
    return named


def _adopt(mine: Sequence[torch.Tensor], model: torch.nn.Module) -> None:
    for tensor, (_, parameter) in zip(mine, _ordered(model), strict=True):
        tensor.data.copy_(parameter.data)


def measure(setting: Setting, names: Sequence[str], steps: int, repeats: int) -> Measured:
    """By arm, steps per second of wall and of processor time in each repeat."""
    arms: dict[str, Arm] = {name: ARMS[name](setting, 0) for name in names}
    for arm in arms.values():
        arm.advance(setting.start + 100)
    measured: Measured = {name: [] for name in names}
    for repeat in range(repeats):
        for name in reversed(names) if repeat % 2 else names:
            wall, cpu = time.perf_counter(), time.process_time()
            arms[name].advance(steps)
            measured[name].append((steps / (time.perf_counter() - wall), steps / (time.process_time() - cpu)))
    return measured


def rows(measured: Measured) -> list[dict[str, Any]]:
    """One row per arm."""
    table = []
    for name, found in measured.items():
        walls, cpus = zip(*found, strict=True)
        row: dict[str, Any] = {
            "arm": name,
            "steps/s": round(statistics.median(walls), 1),
            "lowest to highest": f"{min(walls):.0f} to {max(walls):.0f}",
            "steps per CPU second": round(statistics.median(cpus), 1),
        }
        for other in (PEER, HAND):
            row[f"times as fast as {other}"] = round(faster(measured, name, other), 2) if other in measured else ""
        table.append(row)
    return table


def faster(measured: Measured, name: str, other: str) -> float:
    """How many times as many steps per CPU second, the median over the repeats."""
    return statistics.median(x[1] / y[1] for x, y in zip(measured[name], measured[other], strict=True))


def ratios(measured: Measured) -> list[Ratio]:
    """The library beside its peer and the hand-written loop."""
    found = []
    for other, target in ((PEER, 1.5), (HAND, None)):
        if OURS in measured and other in measured:
            speeds = [statistics.median(wall for wall, _ in measured[name]) for name in (OURS, other)]
            mine, theirs = (f"{speed:,.0f} steps/s" for speed in speeds)
            found.append(Ratio(TITLE, other, mine, theirs, round(faster(measured, OURS, other), 2), target))
    return found


def profile(setting: Setting, steps: int) -> None:
    """Print the library's functions by their own time."""
    import cProfile
    import pstats

    arm = Ours(setting, 0)
    arm.advance(setting.start + 100)
    profiler = cProfile.Profile()
    profiler.enable()
    arm.advance(steps)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=[OURS, PEER, HAND, FLOOR], choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=300, help="environment steps of an arm per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--go-on", action="store_true", help="measure on a busy machine too, and say so in the table")
    parser.add_argument("--profile", action="store_true", help="only show where the library's time goes")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting()
    if chosen.profile:
        profile(setting, chosen.steps)
        return
    mark = refuse_busy(chosen.go_on)
    names = list(chosen.arms)
    if PEER in names and find_spec("stable_baselines3") is None:
        print("stable-baselines3 is not installed and left out; make install-bench brings it.", file=sys.stderr)
        names.remove(PEER)
    checked = gate(setting)
    measured = measure(setting, names, chosen.steps, chosen.repeats)
    widths = "-".join(map(str, setting.hidden))
    notes = (
        f"{mark}Actor and two critics {widths}, batch {setting.batch}, rate {setting.learning_rate:g}, learned "
        f"temperature. Median of {chosen.repeats} turns of {chosen.steps} steps; times as fast by processor time.\n\n"
        "Gate, largest relative differences from the hand-written loop on a recorded batch: "
        + ", ".join(f"{name} {difference:.0e}" for name, difference in checked.items())
        + "."
    )
    ran_on = machine("torch", "gymnasium", "numpy", "stable-baselines3")
    write("off_policy", TITLE, rows(measured), ran_on, notes, ratios(measured))


if __name__ == "__main__":
    main()
