"""CAPO (arXiv 2510.00819), small: does rejecting the tokens of greatest predicted shift prevent collapse?

A tiny transformer (2 layers, width 48, 17 tokens, so the model of the head is exact) learns one-digit addition by GRPO,
one Adam step a collection. The learning rate is raised until plain GRPO collapses; there the arms are compared.

    sweep      plain GRPO at three rates: the smallest at which most seeds collapse, the best conservative one; CAPO
               at the same three, which gives CAPO at its own best rate
    thresholds 95% quantiles of m_F and |m_H| over the first 5 updates of a conservative run, predicted for a step at
               the rate of the arm; fixed before the comparison, and a sweep of a tenth, a third and three times them
    arms       GRPO, CAPO with the Adam model, with the SGD model, on whole responses, on the update, as a penalty, as
               many tokens rejected at random, conservative GRPO
    baselines  at the aggressive rate: PPO clips of 0.2, 0.02, 0.002 over two passes, three strengths of the KL
    calibrated predicted against realised KL of a step, for tokens' own steps and for the update's
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from ascent.training.annotate import log_prob_of
from ascent.worlds.text.arithmetic import Arithmetic

from .pictures import draw
from .verdict import verdict

RUNS = Path("runs/reproduce-capo")
TASK = Arithmetic(digits=1)
STEPS, SEEDS, SWEEP_SEEDS, CALIBRATION, FEW = 30, 5, 2, 5, 3
WARM_UP = 5
"""Updates over which every arm's rate rises, as in the released recipe (a tenth of its steps)."""
RATES = (1e-3, 2e-3, 4e-3)
SETTINGS = {"prompts": 16, "group_size": 8}
SCALES = (0.1, 0.3, 3.0)
"""Of both thresholds, in the sweep."""
PENALTIES = (1.0, 10.0, 100.0)
"""Of the soft variant; chosen on a seed of the sweep."""
OPEN = {"objective_threshold": math.inf, "policy_threshold": math.inf}
ARMS: dict[str, dict[str, Any]] = {
    "GRPO": {**OPEN, "diagnostics": True},
    "CAPO, Adam model": {"model": "adam", "diagnostics": True},
    "CAPO, SGD model": {"model": "sgd"},
    "CAPO, responses": {"level": "sentence"},
    "CAPO, updates": {"level": "global"},
    "CAPO, penalty": {**OPEN, "penalty": "policy"},
    "random rejection": {"model": "adam", "control": True},
    "PPO clip 0.2": {"clip_low": 0.2, "clip_high": 0.2, "kl_coefficient": 0.0, "passes": 2},
    "PPO clip 0.02": {"clip_low": 0.02, "clip_high": 0.02, "kl_coefficient": 0.0, "passes": 2},
    "PPO clip 0.002": {"clip_low": 0.002, "clip_high": 0.002, "kl_coefficient": 0.0, "passes": 2},
    "KL 0.01": {"kl_coefficient": 0.01},
    "KL 0.1": {"kl_coefficient": 0.1},
    "KL 1": {"kl_coefficient": 1.0},
    "CAPO, best rate": {"model": "adam"},
    "conservative GRPO": OPEN,
}
OFTEN = ("GRPO", "CAPO, Adam model", "random rejection", "CAPO, best rate", "conservative GRPO")
RARE = frozenset(ARMS) - frozenset(OFTEN)
"""Arms on fewer seeds."""
CALIBRATED = {"CAPO, Adam model": "adam", "random rejection": "adam", "CAPO, best rate": "adam"}
CALIBRATED |= {"CAPO, SGD model": "sgd", "CAPO, responses": "sentence", "CAPO, updates": "global"}
"""Arms with thresholds, by what those are a quantile of."""
WINDOW = 5
"""Steps whose mean reward counts as a score."""


