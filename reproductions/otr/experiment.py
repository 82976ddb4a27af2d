"""One-token rollouts (arXiv 2509.26313), small: do they generalise better and forget less than SFT on the same data?

A transformer of 2 layers with three old skills learns a new one from demonstrations, a fifth of them odd (skills.py).
All arms see the same demonstrations for the same number of steps; the learning rate of each family (SFT, DFT, OTR) is
the best of three by in-domain accuracy on another seed. 5 seeds.

    arms      SFT, DFT, OTR with K = 1, 8, 256, the exact twin, kappa = 1, beta = 0
    control   the exact twin and DFT: what remains of a lead there is not due to sampling
    variance  of the gradient by K, on one batch;   cost: CPU time of a step against SFT's
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch

import ascent
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState
from ascent.evaluation.intervals import interval, paired_difference
from ascent.policies.causal import CausalPolicy
from ascent.systems.supervised import evaluated
from ascent.systems.workers import provenance, spread
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.program import Phase

from .pictures import draw
from .skills import OLD, Written, base, decisions, exact_match, fresh_base, problems
from .verdict import verdict

STEPS, ROWS, SEEDS, TEST, PILOT = 100, 32, 5, 96, 99
RATES = (3e-4, 1e-3, 3e-3)
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT": ("sft", {"reduction": "seq-mean-token-mean"}),
    "DFT": ("sft", {"reduction": "seq-mean-token-mean", "weight": "probability"}),
    "OTR": ("otr", {}),
    "OTR K=8": ("otr", {"samples": 8}),
    "OTR K=1": ("otr", {"samples": 1}),
    "OTR exact": ("otr", {"estimator": "exact"}),
    "OTR kappa=1": ("otr", {"kappa": 1.0}),
    "OTR beta=0": ("otr", {"beta": 0.0}),
}
FAMILIES = ("SFT", "DFT", "OTR")
SCORES = ("target", "shifted", "old", "kl")


def family(arm: str) -> str:
    return "OTR" if arm.startswith("OTR") else arm


def build(arm: str, rate: float) -> Method:
    slug, parameters = ARMS[arm]
    return ascent.method(slug, learning_rate=rate, **parameters)


def one(arm: str, rate: float, seed: int) -> dict[str, Any]:
    """One run: exact match in domain, shifted and on old skills, KL to the base, and seconds of CPU a step."""
    policy, method = fresh_base(), build(arm, rate)
    learn = Learn(
        "policy",
        evaluated(policy, method),
        method,
        Written(policy, "demonstrations", ROWS, seed),
        monitor=frozenset({"entropy"}),
    )
    watch = Watch()
    start = time.process_time()
    Loop(System({"policy": policy}, {}, (Phase("train", (learn,), STEPS),)), [watch]).run()
    seconds = (time.process_time() - start) / STEPS
    by_skill = {name: exact_match(policy, problems(name, TEST, "test", seed)) for name in OLD}
    return {
        "target": exact_match(policy, problems("target", TEST, "test", seed)),
        "shifted": exact_match(policy, problems("shifted", TEST, "test", seed)),
        "old": sum(by_skill.values()) / len(OLD),
        "kl": divergence(policy, seed),
        "skills": by_skill,
        "seconds": seconds,
        "curves": watch.curves,
    }


class Watch:
    """What the updates logged."""

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {}

    def stepped(self, loop: Loop, metrics: Any) -> None:
        for name in ("entropy", "hit_positions", "hits", "probability"):
            if name in metrics:
                self.curves.setdefault(name, []).append(round(metrics[name], 4))

    def updated(self, loop: Loop) -> None:
        """Only steps are watched."""

    def evaluated(self, loop: Loop, scores: Any) -> None:
        """Scores are taken at the end."""


@torch.no_grad()
def divergence(policy: CausalPolicy, seed: int) -> float:
    """Mean KL(base, policy) a token on correct solutions of old skills, from the base's whole distributions."""
    rows = decisions([row for name in OLD for row in problems(name, 32, "kl", seed)], policy)
    logits = [_log_policy(model, rows) for model in (base(), policy)]
    return float((logits[0].exp() * (logits[0] - logits[1])).sum(-1).mean())


