"""CAPO (arXiv 2510.00819), small: does rejecting the tokens of greatest predicted shift prevent collapse?

A tiny transformer (2 layers, width 48, 17 tokens, so the model of the head is exact) learns one-digit addition by GRPO,
one Adam step a collection. The learning rate is raised until plain GRPO collapses; there the arms are compared.

    sweep      plain GRPO at four rates: the smallest at which most seeds collapse, the best conservative one
    thresholds 95% quantiles of m_F and |m_H| over the first 5 updates of a conservative run, predicted for a step at
               the aggressive rate; fixed before the comparison
    arms       GRPO, CAPO with the Adam model, with the SGD model, as many tokens rejected at random, conservative GRPO
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from scipy import stats
from transformers.utils.logging import disable_progress_bar

import ascent
from ascent.core.decisions import Decisions
from ascent.core.plan import Adam
from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.intervals import interval, paired_difference
from ascent.evaluation.plot import plot
from ascent.methods.capo import mirrored
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.policies.with_logits import WithLogits
from ascent.systems.trial import trial
from ascent.systems.warm_up import supervised
from ascent.systems.workers import provenance, spread
from ascent.worlds.text.arithmetic import Arithmetic

from .pictures import draw
from .verdict import verdict

RUNS = Path("runs/reproduce-capo")
TASK = Arithmetic(digits=1)
STEPS, SEEDS, SWEEP_SEEDS, CALIBRATION = 30, 5, 2, 5
WARM_UP = 5
"""Updates over which every arm's rate rises, as in the released recipe (a tenth of its steps)."""
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
SETTINGS = {"prompts": 16, "group_size": 8}
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {"objective_threshold": math.inf, "policy_threshold": math.inf},
    "CAPO, Adam model": {"model": "adam"},
    "CAPO, SGD model": {"model": "sgd"},
    "random rejection": {"model": "adam", "control": True},
    "conservative GRPO": {"objective_threshold": math.inf, "policy_threshold": math.inf},
}
WINDOW = 5
"""Steps whose mean reward counts as a score."""


def run(folder: Path) -> None:
    """Write result.json, the pictures and verdict.md; a stopped experiment goes on where it was."""
    base()
    calls = [("GRPO", 100 + seed, rate, {}) for rate in RATES for seed in range(SWEEP_SEEDS)]
    swept = spread("capo", "one", calls)
    sweep: dict[float, dict[str, Any]] = {}
    for (_, _, rate, _), numbers in zip(calls, swept, strict=True):
        own = sweep.setdefault(rate, {"collapsed": [], "area": []})
        own["collapsed"].append(numbers["collapsed"])
        own["area"].append(numbers["area"])
    wild = [rate for rate in RATES if sum(sweep[rate]["collapsed"]) > SWEEP_SEEDS / 2]
    aggressive = wild[0] if wild else RATES[-1]
    calm = [rate for rate in RATES if not any(sweep[rate]["collapsed"]) and rate < aggressive]
    gentle = max(calm or RATES[:1], key=lambda rate: sum(sweep[rate]["area"]))
    thresholds = {model: calibrated(model, gentle, aggressive) for model in ("adam", "sgd")}
    calls = []
    for seed in range(SEEDS):
        for name, parameters in ARMS.items():
            rate = gentle if name.startswith("conservative") else aggressive
            calls.append((name, seed, rate, thresholds.get(parameters.get("model", ""), {})))
    found = dict(zip(((call[0], call[1]) for call in calls), spread("capo", "one", calls), strict=True))
    pairs = [("CAPO, Adam model", name) for name in ("GRPO", "random rejection", "conservative GRPO")]
    pairs += [("CAPO, SGD model", "GRPO"), ("random rejection", "GRPO")]
    result = {
        "settings": {
            **SETTINGS,
            "steps": STEPS,
            "seeds": SEEDS,
            "sweep_seeds": SWEEP_SEEDS,
            "window": WINDOW,
            "warm_up": WARM_UP,
        },
        "rates": {"aggressive": aggressive, "conservative": gentle, "collapse found": bool(wild)},
        "sweep": {f"{rate:g}": numbers for rate, numbers in sweep.items()},
        "thresholds": thresholds,
        "made": provenance(),
        "arms": {name: summary(name, found) for name in ARMS},
        "differences": {f"{name} - {to}": gap(name, to, found) for name, to in pairs},
        "runs": {f"{name}, seed {seed}": numbers for (name, seed), numbers in found.items()},
    }
    result = json.loads(json.dumps(result))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    arms = [
        Arm(name, [Seed(seed, found[name, seed]["curve"], found[name, seed]["final"]) for seed in range(SEEDS)])
        for name in ARMS
    ]
    plot(arms, folder / "arms.png", score="reward of the samples", title="Aggressive learning rate", limits=(0, 1))
    draw(result, folder / "curvature.png")
    (folder / "verdict.md").write_text(verdict(result))


