"""MiniRL and Routing Replay (arXiv 2512.01374), small: which of its parts keeps training stable, and when?

A mixture of experts (2 layers, 8 experts, top-2, width 48) learns addition of one digit from a cold start. An
engine of lower precision samples, the policy trains in float32; every update takes 32 responses, so N times as many
are sampled for N updates. Arms that are compared take equally many updates at one rate and see the same prompts.

    theory   gradients by enumeration (3 tokens, at most 4 of them): token against sequence objective
    rate     MiniRL on policy at three rates: the greatest one at which no seed collapses is every arm's on policy, and
             the next one, at which it would, every arm's off policy: the stress test
    sweep    three engines, coarser and coarser: MiniRL on policy, with and without the engine correction
    A        on policy with the coarsest engine: MiniRL, without the correction, with length norm, with R3
    B        N = 2, 4, 8: MiniRL, no mask, R2 without mask, R2, R3; at N = 4 also GRPO and CISPO
    C        three cold starts of different length, one longer recipe: MiniRL on policy with the finest engine
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

import ascent
from ascent.core.method import Method
from ascent.core.term import Term
from ascent.evaluation.exact.first_order import agreement, expected_gradient
from ascent.evaluation.exact.policy import TabularPolicy, tabular
from ascent.evaluation.exact.problems import sequence
from ascent.evaluation.exact.tree import gradient
from ascent.evaluation.intervals import Interval, interval, paired_difference
from ascent.policies.engine import Engine
from ascent.policies.mixture import MixturePolicy, Replaying, embedded_mixture
from ascent.sampling.engine import EngineSampler
from ascent.sampling.text import TextSampler
from ascent.systems.trial import trial
from ascent.systems.warm_up import supervised
from ascent.systems.workers import provenance, spread
from ascent.worlds.text.arithmetic import Arithmetic

from .pictures import draw
from .verdict import verdict

RUNS = Path("runs/reproduce-stabilizing_rl")
TASK = Arithmetic(digits=1)
SEEDS, PROMPTS, GROUP = 3, 4, 8
"""Runs of an arm; prompts of an update, answers to each."""
UPDATES, STALE_UPDATES = 24, 48
"""Of a run on policy, and of one off policy."""
COLD_START, COLD_STARTS, COLD_UPDATES = 200, (100, 200, 300), 72
"""Supervised updates before A and B, and before each run of C; updates of a run of C."""
WINDOW = 0.25
"""Share of the updates at the end whose mean reward is the final score."""
RATES = (5e-4, 1e-3, 2e-3)
RATE_SEEDS = 2
ENGINES: dict[str, dict[str, Any]] = {
    "bfloat16": {"engine": "bfloat16"},
    "float8": {"engine": "float8", "engine_activations": True},
    "noisy": {"engine": "float8", "engine_activations": True, "router_noise": 0.5},
}
COARSE = "noisy"
"""The engine of A and B: weights and activations in float8, and noise of deviation 0.5 on router logits."""
OPEN = {"clip_low": None, "clip_high": None}
ARMS: dict[str, dict[str, Any]] = {
    "MiniRL": {},
    "no engine correction": {"engine_correction": False},
    "length norm": {"length_norm": True},
    "no mask": OPEN,
    "R2, no mask": {"replay": "R2", **OPEN},
    "R2": {"replay": "R2"},
    "R3": {"replay": "R3"},
}
FIRST = ("MiniRL", "no engine correction", "length norm", "R3")
STALE = ("MiniRL", "no mask", "R2, no mask", "R2", "R3")
OTHERS = ("GRPO", "CISPO")
LOGGED = ("engine_kl", "clip_fraction", "importance_changed", "routes_changed", "tokens_rerouted", "entropy")


def run(folder: Path) -> None:
    """Write result.json, the picture and verdict.md; a stopped experiment goes on where it was."""
    base()
    calls = [("MiniRL", COARSE, 1, 100 + seed, rate) for rate in RATES for seed in range(RATE_SEEDS)]
    rates: dict[str, dict[str, list[float]]] = {}
    for call, numbers in zip(calls, spread("stabilizing_rl", "one", calls), strict=True):
        own = rates.setdefault(f"{call[-1]:g}", {"area": [], "collapsed": []})
        for key in own:
            own[key].append(numbers[key])
    rate, stress = chosen(rates)
    calls = [(*cell, rate if cell[2] == 1 else stress) for cell in cells()]
    found = dict(zip(cells(), spread("stabilizing_rl", "one", calls), strict=True))
    result = {
        "settings": {
            **{"seeds": SEEDS, "updates": UPDATES, "stale_updates": STALE_UPDATES, "prompts": PROMPTS},
            **{"group_size": GROUP, "cold_start": COLD_START, "rate": rate, "stress": stress},
            **{"window": WINDOW, "rate_seeds": RATE_SEEDS, "engines": ENGINES, "coarse": COARSE},
        },
        "made": provenance(),
        "theory": theory(),
        "rates": rates,
        "arms": {name: summary(found, name) for name in dict.fromkeys(where(cell) for cell in cells())},
        "differences": differences(found),
        "cold starts": cold_starts(rate),
        "runs": {f"{where(cell)}, seed {cell[3]}": numbers for cell, numbers in found.items()},
    }
    result = json.loads(json.dumps(result))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder / "arms.png")
    (folder / "verdict.md").write_text(verdict(result))


def chosen(rates: dict[str, dict[str, list[float]]]) -> tuple[float, float]:
    """The greatest rate at which no seed collapses (the smallest one where at all rates some do), and the next one."""
    calm = [float(rate) for rate, own in rates.items() if not any(own["collapsed"])]
    rate = max(calm or [min(RATES)])
    return rate, min([greater for greater in RATES if greater > rate] or [rate])


Cell = tuple[str, str, int, int]
"""Arm, engine, N, seed."""


def cells() -> list[Cell]:
    """Every run but those of the rate."""
    kinds = [(name, engine, 1) for engine in ENGINES for name in ("MiniRL", "no engine correction")]
    kinds += [(name, COARSE, 1) for name in FIRST[2:]]
    kinds += [(name, COARSE, stale) for stale in (2, 4, 8) for name in STALE]
    kinds += [(name, COARSE, 4) for name in OTHERS]
    return [(*kind, seed) for seed in range(SEEDS) for kind in kinds]


def where(cell: Cell) -> str:
    """The name of a cell without its seed."""
    return f"{cell[0]}, {cell[1]}, N={cell[2]}"


def base(steps: int = COLD_START) -> MixturePolicy:
    """A cold start, made once."""
    disable_progress_bar()
    folder = RUNS / f"base-{steps}"
    if not folder.exists():
        policy = embedded_mixture(TASK.alphabet, hidden=48, context=32)
        supervised(policy, TASK, steps, 0, Console(quiet=True), 0.3)
        policy.save(folder)
    return MixturePolicy.load(folder)


def built(name: str, stale: int, rate: float) -> Method:
    """The method of an arm; arms without replay count changed routes all the same."""
    if name in OTHERS:
        # No reference divergence, as in MiniRL, and no refused groups: every arm learns from the same prompts.
        own = {"kl_coefficient": 0.0} if name == "GRPO" else {}
        return ascent.method(name.lower(), learning_rate=rate, minibatches=stale, **own).replace(accept=None)
    return ascent.method("stabilizing_rl", **{"replay": "watch", **ARMS[name]}, minibatches=stale, learning_rate=rate)


def one(name: str, engine: str, stale: int, seed: int, rate: float, start: int | None = None) -> dict[str, Any]:
    """One run's numbers; `start` is the cold start of a run of C."""
    words = f"{name.replace(', ', '-').replace(' ', '-')}-{engine}-N{stale}-seed{seed}-{rate:g}"
    kept = RUNS / "runs" / f"{words}{'' if start is None else f'-start{start}'}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    policy, method, rounding = base(start or COLD_START), built(name, stale, rate), ENGINES[engine]
    updates = COLD_UPDATES if start else UPDATES if stale == 1 else STALE_UPDATES
    replay = method.parameters.get("replay", "off")

    def respond(answering: MixturePolicy) -> EngineSampler:
        coarse = Engine(answering, rounding["engine"], rounding.get("engine_activations", False))
        return EngineSampler(
            coarse,
            lambda copy, decoder_of: TextSampler(
                copy, TASK, PROMPTS * stale, GROUP, TASK.max_new_tokens, seed=seed, decoder_of=decoder_of
            ),
            routes=replay in ("watch", "R3"),
            router_noise=rounding.get("router_noise", 0.0),
        )

    record = trial(
        TASK,
        policy,
        method,
        steps=updates // stale,
        prompts=PROMPTS * stale,
        group_size=GROUP,
        seed=seed,
        seen=Replaying(policy) if replay in ("R2", "R3") else None,
        respond=respond,
    )
    # A collection of N updates stands for N of them.
    reward = [number for number in record.curve("reward") for _ in range(stale)]
    last = max(int(len(reward) * WINDOW), 1)
    smooth = [sum(reward[end - last : end]) / last for end in range(last, len(reward) + 1)]
    numbers: dict[str, Any] = {
        "reward": [round(number, 4) for number in reward],
        "final": smooth[-1],
        "peak": max(smooth),
        "area": sum(reward) / len(reward),
        "collapsed": float(smooth[-1] < 0.5 * max(max(smooth), smooth[0])),
        "logged": {key: [round(x, 6) for x in record.curve(key)] for key in LOGGED},
    }
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(numbers))
    return numbers


