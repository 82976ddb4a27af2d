"""One GRPO step of a 0.49B decoder on a GPU: Ascent's ladder beside trl's GRPOTrainer, on equal work.

    pip install -c constraints.txt -e '.[bench]'
    python benchmarks/language_gpu.py                # one H100 or H200, about 20 minutes
    python benchmarks/language_gpu.py --steps 30     # more pairs of the two best arms
    python benchmarks/language_gpu.py --tiny         # on a CPU in a minute, to see that it runs

A random decoder of Qwen2's shape (24 layers, 896 wide, 14 heads, 2 of keys and values, vocabulary 151,936, tied,
bfloat16 throughout), 32 prompts of 128 tokens, 8 responses each of 512 tokens. Equal in both arms: weights, prompts,
rewards, loss, Adam, dtype, attention, rows of a forward in learning, no gradient checkpointing.

First the gate, in the run's dtype (relative difference of loss and gradient at most 1e-2 in bfloat16, where the two
arms round differently). Then every rung of Ascent's ladder and every variant of trl alone, then Ascent's last rung and
trl's fastest variant in turns (A B B A ...). The floor is bytes over bandwidth and operations over matrix rate, both
measured on the device (`language_gpu_floor.py`). Peak memory is what PyTorch allocated at most. Where trl is absent
its arms and the gate are left out, and the output says so.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

from language_arms import loop_of, trainer_of, wrap_optimiser, wrap_trl
from language_gpu_floor import floor, rates
from language_gpu_work import RUNGS, TINY, TRL, GpuWork, decoder_of, qwen, set_up
from language_phases import PHASES, Channel, Stopwatch, nothing, resident
from language_report import ratio, spread, summary
from language_turns import turns
from report import Ratio, machine, write

TOLERANCE = {"bfloat16": 1e-2, "float32": 1e-5}
SOLO = 2  # measured steps of a rung that runs alone
BEST = list(RUNGS)[-1]


class Alone(Channel):
    """The channel of an arm that runs alone, in this process: nobody is asked, answers are kept."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kept: list[dict[str, Any]] = []

    def say(self, **fields: Any) -> None:
        self.kept.append({**fields, "peak": self.peak()})


def on_gpu(work: GpuWork) -> bool:
    return work.device.startswith("cuda")


def channel_of(work: GpuWork, alone: bool) -> Channel:
    """Waits for the device before it reads the clock; memory is what PyTorch allocated at most."""
    import torch

    wait = torch.cuda.synchronize if on_gpu(work) else nothing
    peak = (lambda: torch.cuda.max_memory_allocated() / 2**20) if on_gpu(work) else resident
    return Alone(sys.stdout, Stopwatch(wait), peak) if alone else Channel.own(Stopwatch(wait), peak)


def ascent_arm(work: GpuWork, channel: Channel, rung: str) -> None:
    """One rung of the ladder."""

    class Turns:
        def updated(self, loop: Any) -> None: ...
        def evaluated(self, loop: Any, scores: Any) -> None: ...

        def stepped(self, loop: Any, metrics: Any) -> None:
            channel.answer(work.rows * metrics["length"])

    import ascent.systems.language  # noqa: F401

    channel.loaded()
    chosen = RUNGS[rung]
    loop = loop_of(work, [Turns()], channel.watch, lambda work: set_up(qwen(work), chosen, work), decoder_of(chosen))
    channel.ready()
    loop.run()


