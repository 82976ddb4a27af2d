"""`ascent entropy tokens | survival | temperature`: entropy patterns of a language model, in numbers and pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ascent.core.decisions import Decisions
from ascent.evaluation import entropy_pictures as pictures
from ascent.evaluation.entropy_patterns import (
    PERCENTILES,
    change_by_percentile,
    overlap,
    percentiles,
    token_entropies,
)
from ascent.policies.causal import CausalPolicy
from ascent.sampling.split_temperature import generate_split
from ascent.sampling.text import TextSampler
from ascent.systems.config import BadConfig
from ascent.systems.warm_up import warmed_up
from ascent.training.processes import Processes
from ascent.worlds.text.registry import task as build_task
from ascent.worlds.text.score import TextScore
from ascent.worlds.text.task import TextTask

TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)


def entropy_of(policy: CausalPolicy, decisions: Decisions) -> torch.Tensor:
    """[N, T] nats at the policy's temperature, in parts of 64 rows."""
    parts = [torch.arange(start, min(start + 64, len(decisions))) for start in range(0, len(decisions), 64)]
    with torch.no_grad():
        return torch.cat([policy.evaluate(decisions.rows(part), frozenset({"entropy"})).entropy for part in parts])


def tokens(policy: CausalPolicy, decisions: Decisions, folder: Path, least: int = 100) -> dict[str, Any]:
    """Which tokens fork: tokens.png and tokens.json. Returns what the JSON holds."""
    entropy = entropy_of(policy, decisions)
    ranked = token_entropies(decisions.action, entropy, decisions.mask, least)
    if not ranked:
        raise BadConfig(f"least must be below the count of some token; got {least}. Sample more prompts, or lower it.")
    levels = dict(zip((f"{level}%" for level in PERCENTILES), percentiles(entropy, decisions.mask), strict=True))
    names = {item.token: str(policy.tokenizer.decode([item.token])) for item in ranked}
    flat = entropy[decisions.mask]
    drawn = {name: level for name, level in levels.items() if name in ("80%", "95%")}
    pictures.tokens(flat, drawn, ranked, names, folder / "tokens.png")
    found = {
        "positions": len(flat),
        "mean": float(flat.mean()),
        "below 0.01": float((flat < 0.01).float().mean()),
        "percentiles": levels,
        "tokens": [{"token": names[item.token], "count": item.count, "entropy": item.entropy} for item in ranked],
    }
    return written(found, folder / "tokens.json")


def survival(
    policies: Mapping[str, CausalPolicy], decisions: Decisions, folder: Path, rho: float = 0.2
) -> dict[str, Any]:
    """How the base's pattern survives: survival.png and survival.json. The first policy is the base."""
    entropies = {name: entropy_of(policy, decisions) for name, policy in policies.items()}
    base, mask = next(iter(entropies.values())), decisions.mask
    overlaps = {name: overlap(base, entropy, mask, rho) for name, entropy in entropies.items()}
    changes = change_by_percentile(base, list(entropies.values())[-1], mask)
    levels = {float(level): [percentiles(entropy, mask, (level,))[0] for entropy in entropies.values()]
              for level in (50, 80, 90, 95, 100)}  # fmt: skip
    pictures.survival(list(entropies), list(overlaps.values()), changes, levels, rho, folder / "survival.png")
    found = {"rho": rho, "overlap": overlaps, "change by 5% of the base": changes, "percentiles": levels}
    return written(found, folder / "survival.json")