def _log_policy(policy: CausalPolicy, rows: Any) -> torch.Tensor:
    hidden = policy.evaluate(rows, frozenset({"features"})).features[rows.mask]
    output = policy.base.get_output_embeddings()
    return torch.log_softmax(output(hidden).double(), -1)


def variance(counts: tuple[int, ...] = (1, 4, 16, 64, 256), draws: int = 12) -> dict[str, float]:
    """Trace of the covariance of the whole gradient on one batch by K, over the exact one's squared norm."""
    policy = base()
    content = Written(policy, "demonstrations", ROWS, 0).draw(0)
    parameters = [weight for weight in policy.parameters() if weight.requires_grad]

    def gradient(**parameters_: Any) -> torch.Tensor:
        method = ascent.method("otr", **parameters_)
        rows = method.annotate(content, MethodState(method.start().parts, Clock()))
        now = evaluated(policy, method).evaluate(rows, method.evaluates)
        loss, _ = method.loss(now, rows)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    truth = gradient(estimator="exact")
    return {
        str(k): float(
            torch.stack([(gradient(samples=k, seed=seed) - truth).square().sum() for seed in range(draws)]).mean()
            / truth.square().sum()
        )
        for k in counts
    }


def bounded(numbers: list[float], *words: str) -> dict[str, Any]:
    """Every seed's number, their mean and its 95% interval, which ends where no number can be."""
    found = interval(numbers, *words)
    most = 1.0 if words[-1] in ("target", "shifted", "old") else math.inf
    low, high = max(found.low, 0.0), min(found.high, most)
    return {"seeds": numbers, "mean": found.estimate, "low": low, "high": high}


def measure() -> dict[str, Any]:
    """Choose the rates on the pilot seed, then run every arm on the others."""
    pilot = [(arm, rate, PILOT) for arm in FAMILIES for rate in RATES]
    tried = dict(zip(pilot, spread("otr", "one", pilot), strict=True))
    rates = {arm: max(RATES, key=lambda rate: tried[arm, rate, PILOT]["target"]) for arm in FAMILIES}
    wanted = [(arm, rates[family(arm)], seed) for seed in range(SEEDS) for arm in ARMS]
    found = dict(zip(wanted, spread("otr", "one", wanted), strict=True))

    def seeds(arm: str, score: str) -> dict[int, float]:
        return {seed: found[arm, rates[family(arm)], seed][score] for seed in range(SEEDS)}

    def change(arm: str, to: str, score: str) -> dict[str, float]:
        gap = paired_difference(seeds(to, score), seeds(arm, score), arm, to, score)
        return {"mean": gap.estimate, "low": gap.low, "high": gap.high}

    before = {name: exact_match(base(), problems(name, TEST, "test", 0)) for name in (*OLD, "target", "shifted")}
    pairs = [(arm, "SFT") for arm in ARMS if arm != "SFT"] + [("OTR", "OTR exact"), ("OTR", "DFT")]
    return {
        "settings": {"steps": STEPS, "rows": ROWS, "seeds": SEEDS, "test": TEST, "rates": rates},
        "pilot": {f"{arm} {rate:g}": {s: tried[arm, rate, PILOT][s] for s in SCORES} for arm, rate, _ in pilot},
        "base": before,
        "made": provenance(),
        "arms": {arm: {s: bounded(list(seeds(arm, s).values()), arm, s) for s in (*SCORES, "seconds")} for arm in ARMS},
        "differences": {f"{arm} - {to}": {s: change(arm, to, s) for s in SCORES} for arm, to in pairs},
        "variance": variance(),
        "runs": {f"{arm}, seed {seed}": numbers for (arm, _, seed), numbers in found.items()},
    }


def run(folder: Path) -> None:
    """Write result.json, arms.png and verdict.md."""
    result = json.loads(json.dumps(measure()))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