def trl_arm(work: GpuWork, channel: Channel, variant: str) -> None:
    """One variant of trl."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import trl.trainer.grpo_trainer  # noqa: F401
    from transformers import TrainerCallback

    channel.loaded()

    class Turns(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            wrap_optimiser(trainer, channel.watch)
            channel.ready()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            channel.answer(work.rows * trainer._metrics["train"]["completions/mean_length"][-1])

    settings = dict(TRL[variant])
    parts = work.rows // (work.micro_rows or work.rows)
    trainer = trainer_of(
        work, qwen(work), [Turns()], {"parts": 2 * parts if settings.pop("half", False) else parts, **settings}
    )
    wrap_trl(trainer, channel.watch)
    trainer.train()


ARMS = {"ascent": ascent_arm, "trl": trl_arm}


def alone(work: GpuWork, arm: str, variant: str) -> dict[str, Any]:
    """A few steps of one arm with the device to itself."""
    import torch

    work = replace(work, steps=SOLO, warm_up=1)
    gc.collect()
    if on_gpu(work):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    channel = channel_of(work, alone=True)
    assert isinstance(channel, Alone)
    ARMS[arm](work, channel, variant)
    loaded, built, first, *steps = channel.kept
    told = {"arm": arm, "variant": variant, "loaded": loaded["peak"], "first": built["build"] + first["wall"]}
    return {**told, "steps": steps[:SOLO]}


def side(*arguments: str) -> Any:
    """The JSON that this script prints last in a process of its own; None where it failed, with its messages above."""
    command = [sys.executable, __file__, *arguments]
    found = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout.splitlines()[-1]) if found.returncode == 0 else None


def rows_of(arms: Sequence[dict[str, Any]], floors: dict[str, float]) -> list[dict[str, Any]]:
    """The table."""
    rows = []
    for arm in arms:
        told = summary(arm)
        rows.append(
            {
                "arm": f"{arm['arm']}, {arm['variant']}",
                "whole step, ms": spread(told["wall"]),
                **{f"{name}, ms": f"{1000 * told['phases'][name][1]:.0f}" for name in PHASES},
                "whole / floor": f"{told['wall'][1] / sum(floors.values()):.2f}",
                "response tokens/s": str(round(told["tokens/s"])),
                "peak memory, MB": str(round(told["peak"])),
                "first step, s": f"{told['first']:.1f}",
                "steps": str(told["steps"]),
            }
        )
    return rows


def serve(chosen: argparse.Namespace) -> bool:
    """The script as one of its own processes. Returns whether it was."""
    if not (chosen.arm or chosen.gate):
        return False
    work = GpuWork(**json.loads(chosen.work))
    if chosen.gate:
        from language_gate import gate

        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        print(json.dumps(gate(work, TOLERANCE[work.dtype], qwen, relative=True)))
    elif chosen.solo:
        print(json.dumps([alone(work, chosen.arm, variant) for variant in chosen.variant]))
    else:
        ARMS[chosen.arm](work, channel_of(work, alone=False), chosen.variant[0])
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU")
    parser.add_argument("--steps", type=int, help="measured steps of the two best arms in turns")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:<number>")
    parser.add_argument("--only", action="append", help="this rung or variant alone; may be given again")
    for name in ("--arm", "--work"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--variant", nargs="+", help=argparse.SUPPRESS)
    for name in ("--solo", "--gate"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if serve(chosen):
        return
    import torch

    work = TINY if chosen.tiny else replace(GpuWork(), device=chosen.device)
    if on_gpu(work) and not torch.cuda.is_available():
        raise SystemExit(f"device {work.device!r} is not available here; --tiny runs on the CPU.")
    work = replace(work, steps=chosen.steps or work.steps)
    told = json.dumps(asdict(work))
    bandwidth, rate = rates(work, 256 if chosen.tiny else 8192)
    floors = floor(work, bandwidth, rate)
    notes = [f"Measured on the device: {bandwidth / 1e9:.0f} GB/s, {rate / 1e12:.1f} TFLOP/s in {work.dtype}."]
    notes.append(f"Floor of a step: {', '.join(f'{name} {1000 * span:.0f} ms' for name, span in floors.items())}.")
    peers = list(TRL) if find_spec("trl") else []
    if not peers:
        notes.append("trl is not installed: no gate, and none of its arms (pip install -e '.[bench]').")
    if chosen.tiny:
        peers = peers[:1]
    if peers:
        checked = side("--gate", "--work", told)
        if checked is None:
            raise SystemExit("the gate is shut: its messages are above.")
        worst = max(max(row["loss"], row["gradient"]) for row in checked)
        notes.append(f"Gate in {work.dtype}: largest relative difference of loss and gradient {worst:.1e}.")
    arms: list[dict[str, Any]] = []
    for arm, variants in (("ascent", list(RUNGS)), ("trl", peers)):
        variants = [variant for variant in variants if chosen.only is None or variant in chosen.only]
        # On a GPU each has a process of its own, so that one which fails or fills the memory harms no other.
        for several in [variants] if chosen.tiny and variants else [[variant] for variant in variants]:
            found = side("--solo", "--arm", arm, "--work", told, "--variant", *several)
            arms += found or []
            if found is None:
                notes.append(f"{arm}, {', '.join(several)}: does not run here.")
            print(f"{arm}, {', '.join(several)}: {'measured' if found else 'failed'}", file=sys.stderr, flush=True)
    ran_on = machine("torch", "transformers", "trl")
    if on_gpu(work):
        ran_on = {"gpu": torch.cuda.get_device_name(work.device), **ran_on}
    name = "language_gpu_tiny" if chosen.tiny else "language_gpu"
    write(f"{name}_ladder", "A GRPO step of 0.49B on a GPU: every arm alone", rows_of(arms, floors), ran_on,
          " ".join(notes))  # fmt: skip
    ours, theirs = ([arm for arm in arms if arm["arm"] == side_] for side_ in ("ascent", "trl"))
    if not ours or not theirs:
        return
    fastest, best = (
        min(several, key=lambda arm: statistics.median(step["wall"] for step in arm["steps"]))["variant"]
        for several in (theirs, ours)
    )
    both = turns(__file__, work, [("ascent", best), ("trl", fastest)])
    write(name, "A GRPO step of 0.49B on a GPU, in turns", rows_of(both, floors), ran_on, " ".join(notes[:2]),
          compared(both))  # fmt: skip


def compared(both: Sequence[dict[str, Any]]) -> list[Ratio]:
    """Step time and peak memory, with the targets that were set."""
    ours, theirs = (summary(arm) for arm in both)
    times = [f"{1000 * side_['wall'][1]:.0f} ms" for side_ in (ours, theirs)]
    peaks = [f"{side_['peak']:.0f} MB" for side_ in (ours, theirs)]
    return [
        Ratio("0.49B on a GPU: a step", "trl", times[0], times[1], ratio(*both), 3.0),
        Ratio("0.49B on a GPU: peak memory", "trl", peaks[0], peaks[1], theirs["peak"] / ours["peak"], 1.0),
    ]


if __name__ == "__main__":
    main()
