"""KDRL (arXiv 2506.02208), small: does a teacher on the student's own samples help where reward is rare?

A student that is seldom right learns one-digit addition; a larger teacher, trained
here, scores the student's tokens. Same student, prompts by seed, responses and steps for every arm.

    arms        GRPO; supervised on the teacher's right answers; distillation alone; joint with constant and falling
                coefficient, with both masks; distillation, then GRPO
    estimators  distillation alone with k1, k2, k3 as a loss
    teachers    a good one and a poor one: is distillation bounded by its teacher, and the joint loss not?
    held out    the main arms with the embedded models, on problems that nobody has seen (held_out.py)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

import ascent
from ascent.core.decisions import Decisions
from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.intervals import interval, paired_difference
from ascent.evaluation.plot import plot
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.systems.kdrl import scorers
from ascent.systems.trial import scores, trial
from ascent.systems.warm_up import supervised
from ascent.systems.workers import provenance, spread
from ascent.worlds.text.arithmetic import Arithmetic
from ascent.worlds.text.score import TextScore

from . import held_out
from .held_out import unseen
from .verdict import verdict

__all__ = ["one", "run", "unseen"]

RUNS = Path("runs/reproduce-kdrl")
TASK = Arithmetic(digits=1)
EXAMPLES = [TASK.example(index) for index in range(64)]
"""Problems of the evaluation: the task has a hundred in all, and what is tested is how soon they are learnt."""
STEPS, SEEDS, PILOTS = 45, 5, (100, 101, 102)
RATES = (1e-3, 2e-3)
"""Of Adam, for every arm: the one at which GRPO, which has no teacher, does best on the pilot seeds."""
BETAS = (5e-3, 5e-2, 5e-1)
"""Of the constant coefficient, by the pilot seeds too. The falling one begins there and ends at a fifth of it."""
FLOOR_AT = 0.29
"""Share of the run after which the coefficient stays: 80 of the paper's 280 steps."""
TARGET = 0.5
SETTINGS = {"prompts": 16, "group_size": 8, "evaluate_every": 45, "samples": 4}
MODELS = {
    "student": {"seed": 0, "hidden": 48, "layers": 2, "steps": 80, "corrupted": 0.5},
    "teacher": {"seed": 1, "hidden": 64, "layers": 2, "steps": 120, "corrupted": 0.0},
    "poor teacher": {"seed": 2, "hidden": 64, "layers": 2, "steps": 80, "corrupted": 0.0},
}
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {"objective": "rl"},
    "SFT on right answers": {},
    "KD": {"objective": "kd"},
    "KDRL constant": {"schedule": "constant"},
    "KDRL annealing": {"schedule": "anneal"},
    "KDRL response mask": {"schedule": "constant", "mask": "response"},
    "KDRL group mask": {"schedule": "constant", "mask": "group"},
    "KD, then GRPO": {"objective": "sequential"},
    "KD by k1": {"objective": "kd", "estimator": "k1"},
    "KD by k3": {"objective": "kd", "estimator": "k3"},
    "KD, poor teacher": {"objective": "kd"},
    "KDRL constant, poor teacher": {"schedule": "constant"},
}
JOINT = [name for name in ARMS if name.startswith("KDRL")]


def run(folder: Path) -> None:
    """Write result.json, the pictures and verdict.md; a stopped experiment goes on where it was."""
    accuracy = {name: right(made(name)) for name in MODELS}
    print(accuracy, flush=True)
    rates = pilots([("GRPO", BETAS[0], rate) for rate in RATES])
    rate = RATES[rates.index(max(rates))]
    betas = pilots([("KDRL constant", beta, rate) for beta in BETAS])
    beta = BETAS[betas.index(max(betas))]
    calls = [(name, seed, beta, rate) for seed in range(SEEDS) for name in ARMS]
    found = dict(zip(((call[0], call[1]) for call in calls), spread("kdrl", "one", calls), strict=True))
    pairs = [(name, "GRPO") for name in ARMS if name != "GRPO"]
    pairs += [(name, "KD") for name in (*JOINT, "KD, then GRPO")]
    pairs += [("KDRL annealing", "KDRL constant"), ("KDRL constant, poor teacher", "KD, poor teacher")]
    result = {
        "settings": {**SETTINGS, "steps": STEPS, "seeds": SEEDS, "learning_rate": rate, "target": TARGET},
        "models": MODELS,
        "accuracy": accuracy,
        "pilots": {
            "seeds": PILOTS,
            "rate": {f"{tried:g}": reward for tried, reward in zip(RATES, rates, strict=True)},
            "coefficient": {f"{tried:g}": reward for tried, reward in zip(BETAS, betas, strict=True)},
        },
        "coefficient": beta,
        "made": provenance(),
        "arms": {name: summary(name, found) for name in ARMS},
        "differences": {f"{name} - {to}": gap(name, to, found) for name, to in pairs},
        "runs": {f"{name}, seed {seed}": numbers for (name, seed), numbers in found.items()},
    }
    result = json.loads(json.dumps(result))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    for path, title, chosen in (
        (
            "arms.png",
            "A teacher on the student's own samples",
            [n for n in ARMS if "by k" not in n and "poor" not in n],
        ),
        ("ablations.png", "Estimators as a loss, and a poor teacher", ["GRPO", "KD", "KD by k1", "KD by k3", *POOR]),
    ):
        arms = [
            Arm(name, [Seed(seed, found[name, seed]["curve"], found[name, seed]["pass@1"]) for seed in range(SEEDS)])
            for name in chosen
        ]
        plot(arms, folder / path, score="reward of the student's samples", title=title, limits=(0, 1))
    known = held_out.teacher()  # made once, before the workers
    calls = [(arm, seed, beta) for seed in range(held_out.SEEDS) for arm in held_out.ARMS]
    ends = held_out.measure(known, beta, spread("kdrl", "unseen", calls))
    (folder / "held_out.json").write_text(json.dumps(ends, indent=1) + "\n")
    (folder / "verdict.md").write_text(verdict(result) + "\n" + held_out.words(ends))