def temperature(
    policy: CausalPolicy,
    task: TextTask,
    folder: Path,
    threshold: float,
    temperatures: Sequence[float] = TEMPERATURES,
    prompts: int = 96,
    samples: int = 4,
    seed: int = 0,
) -> dict[str, Any]:
    """Split-temperature decoding: temperature.png and temperature.json. Positions above `threshold` nats are forks."""
    examples = task.held_out(prompts)
    score = TextScore(task, policy.tokenizer)
    rows = [example for example in examples for _ in range(samples)]
    asked = [example.prompt for example in examples]

    def accuracy(high: float, low: float) -> float:
        answers = generate_split(policy, asked, samples, task.max_new_tokens, threshold, high, low, seed)
        rewards = score.score(rows, [text for texts in answers for text in texts])[0]
        return sum(reward is not None and reward >= 1.0 for reward in rewards) / len(rewards)

    own = policy.temperature
    curves = {
        "only at forks": [(level, accuracy(level, own)) for level in temperatures],
        "only elsewhere": [(level, accuracy(own, level)) for level in temperatures],
        "everywhere": [(level, accuracy(level, level)) for level in temperatures],
    }
    pictures.temperatures(curves, "held-out pass@1", folder / "temperature.png")
    found = {"threshold": threshold, "answers": len(rows), "curves": curves}
    return written(found, folder / "temperature.json")


def written(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """Write a JSON file beside the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def command(words: Sequence[str]) -> int:
    """The command line; see `ascent entropy --help`."""
    parser = argparse.ArgumentParser("ascent entropy", allow_abbrev=False)
    parser.add_argument("what", choices=("tokens", "survival", "temperature"))
    parser.add_argument("--task", default="arithmetic", help="whose prompts are answered")
    parser.add_argument(
        "--model",
        nargs="+",
        default=["embedded"],
        help="embedded, a folder (runs/<run>/policy) or a hub id; survival takes the base and then trained ones",
    )
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--samples", type=int, default=8, help="responses to each prompt")
    parser.add_argument("--rho", type=float, default=0.2, help="share of the positions that count as forks")
    parser.add_argument("--least", type=int, default=100, help="tokens are listed that were written more often")
    parser.add_argument("--threshold", type=float, help="nats above which a position is a fork; default: by --rho")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder of picture and JSON, runs/entropy-<task>")
    known = parser.parse_args(list(words))
    if known.what != "survival" and len(known.model) > 1:
        raise BadConfig(
            f"model must be one for {known.what!r}; got {len(known.model)}. Only survival compares several."
        )
    if known.what == "survival" and len(known.model) < 2:
        raise BadConfig("model must be two or more for 'survival': the base, then what training made of it.")
    if not 0 < known.rho <= 1:
        raise BadConfig(f"rho must be in (0, 1]; got {known.rho}.")
    task = build_task(known.task)
    folder = known.output or Path(f"runs/entropy-{known.task.replace('/', '-')}")
    policies = {name: load(name, task) for name in known.model}
    last = list(policies.values())[-1]
    sampler = TextSampler(last, task, known.prompts, known.samples, task.max_new_tokens, seed=known.seed)
    decisions = sampler.act(0)
    if known.what == "tokens":
        found = tokens(last, decisions, folder, known.least)
        for item in found["tokens"][:10]:
            print(f"{item['token']!r:<12}{item['count']:>8}{item['entropy']:>9.4f}")
    elif known.what == "survival":
        found = survival(short(policies), decisions, folder, known.rho)
        for name, share in found["overlap"].items():
            print(f"{name:<32}{share:>7.3f}")
    else:
        threshold = known.threshold
        if threshold is None:
            threshold = percentiles(entropy_of(last, decisions), decisions.mask, (100 * (1 - known.rho),))[0]
        found = temperature(
            last, task, folder, threshold, prompts=known.prompts, samples=known.samples, seed=known.seed
        )
        for name, points in found["curves"].items():
            print(f"{name:<16}" + "  ".join(f"{level:g}: {score:.3f}" for level, score in points))
    print(f"picture: {folder / known.what}.png")
    return 0


def short(policies: Mapping[str, CausalPolicy]) -> dict[str, CausalPolicy]:
    """Names that fit under a bar: base, then the last distinct part of each folder."""
    names = ["base", *(Path(name).parent.name or name for name in list(policies)[1:])]
    return dict(zip(names, policies.values(), strict=True))


def load(name: str, task: TextTask) -> CausalPolicy:
    """The embedded model as runs begin with it, a folder, or a hub id."""
    if name == "embedded":
        return warmed_up(task, 300, 0, 1.0, False, Console(quiet=True), Processes())
    try:
        return CausalPolicy.load(name)
    except OSError as error:
        raise BadConfig(f"model {name!r} cannot be loaded: {error}") from error
