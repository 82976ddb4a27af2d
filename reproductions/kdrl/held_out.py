"""The main arms on problems that nobody has seen: the embedded student and teacher of `ascent train --method kdrl`.

Two-digit addition; a tenth of it is held out from the student's warm-up, the teacher's training and every run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

import ascent
from ascent.evaluation.intervals import interval, paired_difference
from ascent.evaluation.verdict import judged, shown
from ascent.policies.causal import CausalPolicy
from ascent.systems.kdrl import scorers, trained
from ascent.systems.trial import scores, trial
from ascent.systems.warm_up import warmed_up
from ascent.systems.workers import provenance
from ascent.training.processes import Processes
from ascent.worlds.text.arithmetic import Arithmetic
from ascent.worlds.text.score import TextScore

RUNS = Path("runs/reproduce-kdrl/held-out")
TASK = Arithmetic()
STEPS, SEEDS = 15, 5
SETTINGS = {"prompts": 8, "group_size": 8, "evaluate_every": STEPS, "samples": 4}
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {"objective": "rl"},
    "KD": {"objective": "kd"},
    "KDRL constant": {"schedule": "constant"},
}


def student() -> CausalPolicy:
    """The embedded model after its warm-up, from the cache."""
    return warmed_up(TASK, 300, 0, 1.0, False, Console(quiet=True), Processes())


def teacher() -> CausalPolicy:
    """The embedded teacher, from the cache."""
    return trained(TASK, student(), 300, 128, 0.0, Console(quiet=True), Processes())


def unseen(name: str, seed: int, coefficient: float) -> dict[str, float]:
    """Held-out pass@1 before and after one run, and the mean reward of its samples."""
    kept = RUNS / f"{name.replace(' ', '-')}-{seed}-beta{coefficient:g}.json"
    if not kept.exists():
        sizes = {"kd_coefficient": coefficient} if "schedule" in ARMS[name] else {}
        method = ascent.method("kdrl", **ARMS[name], **sizes)
        asked = {} if name == "GRPO" else {"scorers": {"teacher_log_prob": scorers(teacher())["teacher_log_prob"]}}
        examples = TASK.held_out(64)
        found = trial(TASK, student(), method, steps=STEPS, seed=seed, held_out=examples, **SETTINGS, **asked)
        reward = found.curve("reward")
        ends = {"before": found.held_out[0][1]["pass@1"], "after": found.held_out[-1][1]["pass@1"]}
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(ends | {"mean_reward": sum(reward) / len(reward)}))
        print(kept.stem, kept.read_text(), flush=True)
    return json.loads(kept.read_text())


def measure(known: CausalPolicy, coefficient: float, found: list[dict[str, float]]) -> dict[str, Any]:
    """The runs, in the order of seeds and then arms, with intervals."""
    quality = scores(TASK, known, TextScore(TASK, known.tokenizer), TASK.held_out(64), 4, 0)["pass@1"]
    runs = {name: found[place :: len(ARMS)] for place, name in enumerate(ARMS)}
    made: dict[str, Any] = {"teacher": quality, "steps": STEPS, "seeds": SEEDS, "coefficient": coefficient}
    made |= {"responses": SETTINGS["prompts"] * SETTINGS["group_size"], "made": provenance(), "arms": {}}
    for name, each in runs.items():
        row = {}
        for key in ("before", "after", "mean_reward"):
            bound = interval([run[key] for run in each], name, key, "held out")
            row[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
        made["arms"][name] = row
    after = {name: {seed: run["after"] for seed, run in enumerate(each)} for name, each in runs.items()}
    made["differences"] = {}
    for name, to in (("KDRL constant", "GRPO"), ("KDRL constant", "KD"), ("KD", "GRPO")):
        bound = paired_difference(after[to], after[name], name, to, "held out")
        made["differences"][f"{name} - {to}"] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
    return json.loads(json.dumps(made | {"runs": runs}))


def words(found: dict[str, Any]) -> str:
    """The part of verdict.md that is about held-out problems."""
    gaps = found["differences"]
    lines = ["## Held-out problems", ""]
    for claim, gap in (("GRPO", "KDRL constant - GRPO"), ("distillation alone", "KDRL constant - KD")):
        word = judged(gaps[gap]["low"] > 0, gaps[gap]["high"] < 0)
        lines.append(f"- **{word}**: on problems nobody has seen KDRL ends above {claim}")
    lines += [
        "",
        "Two-digit addition, the embedded student and teacher of `ascent train --method kdrl` (the teacher is right in "
        f"{found['teacher']:.2f} of its held-out samples), {found['steps']} steps of {found['responses']} responses, "
        f"the method's own rate for every arm, coefficient {found['coefficient']:g}, {found['seeds']} seeds, 64 "
        "held-out problems with 4 answers each; 95% intervals, differences paired by seed.",
        "",
        "| arm | held-out pass@1 before | after | mean reward |",
        "|---|---|---|---|",
    ]
    for name, row in found["arms"].items():
        lines.append(f"| {name} | {shown(row['before'])} | {shown(row['after'])} | {shown(row['mean_reward'])} |")
    lines += ["", "| difference | held-out pass@1 |", "|---|---|"]
    lines += [f"| {name} | {shown(gap)} |" for name, gap in gaps.items()]
    return "\n".join(lines) + "\n"
