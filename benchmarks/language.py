"""One GRPO step of small language models: Ascent beside trl's GRPOTrainer, on equal work.

    pip install -c constraints.txt -e '.[bench]'
    OMP_NUM_THREADS=1 python benchmarks/language.py                 # every workload, about 9 minutes
    python benchmarks/language.py --workload "1M ragged" --steps 60
    python benchmarks/language.py --sweep                           # trl's variants, to find its best arm
    python benchmarks/language.py --threads 2

Equal: initial weights, tokenizer, prompts and their order, group size, temperature 1, reward function, loss
(seq-mean-token-mean, clip 0.2, no KL; both report the entropy), Adam without decay, learning rate, gradient clip,
float32, threads, attention, no gradient checkpointing, no logging, and the length of every response
(`language_work.py`). trl runs in the arm that its sweep found best.

First the gate, on every model size: on one recorded batch, on-policy and off-policy, loss and every gradient must
agree to 1e-6, or nothing is timed. Then each arm runs in a process of its own and the two take their steps in turns
(A B B A ...). A step is everything from one optimiser step to the next. The floor is what the matrix products of a
step alone take (`language_floor.py`), measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from language_arms import ARMS, VARIANTS
from language_phases import Channel, Stopwatch, resident
from language_report import swept, told
from language_turns import Ended, turns
from language_work import WORKLOADS, Work
from report import refuse_busy

BEST = "2 micro-batches"
"""trl's variant that the sweep found fastest on most workloads; `--variant` takes another."""
SWEPT = ("1M fixed", "1M ragged", "6M fixed", "32k vocabulary")


def side(*arguments: str) -> Any:
    """The JSON that this script prints in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def compare(works: Sequence[Work], variant: str, only: str | None) -> list[dict[str, Any]]:
    """Every workload: both arms (or one), and the floor."""
    arms = [("ascent", "default"), ("trl", variant)]
    arms = [pair for pair in arms if only in (None, pair[0])]
    found = []
    for work in works:
        measured = turns(__file__, work, arms)
        found.append({"work": asdict(work), "arms": measured, "floor": side("--floor", json.dumps(asdict(work)))})
        print(f"{work.name}: measured", file=sys.stderr, flush=True)
    return found


def sweep(works: Sequence[Work], steps: int, variants: Sequence[str]) -> list[dict[str, Any]]:
    """trl's `variants` and its default on every workload, all of them in turns; what does not run here is named."""
    found = []
    for work in works:
        work = replace(work, steps=steps, warm_up=1)
        running, failed = list(dict.fromkeys(["default", *variants])), []
        while True:
            try:
                measured = turns(__file__, work, [("trl", variant) for variant in running])
                break
            except Ended as error:
                failed.append(error.variant)
                running.remove(error.variant)
        found.append({"work": asdict(work), "arms": measured, "failed": failed})
        print(f"{work.name}: measured; does not run here: {failed}", file=sys.stderr, flush=True)
    return found


def serve(chosen: argparse.Namespace) -> bool:
    """The script as one of its own processes. Returns whether it was."""
    if chosen.arm:
        watch = Stopwatch()
        ARMS[chosen.arm](Work(**json.loads(chosen.work)), Channel.own(watch, resident), chosen.variant)
    elif chosen.floor:
        from language_floor import floor

        print(json.dumps(floor(Work(**json.loads(chosen.floor)))))
    elif chosen.gate:
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        from language_gate import gate, sizes

        works = sizes([Work(**values) for values in json.loads(chosen.gate)])
        print(json.dumps([row for work in works for row in gate(work)]))
    return bool(chosen.arm or chosen.floor or chosen.gate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="one of them; may be given again")
    parser.add_argument("--steps", type=int, help="measured steps of each arm")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in every process")
    parser.add_argument("--variant", default=BEST, choices=VARIANTS, help="of trl")
    parser.add_argument(
        "--sweep", nargs="*", choices=VARIANTS, help="time these variants of trl (all, if none is named) in turns"
    )
    parser.add_argument("--only", choices=ARMS, help="one arm alone, without gate (a profile)")
    parser.add_argument("--raw", type=Path, help="keep every step's numbers in this JSON file")
    parser.add_argument("--go-on", action="store_true", help="also on a busy machine; the notes then say so")
    for name in ("--arm", "--work", "--floor", "--gate"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if serve(chosen):
        return
    works = [WORKLOADS[name] for name in chosen.workload or (WORKLOADS if chosen.sweep is None else SWEPT)]
    works = [replace(work, threads=chosen.threads, steps=chosen.steps or work.steps) for work in works]
    mark = refuse_busy(chosen.go_on)
    if chosen.sweep is not None:
        found = sweep(works, chosen.steps or 6, chosen.sweep or list(VARIANTS))
        swept(found, mark)
    else:
        checked = [] if chosen.only else side("--gate", json.dumps([asdict(work) for work in works]))
        print("gate:", json.dumps(checked, indent=1), file=sys.stderr, flush=True)
        found = compare(works, chosen.variant, chosen.only)
        told(found, checked, chosen.variant, mark)
    if chosen.raw:
        chosen.raw.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