def pilots(cells: list[tuple[str, float, float]]) -> list[float]:
    """Mean reward over the pilot seeds of each (arm, coefficient, rate)."""
    calls = [(arm, seed, beta, rate) for arm, beta, rate in cells for seed in PILOTS]
    rewards = [found["mean_reward"] for found in spread("kdrl", "one", calls)]
    each = len(PILOTS)
    return [sum(rewards[place * each :][:each]) / each for place in range(len(cells))]


POOR = ("KD, poor teacher", "KDRL constant, poor teacher")


def made(name: str) -> CausalPolicy:
    """A model, trained once."""
    disable_progress_bar()
    where, recipe = RUNS / name.replace(" ", "-"), MODELS[name]
    if not where.exists():
        policy = embedded(TASK.alphabet, recipe["seed"], hidden=recipe["hidden"], layers=recipe["layers"], context=32)
        supervised(policy, TASK, recipe["steps"], recipe["seed"], Console(quiet=True), recipe["corrupted"])
        policy.save(where)
    return CausalPolicy.load(where)


def right(policy: CausalPolicy) -> float:
    """Accuracy, sampled."""
    return scores(TASK, policy, TextScore(TASK, policy.tokenizer), EXAMPLES, 4, 0)["pass@1"]


def correct(decisions: Decisions) -> torch.Tensor:
    """[N] rows with the right answer: rejection sampling."""
    return torch.where(decisions.mask, decisions.reward, 0.0).sum(1) >= 1.0


def one(name: str, seed: int, beta: float, rate: float) -> dict[str, Any]:
    """One run's numbers."""
    kept = RUNS / "runs" / f"{name.replace(' ', '-')}-seed{seed}-beta{beta:g}-rate{rate:g}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    student, options = made("student"), {}
    if name != "GRPO":
        teacher = made("poor teacher" if name in POOR else "teacher")
        options = {"scorers": {"teacher_log_prob": scorers(teacher)["teacher_log_prob"]}}
    if name.startswith("SFT"):
        method = ascent.method("sft", learning_rate=rate)
        options = {"teacher": teacher, "accept": correct}
    else:
        fall = 0.8 * beta / (FLOOR_AT * STEPS)
        sizes = {"kd_coefficient": beta, "kd_least": 0.2 * beta, "kd_fall": fall}
        method = ascent.method("kdrl", learning_rate=rate, **sizes, **ARMS[name])
    record = trial(TASK, student, method, steps=STEPS, seed=seed, held_out=EXAMPLES, **SETTINGS, **options)
    reward = record.curve("reward")
    recent = [
        sum(reward[max(0, step - 4) : step + 1]) / len(reward[max(0, step - 4) : step + 1]) for step in range(STEPS)
    ]
    reached = next((step + 1 for step, number in enumerate(recent) if step >= 4 and number >= TARGET), STEPS + 1)
    supervised_ = name.startswith("SFT")
    held_out = [(float(step), found["pass@1"]) for step, found in record.held_out]
    # The supervised arm's samples are its teacher's: only its held-out curve says something.
    curve = held_out if supervised_ else [(float(step + 1), number) for step, number in enumerate(recent)]
    numbers = {
        "curve": [(step, round(number, 4)) for step, number in curve],
        "held_out": held_out,
        "pass@1": held_out[-1][1],
        "mean_reward": sum(reward) / STEPS,
        "rollouts_to_target": None if supervised_ else reached * SETTINGS["prompts"] * SETTINGS["group_size"],
        "characters": record.held_out[-1][1]["characters"],
        "entropy": sum(record.curve("entropy")[-10:]) / 10,
        "kl_teacher": (record.curve("kl_teacher") or [0.0])[-1],
        "distilled": mean(record.curve("kept/teacher")) if "mask" in ARMS[name] else float(name != "GRPO"),
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(numbers))
    print(
        f"{name}, seed {seed}, beta {beta:g}, rate {rate:g}: pass@1 {numbers['pass@1']:.3f}, "
        f"reward {numbers['mean_reward']:.3f}",
        flush=True,
    )
    return numbers


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def summary(name: str, found: dict[Any, Any]) -> dict[str, Any]:
    """Means over the seeds with 95% intervals."""
    rows = {}
    for key in ("pass@1", "mean_reward", "rollouts_to_target", "characters", "entropy", "kl_teacher", "distilled"):
        numbers = [found[name, seed][key] for seed in range(SEEDS)]
        if None not in numbers:
            bound = interval(numbers, name, key)
            rows[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high, "seeds": numbers}
    return rows


def gap(name: str, to: str, found: dict[Any, Any]) -> dict[str, Any]:
    """`name` minus `to`, paired by seed."""
    rows = {}
    for key in ("pass@1", "mean_reward", "rollouts_to_target"):
        first, second = ({seed: found[arm, seed][key] for seed in range(SEEDS)} for arm in (to, name))
        if None not in (*first.values(), *second.values()):
            bound = paired_difference(first, second, name, to, key)
            rows[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
    return rows