def run(folder: Path) -> None:
    """Write result.json, the pictures and verdict.md; a stopped experiment goes on where it was."""
    base()
    sweep = swept("GRPO", {rate: {} for rate in RATES})
    wild = [rate for rate in RATES if sum(sweep[rate]["collapsed"]) > SWEEP_SEEDS / 2]
    aggressive = wild[0] if wild else RATES[-1]
    calm = [rate for rate in RATES if not any(sweep[rate]["collapsed"]) and rate < aggressive]
    gentle = max(calm or RATES[:1], key=lambda rate: sum(sweep[rate]["area"]))
    at_rate = {rate: calibrated("adam", gentle, rate) for rate in RATES}
    own = swept("CAPO, best rate", at_rate)
    best = max(RATES, key=lambda rate: sum(own[rate]["area"]))
    thresholds = {kind: calibrated(kind, gentle, aggressive) for kind in ("adam", "sgd", "sentence", "global")}
    calls = [("CAPO, penalty", 100, aggressive, {"penalty_coefficient": size}) for size in PENALTIES]
    tried = dict(zip(PENALTIES, (one["area"] for one in spread("capo", "one", calls)), strict=True))
    penalty = max(PENALTIES, key=lambda size: tried[size])

    def call(name: str, seed: int) -> tuple[str, int, float, dict[str, float]]:
        rate = gentle if name.startswith("conservative") else best if name.endswith("best rate") else aggressive
        if name == "CAPO, penalty":
            return name, seed, rate, {"penalty_coefficient": penalty}
        found = at_rate[best] if name.endswith("best rate") else thresholds.get(CALIBRATED.get(name, ""), {})
        return name, seed, rate, found

    calls = [call(name, seed) for seed in range(SEEDS) for name in ARMS if seed in seeds(name)]
    scaled = [
        ("CAPO, Adam model", seed, aggressive, {name: size * scale for name, size in thresholds["adam"].items()})
        for scale in SCALES
        for seed in range(FEW)
    ]
    runs = spread("capo", "one", calls + scaled)
    found = dict(zip(((one[0], one[1]) for one in calls), runs[: len(calls)], strict=True))
    scales = {1.0: [found["CAPO, Adam model", seed] for seed in range(FEW)]}
    scales |= {scale: runs[len(calls) + place * FEW :][:FEW] for place, scale in enumerate(SCALES)}
    pairs = [("CAPO, Adam model", name) for name in ("GRPO", "random rejection", "conservative GRPO")]
    pairs += [(name, "GRPO") for name in ARMS if name not in ("GRPO", "CAPO, Adam model", "conservative GRPO")]
    pairs += [("CAPO, best rate", "conservative GRPO")]
    settings = {"steps": STEPS, "seeds": SEEDS, "sweep_seeds": SWEEP_SEEDS, "few": FEW, "window": WINDOW}
    result = {
        "settings": {**SETTINGS, **settings, "warm_up": WARM_UP},
        "rates": {"aggressive": aggressive, "conservative": gentle, "CAPO": best, "collapse found": bool(wild)},
        "sweep": {"GRPO": tidy(sweep), "CAPO": tidy(own)},
        "thresholds": thresholds,
        "penalty": {"chosen": penalty, "tried": {f"{size:g}": area for size, area in tried.items()}},
        "scales": {
            f"{scale:g}": {key: mean([run[key] for run in each]) for key in ("final", "area", "rejected_so_far")}
            for scale, each in sorted(scales.items())
        },
        "calibration": calibration(found),
        "made": provenance(),
        "arms": {name: summary(name, found) for name in ARMS},
        "differences": {f"{name} - {to}": gap(name, to, found) for name, to in pairs},
        "runs": {f"{name}, seed {seed}": numbers for (name, seed), numbers in found.items()},
    }
    result = json.loads(json.dumps(result))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    arms = [
        Arm(name, [Seed(seed, found[name, seed]["curve"], found[name, seed]["final"]) for seed in seeds(name)])
        for name in PICTURED
    ]
    plot(arms, folder / "arms.png", score="reward of the samples", title="Aggressive learning rate", limits=(0, 1))
    draw(result, folder / "curvature.png")
    (folder / "verdict.md").write_text(verdict(result))


PICTURED = ("GRPO", "CAPO, Adam model", "CAPO, SGD model", "CAPO, updates", "random rejection")
PICTURED += ("KL 1", "PPO clip 0.002", "conservative GRPO")


def seeds(name: str) -> range:
    """Of an arm."""
    return range(FEW if name in RARE else SEEDS)


def swept(name: str, thresholds: dict[float, dict[str, float]]) -> dict[float, dict[str, Any]]:
    """An arm at every rate on seeds of its own: who collapsed, and the mean reward."""
    calls = [(name, 100 + seed, rate, thresholds[rate]) for rate in RATES for seed in range(SWEEP_SEEDS)]
    made: dict[float, dict[str, Any]] = {rate: {"collapsed": [], "area": []} for rate in RATES}
    for (_, _, rate, _), numbers in zip(calls, spread("capo", "one", calls), strict=True):
        for key in ("collapsed", "area"):
            made[rate][key].append(numbers[key])
    return made


def tidy(sweep: dict[float, Any]) -> dict[str, Any]:
    return {f"{rate:g}": numbers for rate, numbers in sweep.items()}


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def calibration(found: dict[Any, Any]) -> dict[str, Any]:
    """Of every step of GRPO at the aggressive rate: realised KL against m_F of tokens' own steps, and of the update's.

    `ratio` is the median of realised / predicted, `slope` that of the logarithms by least squares, `rank` Spearman's.
    """
    made = {}
    for kind, column in (("tokens", "m_F"), ("update", "m_F update")):
        pairs = []
        for seed in range(SEEDS):
            run = found["GRPO", seed]
            pairs += [(a, b) for a, b in zip(run[column][:-1], run["realised_kl"][1:], strict=True) if a > 0 and b > 0]
        predicted, moved = (np.log([pair[place] for pair in pairs]) for place in (0, 1))
        made[kind] = {
            "ratio": float(np.exp(np.median(moved - predicted))),
            "slope": float(np.polyfit(predicted, moved, 1)[0]),
            "rank": float(stats.spearmanr(predicted, moved).statistic),
            "steps": len(pairs),
        }
    return made