def summary(found: dict[Cell, dict[str, Any]], name: str) -> dict[str, Any]:
    """Means and intervals of a cell over its seeds."""
    runs = [numbers for cell, numbers in found.items() if where(cell) == name]
    columns = {key: [run[key] for run in runs] for key in ("final", "peak", "area", "collapsed")}
    for key in LOGGED:
        logged = [run["logged"][key] for run in runs]
        if all(logged):
            columns[key] = [sum(series) / len(series) for series in logged]
            columns[f"{key} at the end"] = [series[-1] for series in logged]
    described = {key: interval(numbers, "stabilizing_rl", name, key) for key, numbers in columns.items()}
    return {key: {**_plain(found_), "seeds": columns[key]} for key, found_ in described.items()}


def differences(found: dict[Cell, dict[str, Any]]) -> dict[str, Any]:
    """Arms against MiniRL at the same engine and N, paired by seed."""
    gaps: dict[str, Any] = {}
    for name, engine, stale, _ in dict.fromkeys((*cell[:3], 0) for cell in found):
        if name == "MiniRL":
            continue
        for key in ("final", "area", "collapsed", "engine_kl"):
            sides = [
                {
                    cell[3]: run[key] if key in run else sum(run["logged"][key]) / len(run["logged"][key])
                    for cell, run in found.items()
                    if cell[:3] == (arm, engine, stale) and (key in run or run["logged"][key])
                }
                for arm in ("MiniRL", name)
            ]
            if not all(sides):
                continue
            gap = paired_difference(*sides, "stabilizing_rl", name, key)
            label = f"{name} - MiniRL, {engine}, N={stale}"
            gaps.setdefault(label, {})[key] = _plain(gap)
    return gaps


