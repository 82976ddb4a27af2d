"""Stale data on a transformer: inner passes and partial rollouts on the task of attempts.py.

Two layers of width 48 have read demonstrations whose signs are drawn at random, so they try blindly. Every arm then
draws as many responses to the same prompts. Staleness has two sources that are kept apart:

    passes    1 (on policy: all arms are one run), 4, 8 over each batch, one optimiser step a pass
    partial   one pass, but responses grow a segment an act and are resumed by later policies; each token keeps the
              log-probability of the policy that drew it

BAPO has rho_0 = 0.5, as the authors' README, because rho rests near 0.48 here: 0.4 would hardly start a search.
`fixed mean` has constant bounds: the means of BAPO's own at that staleness and seed. It clips as much on average and
does not adapt, so what is left of a lead over it is due to the search.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

import ascent
from ascent.core.decisions import Decisions
from ascent.evaluation.intervals import interval, paired_difference
from ascent.evaluation.staleness import by_ratio, lengths, tokens
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.sampling.partial import PartialSampler
from ascent.systems.trial import Record, trial
from ascent.systems.warm_up import supervised
from ascent.systems.workers import spread

from .attempts import Attempts

RUNS = Path("runs/reproduce-bapo")
TASK = Attempts()
WARM_UP, STEPS, SEEDS, LAST, PILOT = 300, 30, 3, 10, 99
SETTINGS = {"prompts": 16, "group_size": 8}
SEGMENT, IN_FLIGHT, HELD_OUT, SAMPLES = 6, 6, 48, 16
RATES = (2e-4, 4e-4, 8e-4)
LEVELS: dict[str, int] = {"1 pass": 1, "4 passes": 4, "8 passes": 8, "partial": 1}
"""Passes at each staleness."""
STALE = ("4 passes", "8 passes", "partial")
CONTROL = "fixed mean"
ARMS: dict[str, dict[str, Any]] = {
    "[0.8, 1.2]": {"low_start": 0.8, "low_end": 0.8, "high_start": 1.2, "high_end": 1.2},
    "[0.8, 1.28]": {"low_start": 0.8, "low_end": 0.8, "high_start": 1.28, "high_end": 1.28},
    "BAPO": {"positive_share": 0.5},
}
KEPT = (
    "reward",
    "entropy",
    "length",
    "clip_fraction",
    "clip_fraction_low",
    "clip_fraction_high",
    "gradient_norm",
    "positive_share",
    "positive_share_at_start",
    "positive_share_of_tokens",
    "clip_bound_low",
    "clip_bound_high",
    "staleness",
)
SCORES = ("held_out", "area", "entropy", "gradient_norm", "clip_fraction", "positive_share", "worst_drop")


def base() -> CausalPolicy:
    """The policy after demonstrations, made once."""
    disable_progress_bar()
    where = RUNS / "base"
    if not where.exists():
        policy = embedded(TASK.alphabet, hidden=48, layers=2, context=96)
        supervised(policy, TASK, WARM_UP, 0, Console(quiet=True), corrupted=0.0)
        policy.save(where)
    return CausalPolicy.load(where)


def trained(arm: str, level: str, rate: float, seed: int, bounds: tuple[float, float] | None, **options: Any) -> Record:
    """A training of one arm, from the start that all arms share."""
    policy = base()
    if bounds is None:
        parameters = ARMS[arm]
    else:
        low, high = bounds
        parameters = {"low_start": low, "low_end": low, "high_start": high, "high_end": high}
    method = ascent.method(
        "bapo", passes=LEVELS[level], minibatches=1, learning_rate=rate, dynamic_sampling=False, **parameters
    )
    groups, size = SETTINGS["prompts"], SETTINGS["group_size"]

    def respond(answering: CausalPolicy) -> PartialSampler:
        return PartialSampler(answering, TASK, groups, size, TASK.max_new_tokens, SEGMENT, IN_FLIGHT, seed=seed)

    if level == "partial":
        options["respond"] = respond
    watch = options.pop("watch", lambda policy, method: age())(policy, method)
    return trial(TASK, policy, method, steps=STEPS, seed=seed, watch=watch, **SETTINGS, **options)


def age() -> Callable[[Decisions], dict[str, float]]:
    """Mean number of updates between the policy that drew a token and the one that first learns from it."""
    step = -1

    def watch(decisions: Decisions) -> dict[str, float]:
        nonlocal step
        step += 1
        versions = decisions.per_decision("policy_version")[decisions.mask]
        return {"staleness": step - float(versions.double().mean())}

    return watch


def one_text(arm: str, level: str, rate: float, seed: int, bounds: tuple[float, float] | None = None) -> dict[str, Any]:
    """One run's numbers; a run that was made before is read."""
    kept = RUNS / "runs" / f"{arm} {level} rate{rate:g} seed{seed}.json".replace(" ", "-")
    if kept.exists():
        return json.loads(kept.read_text())
    examples = TASK.held_out(HELD_OUT)
    record = trained(arm, level, rate, seed, bounds, held_out=examples, samples=SAMPLES, evaluate_every=STEPS)
    curves = {name: [round(number, 5) for number in record.curve(name)] for name in KEPT}
    reward = curves["reward"]
    smooth = [mean(reward[end - 5 : end]) for end in range(5, STEPS + 1)]
    numbers = {
        "held_out": record.held_out[-1][1]["pass@1"],
        "held_out_16": record.held_out[-1][1][f"pass@{SAMPLES}"],
        "before": record.held_out[0][1]["pass@1"],
        "area": mean(reward),
        "entropy": mean(curves["entropy"][-LAST:]),
        "gradient_norm": max(curves["gradient_norm"]),
        "clip_fraction": mean(curves["clip_fraction"]),
        "positive_share": mean(curves["positive_share"]),
        "worst_drop": max(max(smooth[: place + 1]) - now for place, now in enumerate(smooth)),
        "bounds": [mean(curves["clip_bound_low"]), mean(curves["clip_bound_high"])],
        "curves": curves,
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(numbers))
    print(f"{arm}, {level}, rate {rate:g}, seed {seed}: {numbers['held_out']:.3f}", flush=True)
    return numbers


