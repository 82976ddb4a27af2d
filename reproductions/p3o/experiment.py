"""P3O (arXiv 2310.00212), small: the KL-reward frontier against PPO and DPO, and what a shift of the reward does.

A reference, a hidden score, and a Bradley-Terry reward model trained here on 3000 noisy comparisons (strings.py).
Every method sees the reward model only and draws as many strings; KL and scores are exact. 5 seeds.

    arms      PPO (value head, GAE, KL in the reward), P3O-V1, P3O-V2, online DPO, and RLOO with 2 samples as a control
    frontier  three betas each; the learning rate of each method is the best of three on another seed
    shift     the same runs with reward + delta(x), ten standard deviations large
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import ascent
from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.returns import GAE, LambdaReturn
from ascent.core.shaping import Penalised
from ascent.evaluation.intervals import interval, paired_difference
from ascent.policies.actor_critic import ActorCritic
from ascent.systems.workers import provenance, spread
from ascent.training.annotate import log_prob_of
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase

from .pictures import draw
from .strings import divergence, expected, offsets, pairs, policy_table, reference, reward_model, score_table
from .verdict import verdict

STEPS, PAIRS, PASSES, SEEDS, PILOT, EVERY = 45, 64, 4, 5, 99, 3
BETAS = (0.1, 0.3, 1.0)
RATES = (5e-4, 1.5e-3, 5e-3)
MIDDLE = BETAS[1]
LEVELS = (1.0, 2.0, 4.0, 8.0)
"""KL to the reference at which frontiers are compared, nats a string."""
SIZE = 10.0
METHODS = ("PPO", "P3O-V1", "P3O-V2", "DPO", "RLOO")
Run = tuple[str, float, float, int, float]
"""Method, beta, learning rate, seed, size of the shift."""


def build(name: str, beta: float, rate: float) -> Method:
    if name == "PPO":
        penalised = Penalised(beta)
        ppo = ascent.method("ppo", discount=1.0, passes=PASSES, minibatches=1, unit="row", learning_rate=rate)
        return ppo.replace(
            advantage=GAE(1.0, 0.95, reward=penalised), value_target=LambdaReturn(1.0, 0.95, reward=penalised)
        )
    if name == "DPO":
        return ascent.method("dpo", beta=beta, passes=PASSES, learning_rate=rate)
    if name == "RLOO":
        return ascent.method("rloo", kl_coefficient=beta, learning_rate=rate)
    return ascent.method("p3o", variant=name[-2:].lower(), beta=beta, passes=PASSES, learning_rate=rate)


class Sampler:
    """Two strings of each of 64 prompts from the present policy, scored by the reward model and the shift."""

    def __init__(self, policy: ActorCritic, step: Any, seed: int) -> None:
        self.policy, self.step, self.seed, self.consumed = policy, step, seed, 0

    def act(self, step: int) -> Decisions:
        self.consumed += PAIRS
        return pairs(policy_table(self.policy), self.step, PAIRS, "act", self.seed, step)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Draws are hashes; there is nothing to restore."""


def one(name: str, beta: float, rate: float, seed: int, shift: float) -> dict[str, Any]:
    """One run: (step, KL, hidden score, reward model's score) along the way, all exact."""
    policy = copy.deepcopy(reference(seed))
    proxy, quality = reward_model(seed)
    true, log_ref = score_table(seed), policy_table(reference(seed))
    memory = Fresh()
    collect = Collect("collect", Sampler(policy, proxy + offsets(seed, shift * quality["std"]), seed), memory)
    learn = Learn(
        "policy",
        policy,
        build(name, beta, rate),
        memory,
        scorers={"reference_log_prob": log_prob_of(reference(seed))},
        seed=seed,
        exact_behaviour=True,
    )
    curve = []

    def measured(step: int) -> dict[str, float]:
        now = policy_table(policy)
        curve.append((step, divergence(now, log_ref), expected(now, true), expected(now, proxy)))
        return {}

    system = System({"policy": policy}, {"memory": memory}, (Phase("train", (collect, learn), STEPS),), measured)
    Loop(system, evaluate_every=EVERY).run()
    return {"curve": [[round(x, 5) for x in point] for point in curve], "reward model": quality}


def reached(*curves: list[list[float]]) -> float:
    """The area from recorded points alone: mean over the levels of the best hidden score within its KL.

    Learning rates are chosen by it. It handicaps a method that takes large steps.
    """
    points = [(kl, true) for curve in curves for _, kl, true, _ in curve]
    return mean([max(true for kl, true in points if kl <= level) for level in LEVELS])


def frontier(curves: list[list[list[float]]]) -> list[float]:
    """Best hidden score of these runs where the KL is at most each level, on straight lines between recorded points."""
    best = [-math.inf] * len(LEVELS)
    for curve in curves:
        for (_, kl, true, _), (_, next_kl, next_true, _) in itertools.pairwise([*curve, curve[-1]]):
            for place, level in enumerate(LEVELS):
                if kl <= level:
                    best[place] = max(best[place], true)
                if min(kl, next_kl) < level < max(kl, next_kl):
                    share = (level - kl) / (next_kl - kl)
                    best[place] = max(best[place], true + share * (next_true - true))
    return best


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def bounded(numbers: list[float], *words: str) -> dict[str, Any]:
    """Every seed's number, their mean and its 95% interval."""
    found = interval(numbers, *words)
    return {"seeds": numbers, "mean": found.estimate, "low": found.low, "high": found.high}