def cold_starts(rate: float) -> dict[str, Any]:
    """First and final rewards of C by supervised updates."""
    finest = next(iter(ENGINES))
    for steps in COLD_STARTS:
        base(steps)
    calls = [("MiniRL", finest, 1, seed, rate, steps) for steps in COLD_STARTS for seed in range(SEEDS)]
    runs = dict(zip(calls, spread("stabilizing_rl", "one", calls), strict=True))
    found: dict[str, Any] = {}
    for steps in COLD_STARTS:
        own = [numbers for call, numbers in runs.items() if call[-1] == steps]
        early = max(int(COLD_UPDATES * WINDOW) // 3, 1)
        columns = {
            "first": [sum(run["reward"][:early]) / early for run in own],
            "final": [run["final"] for run in own],
        }
        for key, numbers in columns.items():
            one_ = interval(numbers, "stabilizing_rl", "cold", key)
            found.setdefault(str(steps), {})[key] = {**_plain(one_), "seeds": numbers}
    ends = [dict(enumerate(found[str(steps)]["final"]["seeds"])) for steps in (COLD_STARTS[0], COLD_STARTS[-1])]
    found["gap"] = _plain(paired_difference(*ends, "stabilizing_rl", "cold"))
    return found


def _plain(number: Interval) -> dict[str, float]:
    return {"mean": number.estimate, "low": number.low, "high": number.high}


def theory() -> dict[str, Any]:
    """Cosine and relative error of expected gradients by the distance e of policy and sampler; 5 policies."""

    def worth(response: tuple[int, ...]) -> float:
        return {1: 0.2, 2: 1.0, 3: 0.4, 4: 0.7}[len(response)] * (1.0 if 2 in response else 0.3)

    def moved(start: TabularPolicy, size: float, seed: int) -> TabularPolicy:
        way = torch.randn(start.logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return TabularPolicy(start.logits.detach() + size * way)

    def term(**parameters: Any) -> Term:
        return ascent.method("stabilizing_rl", truncation=None, **OPEN, **parameters).losses["policy"]

    tree = sequence(worth, vocabulary=3, horizon=4)
    sizes = [0.4 / 2**step for step in range(6)]
    terms = {
        "token objective": term(),
        "length norm": term(length_norm=True),
        "no engine correction": term(engine_correction=False),
    }
    found: dict[str, Any] = {"sizes": sizes}
    for name, one_term in terms.items():
        rows = []
        for size in sizes:
            pairs = []
            for seed in range(5):
                mu = tabular(tree, seed=seed)
                policy = moved(mu, size, seed + 100)
                true = gradient(tree, policy)[: mu.logits.numel()]
                pairs.append(agreement(expected_gradient(one_term, tree, policy, mu), true))
            rows.append([sum(pair[place] for pair in pairs) / len(pairs) for place in (0, 1)])
        found[name] = {"cosine": [row[0] for row in rows], "error": [row[1] for row in rows]}
    # A gap of 0.3 between the engines that no update closes; e is staleness alone.
    for name in ("token objective", "no engine correction"):
        rows = []
        for size in sizes:
            errors = []
            for seed in range(5):
                policy = tabular(tree, seed=seed)
                true = gradient(tree, policy)[: policy.logits.numel()]
                mu, old = moved(policy, 0.3, seed + 100), moved(policy, size, seed + 200)
                errors.append(agreement(expected_gradient(terms[name], tree, policy, mu, old), true)[1])
            rows.append(sum(errors) / len(errors))
        found[f"{name}, engines 0.3 apart"] = {"error": rows}
    return found
