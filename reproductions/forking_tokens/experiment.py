"""Forking tokens (arXiv 2506.01939), small: are the top 20% of tokens enough, and the other 80% not?

A tiny transformer writes a synthetic language with real forks (choices.py): three choices among 18 tokens, the rest
follows from them. One warm-up for all. Each arm takes its own best learning rate of two, chosen on another seed; then
every arm has the same seeds, prompts, responses and steps. Top and random 20% also run at the other rate, so that they
are compared at equal rates too.

    arms      all tokens (DAPO), top 20%, bottom 80%, random 20%; top 20% divided by all tokens; top 10%, top 50%
    equal     top and random 20% at both rates
    patterns  which tokens fork, what training leaves of the pattern, temperature at forks and elsewhere
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

import ascent
from ascent.core.decisions import Decisions
from ascent.evaluation.arms import Arm, Seed
from ascent.evaluation.entropy_patterns import percentiles, top_positions
from ascent.evaluation.intervals import interval, paired_difference
from ascent.evaluation.plot import plot
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import embedded
from ascent.sampling.text import TextSampler
from ascent.systems import entropy_study
from ascent.systems.trial import trial
from ascent.systems.warm_up import supervised
from ascent.systems.workers import provenance, spread

from .choices import LETTERS, Choices
from .verdict import verdict

RUNS = Path("runs/reproduce-forking_tokens")
STEPS, SEEDS, FEW_SEEDS, TUNING_SEEDS = 50, 5, 3, 1
RATES = (3e-4, 6e-4)
SETTINGS = {"prompts": 16, "group_size": 8, "evaluate_every": 25, "samples": 4}
PLAIN = {"minibatches": 2, "dynamic_sampling": False, "overlong_buffer": 0.0}
ARMS: dict[str, dict[str, Any]] = {
    "all tokens": {"select": "all"},
    "top 20%": {"select": "top"},
    "bottom 80%": {"select": "bottom"},
    "random 20%": {"select": "random"},
    "top 20%, / all": {"select": "top", "normalise_by": "all"},
    "top 10%": {"select": "top", "rho": 0.1},
    "top 50%": {"select": "top", "rho": 0.5},
}
TUNED = ("all tokens", "top 20%", "bottom 80%", "random 20%")
"""The arms with a grid of their own; the variants of top 20% take its rate."""
EQUAL = ("top 20%", "random 20%")
"""Arms that run at every rate."""
FEW = ("top 20%, / all", "top 10%", "top 50%")
"""The ablations, on fewer seeds."""
TASK = Choices()


def run(folder: Path) -> None:
    """Write result.json, the pictures and verdict.md; a stopped experiment goes on where it was."""
    base()
    rates, grid = tuned()
    calls = [(name, seed, rates[name], STEPS) for seed in range(SEEDS) for name in ARMS if seed in seeds(name)]
    calls += [(name, seed, rate, STEPS) for name in EQUAL for rate in RATES for seed in range(SEEDS)]
    calls = list(dict.fromkeys(calls))
    each = dict(zip((call[:3] for call in calls), spread("forking_tokens", "one", calls), strict=True))
    found = {(name, seed): each[name, seed, rates[name]] for name in ARMS for seed in seeds(name)}
    result = {
        "settings": {
            **SETTINGS,
            **PLAIN,
            "steps": STEPS,
            "seeds": SEEDS,
            "few_seeds": FEW_SEEDS,
            "tuning_seeds": TUNING_SEEDS,
        },
        "made": provenance(),
        "rates": rates,
        "grid": grid,
        "arms": {name: summary(name, found) for name in ARMS},
        "differences": {
            f"{name} - {to}": gap(name, to, found)
            for name, to in (
                ("top 20%", "all tokens"),
                ("bottom 80%", "all tokens"),
                ("random 20%", "all tokens"),
                ("top 20%", "random 20%"),
                ("top 20%", "top 20%, / all"),
            )
        },
        "equal": {f"{rate:g}": equal(rate, each) for rate in RATES},
        "patterns": patterns(folder, rates),
        "runs": {f"{name}, seed {seed}": numbers for (name, seed), numbers in found.items()},
        "runs at the other rate": {
            f"{name}, seed {seed}, rate {rate:g}": {key: numbers[key] for key in ("pass@1", "base", "mean_reward")}
            for (name, seed, rate), numbers in each.items()
            if rate != rates[name]
        },
    }
    result = json.loads(json.dumps(result))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    arms = [
        Arm(name, [Seed(seed, found[name, seed]["curve"], found[name, seed]["pass@1"]) for seed in seeds(name)])
        for name in ARMS
    ]
    plot(arms, folder / "arms.png", score="held-out pass@1", title="Which tokens carry the gradient", limits=(0, 1))
    (folder / "verdict.md").write_text(verdict(result))


def equal(rate: float, each: dict[Any, Any]) -> dict[str, Any]:
    """Top and random 20% at one rate: pass@1 of each, and the paired difference."""
    score = {name: {seed: each[name, seed, rate]["pass@1"] for seed in range(SEEDS)} for name in EQUAL}
    made: dict[str, Any] = {"arms": {}, "differences": {}}
    for name in EQUAL:
        bound = interval(list(score[name].values()), name, "pass@1", f"{rate:g}")
        made["arms"][name] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
    top, random = EQUAL
    bound = paired_difference(score[random], score[top], top, random, f"{rate:g}")
    made["differences"][f"{top} - {random}"] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
    return made


def seeds(name: str) -> range:
    """Of an arm."""
    return range(FEW_SEEDS if name in FEW else SEEDS)


def base() -> CausalPolicy:
    """The warmed-up policy, made once."""
    disable_progress_bar()
    where = RUNS / "base"
    if not where.exists():
        policy = embedded(TASK.alphabet, hidden=64, layers=2, context=32)
        supervised(policy, TASK, 400, 0, Console(quiet=True), corrupted=0.0)
        policy.save(where)
    return CausalPolicy.load(where)


def tuned() -> tuple[dict[str, float], dict[str, Any]]:
    """Each arm's learning rate, and the mean reward over all steps that chose it."""
    calls = [(name, 100 + seed, rate, STEPS) for name in TUNED for rate in RATES for seed in range(TUNING_SEEDS)]
    grid: dict[str, dict[str, float]] = {}
    for (name, _, rate, _), numbers in zip(calls, spread("forking_tokens", "one", calls), strict=True):
        own = grid.setdefault(name, {})
        own[f"{rate:g}"] = own.get(f"{rate:g}", 0.0) + numbers["mean_reward"] / TUNING_SEEDS
    best = {name: float(max(own, key=lambda rate: own[rate])) for name, own in grid.items()}
    return {name: best.get(name, best["top 20%"]) for name in ARMS}, grid


