"""BAPO (arXiv 2510.18927), small: do bounds that are searched for bear stale data better than fixed ones?

On a transformer with staleness by inner passes and by partial rollouts, and a control whose fixed bounds are the means
of BAPO's: transformer.py. Here a small network learns 16 secret codes from binary rewards (codes.py). Every arm draws
as many responses to the same prompts; staleness is the number of inner passes over each batch, one optimiser step a
pass. 5 seeds.

    main        4 passes: [0.8, 1.2], clip-higher [0.8, 1.28], [0.8, 2.0], BAPO, BAPO as in the code
    validation  4 passes: [0.8, 1.5], [0.5, 1.2], [0.9, 3.0] (BAPO's ends without a search), BAPO by gradient, at 0.4
    staleness   1, 4, 8 and 16 passes: [0.8, 1.2], [0.8, 2.0], BAPO

Fixed bounds are BAPO whose ranges have no room, so all arms run the same code. BAPO has rho_0 = 0.5 (the authors'
README) because here rho rests near 0.5; the paper's 0.4 is an arm. Nothing was tuned for an arm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ascent
from ascent.evaluation.intervals import interval, paired_difference
from ascent.evaluation.staleness import by_ratio, lengths, tokens
from ascent.systems.workers import provenance, spread
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase

from . import transformer
from .codes import Sampler, exact, fresh_start, table
from .pictures import draw, draw_transformer
from .report import report
from .transformer import one_text
from .verdict import verdict

__all__ = ["one", "one_text", "run"]

STEPS, SEEDS, LAST, RATE, PASSES = 40, 5, 10, 5e-3, 4
BAPO = {"positive_share": 0.5}


def fixed(low: float, high: float) -> dict[str, Any]:
    return {"low_start": low, "low_end": low, "high_start": high, "high_end": high}


ARMS: dict[str, dict[str, Any]] = {
    "[0.8, 1.2]": fixed(0.8, 1.2),
    "[0.8, 1.28]": fixed(0.8, 1.28),
    "[0.8, 2.0]": fixed(0.8, 2.0),
    "BAPO": BAPO,
    "BAPO (code)": {**BAPO, "variant": "reference_code"},
    "[0.8, 1.5]": fixed(0.8, 1.5),
    "[0.5, 1.2]": fixed(0.5, 1.2),
    "[0.9, 3.0]": fixed(0.9, 3.0),
    "BAPO (gradient)": {**BAPO, "contribution": "gradient"},
    "BAPO (0.4)": {"positive_share": 0.4},
}
SWEEP = ("[0.8, 1.2]", "[0.8, 2.0]", "BAPO")
STALE = (1, PASSES, 8, 16)
KEPT = (
    "reward",
    "clip_fraction",
    "gradient_norm",
    "positive_share",
    "positive_share_at_start",
    "positive_share_of_tokens",
    "clip_bound_low",
    "clip_bound_high",
)


class Watch:
    """Exact scores after every step, and what the updates logged."""

    def __init__(self, policy: Any, seed: int) -> None:
        self.policy, self.seed = policy, seed
        self.curves: dict[str, list[float]] = {}

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        scores = {f"exact_{name}": x for name, x in exact(table(self.policy), self.seed).items()}
        for name, x in {**scores, **{name: metrics[name] for name in KEPT}}.items():
            self.curves.setdefault(name, []).append(round(x, 5))

    def updated(self, loop: Loop) -> None:
        """Only steps are watched."""

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        """Nothing is held out: the scores are exact."""


def stages(arm: str, passes: int, seed: int) -> tuple[Collect, Learn, Fresh]:
    """Collect and Learn of one arm, from the start that the seed's arms share."""
    policy, memory = fresh_start(seed), Fresh()
    method = ascent.method(
        "bapo", passes=passes, minibatches=1, learning_rate=RATE, dynamic_sampling=False, **ARMS[arm]
    )
    collect = Collect("collect", Sampler(policy, seed), memory)
    return collect, Learn("policy", policy, method, memory, seed=seed, exact_behaviour=True), memory


def one(arm: str, passes: int, seed: int) -> dict[str, Any]:
    """One run: its curves, and what they come to."""
    collect, learn, memory = stages(arm, passes, seed)
    watch = Watch(learn.model, seed)
    phase = Phase("train", (collect, learn), STEPS)
    Loop(System({"policy": learn.model}, {"memory": memory}, (phase,)), [watch]).run()
    curves = watch.curves
    return {
        "area": mean(curves["exact_reward"]),
        "final": curves["exact_reward"][-1],
        "entropy": mean(curves["exact_entropy"][-LAST:]),
        "gradient_norm": max(curves["gradient_norm"]),
        "searched": mean(moved(curves)),
        "curves": curves,
    }