def gap(first: list[float], second: list[float], *words: str) -> dict[str, float]:
    """`second` minus `first`, paired by seed."""
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)), *words)
    return {"mean": found.estimate, "low": found.low, "high": found.high}


def measure() -> dict[str, Any]:
    """Choose rates on the pilot seed, then run every method, with and without the shift."""
    pilot = [(name, MIDDLE, rate, PILOT, 0.0) for name in METHODS for rate in RATES]
    tried = dict(zip(pilot, spread("p3o", "one", pilot), strict=True))
    areas = {run[:3]: reached(found["curve"]) for run, found in tried.items()}
    rates = {name: max(RATES, key=lambda rate: areas[name, MIDDLE, rate]) for name in METHODS}
    wanted = [(name, beta, rates[name], seed, 0.0) for seed in range(SEEDS) for name in METHODS for beta in BETAS] + [
        (name, MIDDLE, rates[name], seed, SIZE) for seed in range(SEEDS) for name in METHODS
    ]
    found = dict(zip(wanted, spread("p3o", "one", wanted), strict=True))
    pilots = {f"{name} {rate:g}": area for (name, _, rate), area in areas.items()}
    return {"rates": rates, "pilot": pilots, "made": provenance(), **analysed(rates, found)}


def analysed(rates: dict[str, float], found: dict[Run, dict[str, Any]]) -> dict[str, Any]:
    """Everything that follows from the runs."""
    wanted = list(found)

    def curve(name: str, beta: float, seed: int, shift: float = 0.0) -> list[list[float]]:
        points: list[list[float]] = found[name, beta, rates[name], seed, shift]["curve"]
        return points

    seeds = range(SEEDS)
    fronts = {name: [frontier([curve(name, beta, seed) for beta in BETAS]) for seed in seeds] for name in METHODS}
    area = {name: [mean(front) for front in fronts[name]] for name in METHODS}
    recorded = {name: [reached(*(curve(name, beta, seed) for beta in BETAS)) for seed in seeds] for name in METHODS}

    def values(name: str, seed: int, shift: float) -> list[float]:
        """The reward model's score - beta KL along a run."""
        return [proxy - MIDDLE * kl for _, kl, _, proxy in curve(name, MIDDLE, seed, shift)]

    def moved(name: str, seed: int) -> float:
        both = zip(curve(name, MIDDLE, seed), curve(name, MIDDLE, seed, SIZE), strict=True)
        return max(abs(a - b) for first, second in both for a, b in zip(first[1:], second[1:], strict=True))

    compared = (("P3O-V1", "PPO"), ("P3O-V2", "PPO"), ("P3O-V2", "DPO"), ("P3O-V1", "RLOO"), ("P3O-V2", "RLOO"))
    return {
        "settings": {
            "steps": STEPS,
            "pairs": PAIRS,
            "passes": PASSES,
            "seeds": SEEDS,
            "betas": BETAS,
            "levels": LEVELS,
        },
        "reward model": [found["PPO", MIDDLE, rates["PPO"], seed, 0.0]["reward model"] for seed in seeds],
        "reference": [curve("PPO", MIDDLE, seed)[0] for seed in seeds],
        "frontier": {
            name: {
                **{
                    f"{level:g}": bounded([f[place] for f in fronts[name]], name, str(level))
                    for place, level in enumerate(LEVELS)
                },
                "area": bounded(area[name], name, "area"),
            }
            for name in METHODS
        },
        "recorded": {
            f"{name} - {to}": gap(recorded[to], recorded[name], name, to, "recorded") for name, to in compared
        },
        "differences": {f"{name} - {to}": gap(area[to], area[name], name, to) for name, to in compared},
        "final": {
            name: {
                f"{beta:g}": {
                    kind: bounded([curve(name, beta, seed)[-1][column] for seed in seeds], name, str(beta), kind)
                    for kind, column in (("kl", 1), ("true", 2), ("proxy", 3))
                }
                for beta in BETAS
            }
            for name in METHODS
        },
        "shift": {
            name: {
                "moved": bounded([moved(name, seed) for seed in seeds], name, "moved"),
                **{
                    kind: gap(
                        [read(values(name, seed, 0.0)) for seed in seeds],
                        [read(values(name, seed, SIZE)) for seed in seeds],
                        name,
                        "shift",
                        kind,
                    )
                    for kind, read in (("change", lambda curve: curve[-1]), ("average", mean))
                },
            }
            for name in METHODS
        },
        "curves": {
            f"{name}, beta {beta:g}, seed {seed}" + (", shifted" if shift else ""): found[
                name, beta, rate, seed, shift
            ]["curve"]
            for name, beta, rate, seed, shift in wanted
        },
    }


def run(folder: Path) -> None:
    """Write result.json, frontier.png and verdict.md."""
    result = json.loads(json.dumps(measure()))
    (folder / "result.json").write_text(json.dumps(result) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