def one(name: str, seed: int, rate: float, steps: int) -> dict[str, Any]:
    """One run's numbers."""
    kept = RUNS / "runs" / f"{name.replace('/', 'by')}-seed{seed}-rate{rate:g}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    policy = base()
    learn(policy, name, seed, rate, steps, record := {})
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(record))
    print(f"{name}, seed {seed}, rate {rate:g}: pass@1 {record['pass@1']:.3f}", flush=True)
    return record


def learn(
    policy: CausalPolicy,
    name: str,
    seed: int,
    rate: float,
    steps: int,
    record: dict[str, Any],
    watch: Callable[[Decisions], Mapping[str, float]] | None = None,
) -> None:
    """Train in place and write the numbers into `record`."""
    method = ascent.method("forking_tokens", **PLAIN, **ARMS[name], learning_rate=rate)
    found = trial(TASK, policy, method, steps=steps, seed=seed, held_out=TASK.held_out(96), watch=watch, **SETTINGS)
    reward = found.curve("reward")
    record["curve"] = [(float(step), scores["pass@1"]) for step, scores in found.held_out]
    record["base"], record["pass@1"] = record["curve"][0][1], record["curve"][-1][1]
    record["mean_reward"] = sum(reward) / len(reward)
    record["reward"] = [round(number, 4) for number in reward]
    record["entropy"] = [round(number, 5) for number in found.curve("entropy")]
    record["final_entropy"] = sum(record["entropy"][-10:]) / 10
    record["kept"] = sum(found.curve("kept/policy")) / steps
    record["forks"] = forks(policy)