def moved(curves: dict[str, list[float]]) -> list[float]:
    """1 for the steps in which a bound was off its least value in some update; fixed bounds give 0."""
    bounds = [curves["clip_bound_low"], curves["clip_bound_high"]]
    return [
        float(any(now > min(curve) + 1e-4 for now, curve in zip(pair, bounds, strict=True)))
        for pair in zip(*bounds, strict=True)
    ]


def diagnose() -> dict[str, Any]:
    """Who supplies the loss when data are stale: [0.8, 1.2] at 4 passes, seed 0."""
    collect, learn, memory = stages("[0.8, 1.2]", PASSES, 0)
    loop = Loop(System({"policy": learn.model}, {"memory": memory}, (Phase("train", (collect, learn), STEPS),)))
    by_step: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for step in range(STEPS):
        collect.run(loop, step)
        credited = learn.method.credit(memory.parts[0])
        by_step[str(step + 1)] = lengths(credited)
        learn.run(loop, step)
        if step == 4:
            now = learn.model.evaluate(credited, frozenset({"log_prob", "entropy"}))
            scatter = {name: [round(x, 4) for x in column.tolist()] for name, column in tokens(now, credited).items()}
            found = {"buckets": by_ratio(now, credited), "tokens": scatter}
    return {**found, "lengths": by_step}


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def bounded(numbers: list[float], *words: str) -> dict[str, Any]:
    """Every seed's number, their mean and its 95% interval."""
    found = interval(numbers, *words)
    return {"seeds": numbers, "mean": found.estimate, "low": found.low, "high": found.high}


SCORES = ("area", "final", "entropy", "gradient_norm", "searched")
PAIRS = (
    ("BAPO", "[0.8, 1.2]"),
    ("BAPO", "[0.8, 1.28]"),
    ("BAPO", "[0.8, 2.0]"),
    ("BAPO", "[0.9, 3.0]"),
    ("BAPO", "BAPO (code)"),
    ("BAPO", "BAPO (gradient)"),
    ("BAPO", "BAPO (0.4)"),
    ("[0.8, 1.5]", "[0.8, 1.2]"),
    ("[0.5, 1.2]", "[0.8, 1.2]"),
)


def measure() -> dict[str, Any]:
    """Train everything and analyse it."""
    wanted = [(arm, PASSES, seed) for seed in range(SEEDS) for arm in ARMS]
    wanted += [(arm, passes, seed) for seed in range(SEEDS) for passes in STALE for arm in SWEEP if passes != PASSES]
    found = dict(zip(wanted, spread("bapo", "one", wanted), strict=True))

    def seeds(arm: str, passes: int, score: str) -> dict[int, float]:
        return {seed: found[arm, passes, seed][score] for seed in range(SEEDS)}

    def change(first: dict[int, float], second: dict[int, float], *words: str) -> dict[str, float]:
        gap = paired_difference(first, second, *words)
        return {"mean": gap.estimate, "low": gap.low, "high": gap.high}

    def lead(passes: int, score: str) -> dict[int, float]:
        ours, theirs = seeds("BAPO", passes, score), seeds("[0.8, 1.2]", passes, score)
        return {seed: ours[seed] - theirs[seed] for seed in range(SEEDS)}

    return {
        "settings": {"steps": STEPS, "passes": PASSES, "last": LAST, "learning_rate": RATE, "seeds": SEEDS},
        "parameters": ARMS,
        "made": provenance(),
        "arms": {arm: {s: bounded(list(seeds(arm, PASSES, s).values()), arm, s) for s in SCORES} for arm in ARMS},
        "differences": {
            f"{arm} - {to}": {s: change(seeds(to, PASSES, s), seeds(arm, PASSES, s), arm, to, s) for s in SCORES[:4]}
            for arm, to in PAIRS
        },
        "staleness": {
            arm: {str(e): {s: bounded(list(seeds(arm, e, s).values()), arm, str(e), s) for s in SCORES} for e in STALE}
            for arm in SWEEP
        },
        "growth": {s: change(lead(STALE[0], s), lead(STALE[-1], s), "growth", s) for s in ("area", "entropy")},
        "diagnosis": diagnose(),
        "runs": {f"{arm}, {passes} passes, seed {seed}": numbers for (arm, passes, seed), numbers in found.items()},
    }


def run(folder: Path) -> None:
    """Write result.json, the pictures and verdict.md."""
    result = json.loads(json.dumps(measure() | {"transformer": transformer.measure()}))
    draw(result, folder)
    draw_transformer(result["transformer"], folder)
    for found in (result, result["transformer"]):
        del found["diagnosis"]["tokens"]  # thousands of points that only the picture needs
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "verdict.md").write_text(verdict(result, report(result["transformer"])))