def diagnose(rate: float) -> dict[str, Any]:
    """Who supplies the loss when data are stale: [0.8, 1.2] at 4 passes, seed 0; ratios after the tenth batch."""
    by_step: dict[str, Any] = {}
    found: dict[str, Any] = {}

    def watch(policy: CausalPolicy, method: Any) -> Callable[[Decisions], Mapping[str, float]]:
        before: list[Decisions] = []

        def look(decisions: Decisions) -> Mapping[str, float]:
            credited = method.credit(decisions)
            by_step[str(len(by_step) + 1)] = lengths(credited)
            if len(by_step) == 11:
                with torch.no_grad():
                    now = policy.evaluate(before[-1], frozenset({"log_prob", "entropy"}))
                columns = tokens(now, before[-1])
                found["buckets"] = by_ratio(now, before[-1])
                found["tokens"] = {name: [round(x, 4) for x in column.tolist()] for name, column in columns.items()}
            before[:] = [credited]
            return {}

        return look

    trained("[0.8, 1.2]", "4 passes", rate, 0, None, watch=watch)
    return {**found, "lengths": by_step}


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def measure() -> dict[str, Any]:
    """Choose rates on the pilot seed, train every arm at every staleness, then the control with BAPO's mean bounds."""
    base()
    pilot = [(arm, level, rate, PILOT) for arm in ARMS for level in ("4 passes", "partial") for rate in RATES]
    tried = dict(zip(pilot, spread("bapo", "one_text", pilot), strict=True))

    def chosen(arm: str, level: str) -> float:
        tuned = "partial" if level == "partial" else "4 passes"
        own = "BAPO" if arm == CONTROL else arm
        return max(RATES, key=lambda rate: tried[own, tuned, rate, PILOT]["area"])

    wanted: list[tuple[Any, ...]] = [(arm, level, seed) for seed in range(SEEDS) for level in STALE for arm in ARMS]
    wanted += [("[0.8, 1.2]", "1 pass", seed) for seed in range(SEEDS)]
    calls: list[tuple[Any, ...]] = [(arm, level, chosen(arm, level), seed) for arm, level, seed in wanted]
    found = dict(zip(wanted, spread("bapo", "one_text", calls), strict=True))
    control = [(CONTROL, level, seed) for seed in range(SEEDS) for level in STALE]
    calls = [(*call[:2], chosen(*call[:2]), call[2], tuple(found["BAPO", *call[1:]]["bounds"])) for call in control]
    found |= dict(zip(control, spread("bapo", "one_text", calls), strict=True))
    names = (*ARMS, CONTROL)

    def seeds(arm: str, level: str, score: str) -> dict[int, float]:
        return {seed: found[arm, level, seed][score] for seed in range(SEEDS)}

    def gap(to: dict[int, float], arm: dict[int, float], *words: str) -> dict[str, float]:
        change = paired_difference(to, arm, *words)
        return {"mean": change.estimate, "low": change.low, "high": change.high}

    def bounded(arm: str, level: str, score: str) -> dict[str, Any]:
        numbers = list(seeds(arm, level, score).values())
        span = interval(numbers, arm, level, score)
        return {"seeds": numbers, "mean": span.estimate, "low": span.low, "high": span.high}

    def lead(level: str, score: str) -> dict[int, float]:
        ours, theirs = seeds("BAPO", level, score), seeds("[0.8, 1.2]", level, score)
        return {seed: ours[seed] - theirs[seed] for seed in range(SEEDS)}

    levels = {"1 pass": ("[0.8, 1.2]",), **{level: names for level in STALE}}
    return {
        "settings": {**SETTINGS, "warm_up": WARM_UP, "steps": STEPS, "seeds": SEEDS, "last": LAST, "rates": RATES}
        | {
            "segment_tokens": SEGMENT,
            "in_flight": IN_FLIGHT,
            "held_out": HELD_OUT,
            "samples": SAMPLES,
            "before": found["BAPO", "4 passes", 0]["before"],
        },
        "chosen": {level: {arm: chosen(arm, level) for arm in names} for level in STALE},
        "pilot": {f"{arm}, {level}, {rate:g}": tried[arm, level, rate, PILOT]["area"] for arm, level, rate, _ in pilot},
        "levels": {
            level: {arm: {score: bounded(arm, level, score) for score in SCORES} for arm in arms}
            for level, arms in levels.items()
        },
        "differences": {
            level: {
                f"BAPO - {to}": {
                    score: gap(seeds(to, level, score), seeds("BAPO", level, score), level, to, score)
                    for score in SCORES
                }
                for to in names
                if to != "BAPO"
            }
            for level in STALE
        },
        "growth": {s: gap(lead("4 passes", s), lead("8 passes", s), "growth", s) for s in ("area", "entropy")},
        "bounds": {
            level: [[round(x, 3) for x in found["BAPO", level, seed]["bounds"]] for seed in range(SEEDS)]
            for level in STALE
        },
        "diagnosis": diagnose(chosen("[0.8, 1.2]", "4 passes")),
        "runs": {f"{arm}, {level}, seed {seed}": numbers for (arm, level, seed), numbers in found.items()},
    }