def forks(policy: CausalPolicy) -> dict[str, float]:
    """Of fresh responses: how many of the top 20% positions are letters, and how many letters are among them."""
    decisions = sample(policy)
    entropy = entropy_study.entropy_of(policy, decisions)
    letters = is_letter(policy, decisions)
    top = top_positions(entropy, decisions.mask, 0.2)
    both = float((top & letters).sum())
    return {
        "top positions that fork": both / max(float(top.sum()), 1.0),
        "forks among the top": both / max(float(letters.sum()), 1.0),
        "entropy at forks": float(entropy[letters].mean()),
        "entropy elsewhere": float(entropy[decisions.mask & ~letters].mean()),
    }


def sample(policy: CausalPolicy, prompts: int = 64, samples: int = 4) -> Decisions:
    """Responses to look at."""
    return TextSampler(policy, TASK, prompts, samples, TASK.max_new_tokens, seed=7).act(0)


def is_letter(policy: CausalPolicy, decisions: Decisions) -> Any:
    """[N, T] bool: where a letter was written."""
    found = decisions.mask & False
    for letter in LETTERS:
        found = found | (decisions.action == policy.tokenizer.convert_tokens_to_ids(letter))
    return found & decisions.mask


def patterns(folder: Path, rates: dict[str, float]) -> dict[str, Any]:
    """The three studies, of the base and of two trainings of seed 0; with their pictures."""
    start = base()
    found: dict[str, Any] = {"base": forks(start)}
    decisions = sample(start, 128, 8)
    found["tokens"] = entropy_study.tokens(start, decisions, folder)
    threshold = percentiles(entropy_study.entropy_of(start, decisions), decisions.mask, (80,))[0]
    held_out = dict(prompts=96, samples=8, temperatures=(0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0))
    found["temperature"] = entropy_study.temperature(start, TASK, folder, threshold, **held_out)
    stages, policy, seen = {"base": start}, base(), []

    def keep(decisions: Decisions) -> dict[str, float]:
        seen.append(len(seen))
        if len(seen) - 1 in (STEPS // 4, STEPS // 2):
            stages[f"{len(seen) - 1} steps"] = copy.deepcopy(policy)
        return {}

    learn(policy, "all tokens", 0, rates["all tokens"], STEPS, {}, keep)
    stages[f"{STEPS} steps"] = policy
    found["survival"] = entropy_study.survival(stages, sample(policy, 128, 8), folder)
    for name in ("tokens", "temperature", "survival"):
        (folder / f"{name}.json").unlink()
    return found


def summary(name: str, found: dict[Any, Any]) -> dict[str, Any]:
    """Means over the seeds with 95% intervals."""
    each = [found[name, seed] for seed in seeds(name)]
    scores = {
        "pass@1": [run["pass@1"] for run in each],
        "gain": [run["pass@1"] - run["base"] for run in each],
        "mean_reward": [run["mean_reward"] for run in each],
        "final_entropy": [run["final_entropy"] for run in each],
        "kept": [run["kept"] for run in each],
    }
    scores |= {key: [run["forks"][key] for run in each] for key in each[0]["forks"]}
    made = {}
    for key, numbers in scores.items():
        bound = interval(numbers, name, key)
        made[key] = {"mean": bound.estimate, "low": bound.low, "high": bound.high, "seeds": numbers}
    return made


def gap(name: str, to: str, found: dict[Any, Any]) -> dict[str, Any]:
    """`name` minus `to`, paired by the seeds that both have."""
    made = {}
    for score in ("pass@1", "mean_reward", "final_entropy"):
        first, second = ({seed: found[arm, seed][score] for seed in seeds(arm)} for arm in (to, name))
        bound = paired_difference(first, second, name, to, score)
        made[score] = {"mean": bound.estimate, "low": bound.low, "high": bound.high}
    return made