def base() -> CausalPolicy:
    """The warmed-up policy, made once."""
    disable_progress_bar()
    where = RUNS / "base"
    if not where.exists():
        policy = embedded(TASK.alphabet, hidden=48, layers=2, context=32)
        supervised(policy, TASK, 150, 0, Console(quiet=True), 0.3)
        policy.save(where)
    return CausalPolicy.load(where)


def calibrated(model: str, gentle: float, aggressive: float) -> dict[str, float]:
    """Thresholds for a model: what the steps of a conservative run would shift at the aggressive rate."""
    parameters = {"objective_threshold": math.inf, "policy_threshold": math.inf, "model": model}
    method = ascent.method("capo", learning_rate=aggressive, **parameters).replace(step=Adam(gentle))
    policy = base()
    record = trial(TASK, policy, method, steps=CALIBRATION, seed=200, seen=WithLogits(policy), **SETTINGS)
    names = {"objective_threshold": "curvature_objective_q95", "policy_threshold": "curvature_policy_q95"}
    return {name: sum(record.curve(logged)) / CALIBRATION for name, logged in names.items()}


def one(name: str, seed: int, rate: float, thresholds: dict[str, float]) -> dict[str, Any]:
    """One run's numbers."""
    kept = RUNS / "runs" / f"{name.replace(' ', '-').replace(',', '')}-seed{seed}-rate{rate:g}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    policy = base()
    method = ascent.method("capo", learning_rate=rate, warmup=WARM_UP, **ARMS[name], **thresholds)
    method = mirrored(method, policy.temperature)
    watch = realised(policy)
    record = trial(TASK, policy, method, steps=STEPS, seed=seed, seen=WithLogits(policy), watch=watch, **SETTINGS)
    reward = record.curve("reward")
    smooth = [sum(part) / len(part) for part in (reward[max(0, end - WINDOW) : end] for end in range(1, STEPS + 1))]
    peak, final = max(smooth[WINDOW - 1 :]), smooth[-1]
    shift, moved = record.curve("curvature_policy"), record.curve("realised_kl")
    pairs = [(a, b) for a, b in zip(shift[:-1], moved[1:], strict=True) if math.isfinite(a) and math.isfinite(b)]
    numbers = {
        "curve": [(float(step + 1), round(number, 4)) for step, number in enumerate(smooth)],
        "final": final,
        "peak": peak,
        "collapsed": bool(final < 0.5 * peak or final < 0.5 * smooth[0]),
        "area": sum(reward) / STEPS,
        "rejected": [round(number, 5) for number in record.curve("rejected")],
        "rejected_so_far": record.curve("rejected_so_far")[-1],
        "m_F": [float(f"{number:.4g}") for number in shift],
        "m_H": [float(f"{number:.4g}") for number in record.curve("curvature_objective")],
        "realised_kl": [float(f"{number:.4g}") for number in moved],
        "spearman": float(stats.spearmanr(*zip(*pairs, strict=True)).statistic),
        "entropy": [round(number, 4) for number in record.curve("entropy")],
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(numbers))
    print(f"{name}, seed {seed}, rate {rate:g}: final {final:.3f}, peak {peak:.3f}", flush=True)
    return numbers


def realised(policy: CausalPolicy) -> Callable[[Decisions], dict[str, float]]:
    """KL of the step before on its own collection, estimated by k3: what m_F predicts. The first step has none."""
    before: list[Decisions] = []

    def watch(decisions: Decisions) -> dict[str, float]:
        found = 0.0
        if before:
            old = before.pop()
            with torch.no_grad():
                log_ratio = policy.evaluate(old, frozenset({"log_prob"})).log_prob - old.behaviour_log_prob
            found = float((log_ratio.clamp(-20, 20).exp() - 1 - log_ratio)[old.mask].mean())
        before.append(decisions)
        return {"realised_kl": found}

    return watch


def summary(name: str, found: dict[Any, Any]) -> dict[str, Any]:
    """Means over the seeds with 95% intervals."""
    rows = {}
    for key in ("final", "peak", "area", "collapsed", "rejected_so_far", "spearman"):
        numbers = [float(found[name, seed][key]) for seed in range(SEEDS)]
        bound = interval(numbers, name, key)
        rows[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high, "seeds": numbers}
    return rows


def gap(name: str, to: str, found: dict[Any, Any]) -> dict[str, Any]:
    """`name` minus `to`, paired by seed."""
    rows = {}
    for key in ("final", "area", "collapsed"):
        first, second = ({seed: float(found[arm, seed][key]) for seed in range(SEEDS)} for arm in (to, name))
        bound = paired_difference(first, second, name, to, key)
        rows[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
    return rows
