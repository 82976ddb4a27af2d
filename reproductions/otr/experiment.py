"""One-token rollouts (arXiv 2509.26313), small: do they generalise better and forget less than SFT on the same data?

A transformer of 2 layers has learnt three old skills and, in part, addition. It learns more addition from
demonstrations, a fifth of them odd, none with two numbers of 50 and more (skills.py). All arms see the same
demonstrations for the same number of steps; each family's learning rate is the best of three by in-domain accuracy on a
seed of its own. 3 seeds.

    arms      SFT, DFT, OTR with K = 1, 8, 256, the exact twin, kappa = 1, beta = 0
    controls  the exact twin and DFT (no sampling), weights of other positions (no tie of weight and token), label
              smoothing; and GRPO, as many own answers with rewards in place of demonstrations
    frontier  SFT and DFT at all three rates, so that OTR can be compared with them at equal in-domain accuracy
    variance  of the gradient by K, on one batch;   cost: CPU time of a step against SFT's
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ascent
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState
from ascent.core.term import Term
from ascent.evaluation.intervals import interval, paired_difference
from ascent.policies.causal import CausalPolicy
from ascent.systems.supervised import evaluated
from ascent.systems.trial import trial
from ascent.systems.workers import provenance, spread
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.program import Phase

from .controls import Elsewhere, Smoothed, Sums
from .pictures import draw
from .skills import LETTERS, OLD, Written, base, decisions, exact_match, fresh_base, problems
from .verdict import verdict

RUNS = Path("runs/reproduce-otr/runs")
STEPS, ROWS, SEEDS, TEST, PILOT, GROUP = 60, 32, 3, 96, 99, 8
RATES = (5e-4, 1e-3, 2e-3)
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT": ("sft", {"reduction": "seq-mean-token-mean"}),
    "DFT": ("sft", {"reduction": "seq-mean-token-mean", "weight": "probability"}),
    "OTR": ("otr", {}),
    "OTR K=8": ("otr", {"samples": 8}),
    "OTR K=1": ("otr", {"samples": 1}),
    "OTR exact": ("otr", {"estimator": "exact"}),
    "OTR kappa=1": ("otr", {"kappa": 1.0}),
    "OTR beta=0": ("otr", {"beta": 0.0}),
    "weights elsewhere": ("otr", {}),
    "label smoothing": ("otr", {}),
    "GRPO": ("grpo", {"kl_coefficient": 0.0}),
}
OWN = {"weights elsewhere": Elsewhere(), "label smoothing": Smoothed()}
FRONTIER = ("SFT", "DFT")
SCORES = ("target", "shifted", "old", "kl", "odd")
FIVE = ("target", "shifted", *OLD)


def family(arm: str) -> str:
    return "OTR" if arm.startswith("OTR") else arm


FAMILIES = tuple(dict.fromkeys(map(family, ARMS)))


def build(arm: str, rate: float) -> Method:
    slug, parameters = ARMS[arm]
    method = ascent.method(slug, learning_rate=rate, **parameters)
    if arm in OWN:
        method = method.replace(losses={"policy": Term(OWN[arm], reduction="seq-mean-token-mean")})
    return method


def one(arm: str, rate: float, seed: int) -> dict[str, Any]:
    """One run: exact match in domain, shifted and on old skills, KL to the base, and seconds of CPU a step."""
    kept = RUNS / f"{arm} rate{rate:g} seed{seed}.json".replace(" ", "-")
    if kept.exists():
        return json.loads(kept.read_text())
    policy, method = fresh_base(), build(arm, rate)
    watch = Watch()
    start = time.process_time()
    if arm == "GRPO":
        trial(Sums(seed), policy, method, steps=STEPS, prompts=ROWS // GROUP, group_size=GROUP, seed=seed)
    else:
        learn = Learn(
            "policy",
            evaluated(policy, method),
            method,
            Written(policy, "demonstrations", ROWS, seed),
            monitor=frozenset({"entropy"}),
        )
        Loop(System({"policy": policy}, {}, (Phase("train", (learn,), STEPS),)), [watch]).run()
    seconds = (time.process_time() - start) / STEPS
    numbers = scored(policy, seed) | {"seconds": seconds, "curves": watch.curves}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(numbers))
    print(arm, rate, seed, *(f"{name} {numbers[name]:.3f}" for name in SCORES), flush=True)
    return numbers


def scored(policy: CausalPolicy, seed: int) -> dict[str, Any]:
    """Every score of a policy on the test problems of a seed."""
    by_skill = {name: exact_match(policy, problems(name, TEST, "test", seed)) for name in OLD}
    return {
        "target": exact_match(policy, problems("target", TEST, "test", seed)),
        "shifted": exact_match(policy, problems("shifted", TEST, "test", seed)),
        "old": sum(by_skill.values()) / len(OLD),
        "kl": divergence(policy, seed),
        "odd": oddness(policy, seed),
        "skills": by_skill,
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


@torch.no_grad()
def oddness(policy: CausalPolicy, seed: int) -> float:
    """Mean probability of the odd letters where a correct solution has a semicolon; 0.2 in the demonstrations."""
    rows = decisions(problems("target", 32, "odd", seed), policy)
    semicolon, *letters = policy.tokenizer(";" + LETTERS, add_special_tokens=False)["input_ids"]
    chances = _log_policy(policy, rows)[rows.action[rows.mask] == semicolon].exp()
    return float(chances[:, letters].sum(-1).mean())


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
    base()
    pilot = [(arm, rate, PILOT) for arm in FAMILIES for rate in RATES]
    tried = dict(zip(pilot, spread("otr", "one", pilot), strict=True))
    rates = {arm: max(RATES, key=lambda rate: tried[arm, rate, PILOT]["target"]) for arm in FAMILIES}
    wanted = [(arm, rates[family(arm)], seed) for seed in range(SEEDS) for arm in ARMS]
    wanted += [(arm, rate, seed) for seed in range(SEEDS) for arm in FRONTIER for rate in RATES if rate != rates[arm]]
    found = dict(zip(wanted, spread("otr", "one", wanted), strict=True))

    def seeds(arm: str, score: str) -> dict[int, float]:
        return {seed: found[arm, rates[family(arm)], seed][score] for seed in range(SEEDS)}

    def change(arm: str, to: str, score: str) -> dict[str, float]:
        return gap(seeds(to, score), seeds(arm, score), arm, to, score)

    def matched(arm: str, to: str, score: str) -> dict[str, float]:
        """`arm` minus what `to` has at the in-domain accuracy of `arm`, between the three rates of `to`."""
        other = {
            seed: at_equal([found[to, rate, seed] for rate in RATES], found[arm, rates[arm], seed]["target"], score)
            for seed in range(SEEDS)
        }
        return gap(other, seeds(arm, score), arm, to, score, "matched")

    starts = [scored(base(), seed) for seed in range(SEEDS)]

    def below(arm: str) -> list[float]:
        """On each seed: which of the five exact-match scores are below the base model's on the same problems."""
        ends = [found[arm, rates[family(arm)], seed] for seed in range(SEEDS)]
        return [
            float(sum(a < b for a, b in zip(five(end), five(old), strict=True)))
            for end, old in zip(ends, starts, strict=True)
        ]

    pairs = [(arm, "SFT") for arm in ARMS if arm != "SFT"] + [("OTR", "OTR exact"), ("OTR", "DFT")]
    return {
        "settings": {"steps": STEPS, "rows": ROWS, "seeds": SEEDS, "test": TEST, "rates": rates},
        "made": provenance(),
        "base": {name: mean([five(start)[place] for start in starts]) for place, name in enumerate(FIVE)}
        | {name: mean([start[name] for start in starts]) for name in ("old", "odd")},
        "below": {arm: bounded(below(arm), arm, "below") for arm in ARMS},
        "pilot": {f"{arm} {rate:g}": {s: numbers[s] for s in SCORES} for (arm, rate, _), numbers in tried.items()},
        "arms": {arm: {s: bounded(list(seeds(arm, s).values()), arm, s) for s in (*SCORES, "seconds")} for arm in ARMS},
        "frontier": {
            arm: {
                f"{rate:g}": {
                    s: bounded([found[arm, rate, seed][s] for seed in range(SEEDS)], arm, f"{rate:g}", s)
                    for s in SCORES
                }
                for rate in RATES
            }
            for arm in FRONTIER
        },
        "differences": {f"{arm} - {to}": {s: change(arm, to, s) for s in SCORES} for arm, to in pairs},
        "matched": {
            f"{arm} - {to}": {s: matched(arm, to, s) for s in ("shifted", "old", "kl")}
            for arm, to in (("OTR", "SFT"), ("DFT", "SFT"), ("OTR", "DFT"))
        },
        "variance": variance(),
        "runs": {f"{arm}, rate {rate:g}, seed {seed}": numbers for (arm, rate, seed), numbers in found.items()},
    }


def five(scores: dict[str, Any]) -> list[float]:
    """The exact-match scores apart."""
    return [scores["target"], scores["shifted"], *(scores["skills"][name] for name in OLD)]


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def at_equal(points: list[dict[str, Any]], target: float, score: str) -> float:
    """The score where a line through the points, in order of in-domain accuracy, has `target`; its end beyond it."""
    ordered = sorted(points, key=lambda point: point["target"])
    return float(np.interp(target, [point["target"] for point in ordered], [point[score] for point in ordered]))


def gap(first: dict[int, float], second: dict[int, float], *words: str) -> dict[str, float]:
    """Second minus first, paired by seed."""
    found = paired_difference(first, second, *words)
    return {"mean": found.estimate, "low": found.low, "high": found.high}


def run(folder: Path) -> None:
    """Write result.json, arms.png and verdict.md."""
    result = json.loads(json.dumps(measure()))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