def base() -> CausalPolicy:
    """The warmed-up policy, made once."""
    disable_progress_bar()
    where = RUNS / "base"
    if not where.exists():
        policy = embedded(TASK.alphabet, hidden=48, layers=2, context=32)
        supervised(policy, TASK, 150, 0, Console(quiet=True), 0.3)
        policy.save(where)
    return CausalPolicy.load(where)


def calibrated(kind: str, gentle: float, rate: float) -> dict[str, float]:
    """Thresholds: what the steps of a conservative run would shift at `rate`, of tokens, responses or the update."""
    model = "sgd" if kind == "sgd" else "adam"
    method = ascent.method("capo", learning_rate=rate, model=model, diagnostics=True, **OPEN)
    policy = base()
    record = trial(
        TASK,
        policy,
        method.replace(step=Adam(gentle)),
        steps=CALIBRATION,
        seed=200,
        seen=WithLogits(policy),
        **SETTINGS,
    )
    if kind == "global":  # one number an update: the greatest of the few
        names = {"objective_threshold": "global_objective", "policy_threshold": "global_policy"}
        return {name: max(map(abs, record.curve(logged))) for name, logged in names.items()}
    level = "sentence" if kind == "sentence" else "curvature"
    names = {"objective_threshold": f"{level}_objective_q95", "policy_threshold": f"{level}_policy_q95"}
    return {name: mean(record.curve(logged)) for name, logged in names.items()}


def one(name: str, seed: int, rate: float, thresholds: dict[str, float]) -> dict[str, Any]:
    """One run's numbers."""
    words = "-".join(f"{size:.3g}" for size in thresholds.values())
    kept = RUNS / "runs" / f"{name.replace(' ', '-').replace(',', '')}-seed{seed}-rate{rate:g}-{words}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    policy = base()
    options: dict[str, Any] = {}
    if name.startswith(("PPO", "KL")):
        method = ascent.method("grpo", learning_rate=rate, eps=1e-4, **ARMS[name])
        alike = ascent.method("capo", learning_rate=rate, warmup=WARM_UP * method.plan.passes)
        method = method.replace(step=alike.step)
        if name.startswith("KL"):
            options["scorers"] = {"reference_log_prob": log_prob_of(base().requires_grad_(False))}
    else:
        method = ascent.method("capo", learning_rate=rate, warmup=WARM_UP, **ARMS[name], **thresholds)
        method = mirrored(method, policy.temperature)
        options["seen"] = WithLogits(policy)
    watch = realised(policy)
    record = trial(TASK, policy, method, steps=STEPS, seed=seed, watch=watch, **options, **SETTINGS)
    reward = record.curve("reward")
    smooth = [sum(part) / len(part) for part in (reward[max(0, end - WINDOW) : end] for end in range(1, STEPS + 1))]
    peak, final = max(smooth[WINDOW - 1 :]), smooth[-1]
    shift, moved = record.curve("curvature_policy"), record.curve("realised_kl")
    pairs = [(a, b) for a, b in zip(shift[:-1], moved[1:], strict=False) if math.isfinite(a) and math.isfinite(b)]
    numbers = {
        "curve": [(float(step + 1), round(number, 4)) for step, number in enumerate(smooth)],
        "final": final,
        "peak": peak,
        "collapsed": bool(final < 0.5 * peak or final < 0.5 * smooth[0]),
        "area": sum(reward) / STEPS,
        "rejected": [round(number, 5) for number in record.curve("rejected")],
        "rejected_so_far": (record.curve("rejected_so_far") or [0.0])[-1],
        "m_F update": [float(f"{number:.4g}") for number in record.curve("global_policy")],
        "m_F": [float(f"{number:.4g}") for number in shift],
        "m_H": [float(f"{number:.4g}") for number in record.curve("curvature_objective")],
        "realised_kl": [float(f"{number:.4g}") for number in moved],
        "spearman": float(stats.spearmanr(*zip(*pairs, strict=True)).statistic) if shift else 0.0,
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
        numbers = [float(found[name, seed][key]) for seed in seeds(name)]
        bound = interval(numbers, name, key)
        rows[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high, "seeds": numbers}
    return rows


def gap(name: str, to: str, found: dict[Any, Any]) -> dict[str, Any]:
    """`name` minus `to`, paired by seed."""
    rows = {}
    for key in ("final", "area", "collapsed"):
        first, second = ({seed: float(found[arm, seed][key]) for seed in seeds(arm)} for arm in (to, name))
        bound = paired_difference(first, second, name, to, key)
        rows[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
    return rows
