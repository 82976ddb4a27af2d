"""CoPG (arXiv 2406.19185), measured small: its bandit exactly, a sequence task, and how far off-policy data may be.

    A  the paper's 3-armed bandit, 10 seeds: regret of CoPG, IPO and naive policy gradients on the same recorded pairs
    B  strings of 16 tokens, 5 seeds: CoPG, DPO, IPO and naive policy gradient, four betas each, equal budgets
    C  the same task, data from on-policy to uniform: CoPG against the naive policy gradient

Everything that can be exact is: rewards, divergences and optima come from enumeration and dynamic programming.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ascent.evaluation.intervals import interval, paired_difference
from ascent.systems.workers import provenance, spread

from .bandit import BANDIT, BANDIT_SEEDS, BATCH, BETA, EPOCHS, MU, PAIRS, REWARD, bandit
from .pictures import draw
from .strings import (
    BETAS,
    LEVELS,
    PAIRS_PER_UPDATE,
    RATE,
    STRING_PAIRS,
    STRING_SEEDS,
    TASK_BETA,
    UPDATES,
    run_strings,
)

__all__ = ["bandit", "run", "run_strings"]


def summary(values: list[float], *words: str) -> dict[str, object]:
    """Every seed's number, the mean and its 95% interval."""
    found = interval(values, *words)
    return {"seeds": values, "mean": found.estimate, "low": found.low, "high": found.high}


def measure() -> dict[str, object]:
    """All three parts, runs spread over worker processes."""
    regret = dict(zip(BANDIT, spread("copg", "bandit", [(arm, BANDIT_SEEDS, EPOCHS) for arm in BANDIT]), strict=True))
    sweep = [(seed, slug, "worse", betas) for seed in range(STRING_SEEDS) for slug, betas in BETAS.items()]
    policies = [
        (seed, slug, level, (TASK_BETA,))
        for seed in range(STRING_SEEDS)
        for slug in ("copg", "naive_pg")
        for level in LEVELS
    ]
    runs = dict(zip([*sweep, *policies], spread("copg", "run_strings", [*sweep, *policies]), strict=True))
    seeds = range(STRING_SEEDS)
    methods = {
        slug: {
            beta: {
                score: summary(
                    [runs[seed, slug, "worse", betas][str(beta)][score] for seed in seeds], slug, str(beta), score
                )
                for score in ("gain", "J", "reward", "kl")
            }
            | {"curves": [runs[seed, slug, "worse", betas][str(beta)]["curve"] for seed in seeds]}
            for beta in betas
        }
        for slug, betas in BETAS.items()
    }
    best = {slug: max(by_beta, key=lambda beta: by_beta[beta]["gain"]["mean"]) for slug, by_beta in methods.items()}
    finals = {slug: dict(enumerate(methods[slug][beta]["gain"]["seeds"])) for slug, beta in best.items()}
    changes = {
        slug: paired_difference(finals[slug], finals["copg"], "against", slug) for slug in ("dpo", "ipo", "naive_pg")
    }
    levels = {
        slug: {
            level: summary(
                [runs[seed, slug, level, (TASK_BETA,)][str(TASK_BETA)]["gain"] for seed in seeds], slug, level
            )
            for level in LEVELS
        }
        for slug in ("copg", "naive_pg")
    }
    first = [runs[seed, "copg", "worse", BETAS["copg"]] for seed in seeds]
    return {
        **provenance(),
        "settings": {
            "A": {
                "reward": REWARD.tolist(),
                "mu": MU.tolist(),
                "beta": BETA,
                "pairs": PAIRS,
                "batch": BATCH,
                "epochs": EPOCHS,
                "seeds": BANDIT_SEEDS,
                "learning_rate": 1e-3,
            },
            "B": {
                "task_beta": TASK_BETA,
                "betas": BETAS,
                "seeds": STRING_SEEDS,
                "updates": UPDATES,
                "pairs": STRING_PAIRS,
                "pairs_per_update": PAIRS_PER_UPDATE,
                "learning_rate": RATE,
            },
        },
        "A": {
            arm: {"final": summary([row[-1] for row in rows], arm), "every_10_epochs": [row[9::10] for row in rows]}
            for arm, rows in regret.items()
        },
        "B": {
            "optimum": [run["optimum"] for run in first],
            "reference": [run["reference"] for run in first],
            "methods": methods,
            "best_beta": best,
            "copg_minus": {slug: [change.estimate, change.low, change.high] for slug, change in changes.items()},
        },
        "C": levels,
    }


def span(found: dict[str, Any], digits: str = ".3f") -> str:
    return f"{found['mean']:{digits}} [{found['low']:{digits}}, {found['high']:{digits}}]"


def verdict(result: dict[str, Any]) -> str:
    """The rules were fixed before the runs (see the bold lines); the numbers decide."""
    bandit_finals = {arm: found["final"]["seeds"] for arm, found in result["A"].items()}
    biased = [arm for arm in BANDIT if arm in ("IPO", "PG, b = 0", "PG, b = E[R]")]
    limit = max(bandit_finals["CoPG"]) < 1e-4 and min(min(bandit_finals[arm]) for arm in biased) > 1e-2
    part, levels = result["B"], result["C"]
    wins = all(part["copg_minus"][slug][1] > 0 for slug in ("dpo", "ipo"))
    loses = any(part["copg_minus"][slug][2] < 0 for slug in ("dpo", "ipo"))
    fall = {
        slug: [
            levels[slug]["on-policy"]["seeds"][seed] - levels[slug]["uniform"]["seeds"][seed]
            for seed in range(STRING_SEEDS)
        ]
        for slug in levels
    }
    falls = {slug: interval(values, slug, "fall") for slug, values in fall.items()}
    extra = interval([naive - copg for naive, copg in zip(fall["naive_pg"], fall["copg"], strict=True)], "extra fall")
    words = {True: "**confirmed**", False: "**not confirmed at this scale**"}
    rows_a = [
        f"| {arm} | {max(values):.1e} | {min(values):.1e} | {sum(values) / len(values):.1e} |"
        for arm, values in bandit_finals.items()
    ]
    rows_b = []
    for slug, by_beta in part["methods"].items():
        best = by_beta[str(part["best_beta"][slug])]
        change = part["copg_minus"].get(slug)
        gap = f"{change[0]:+.3f} [{change[1]:+.3f}, {change[2]:+.3f}]" if change else ""
        scores = " | ".join(span(best[score]) for score in ("gain", "J", "reward", "kl"))
        rows_b.append(f"| {slug} | {part['best_beta'][slug]} | {scores} | {gap} |")
    rows_c = [f"| {level} | {span(levels['copg'][level])} | {span(levels['naive_pg'][level])} |" for level in LEVELS]
    optimum = sum(part["optimum"]) / len(part["optimum"])
    start = sum(part["reference"]) / len(part["reference"])
    return VERDICT.format(
        a=words[limit],
        b="**refuted at this scale**" if loses else words[wins],
        c=words[extra.low > 0],
        flat=words[falls["copg"].high < 0.1],
        seeds_a=BANDIT_SEEDS,
        seeds_b=STRING_SEEDS,
        epochs=EPOCHS,
        updates=UPDATES,
        per_update=PAIRS_PER_UPDATE,
        pairs=STRING_PAIRS,
        beta=TASK_BETA,
        rows_a="\n".join(rows_a),
        rows_b="\n".join(rows_b),
        rows_c="\n".join(rows_c),
        optimum=optimum,
        start=start,
        fall_copg=f"{falls['copg'].estimate:.3f} [{falls['copg'].low:.3f}, {falls['copg'].high:.3f}]",
        fall_naive=f"{falls['naive_pg'].estimate:.3f} [{falls['naive_pg'].low:.3f}, {falls['naive_pg'].high:.3f}]",
        extra=f"{extra.estimate:+.3f} [{extra.low:+.3f}, {extra.high:+.3f}]",
        machine=result["machine"],
        date=result["date"],
    )


VERDICT = """# Verdict: contrastive policy gradient (copg)

Measured {date} on {machine}.
Intervals are 95% bootstrap intervals of the mean over seeds; differences are paired by seed. All numbers are in
result.json; `ascent reproduce copg` runs everything again.

| claim | verdict |
|---|---|
| A. On pairs of other samplers CoPG reaches the optimum; IPO and naive gradients (b = 0, b = E R) do not | {a} |
| B. Each at its best beta, CoPG reaches a better regularised objective than DPO and IPO on the same data | {b} |
| C1. What CoPG reaches does not depend on who wrote the data | {flat} |
| C2. CoPG bears off-policy data better than a policy gradient without a contrast | {c} |

## A. The paper's bandit

Three arms, rewards 2.5, 2, 1, beta 0.5, uniform reference; 10 000 pairs, y from (0.1, 0.2, 0.7), y' from (0.05,
0.05, 0.9); Adam 1e-3, 512 pairs an update, {epochs} epochs (the paper stops at 100), {seeds_a} seeds, the same
pairs for all arms. IPO sees labels drawn from sigmoid(R - R'). **Rule: regret of CoPG below 1e-4 on every seed,
every other arm of the claim above 1e-2.**

| arm | largest final regret | smallest | mean |
|---|---|---|---|
{rows_a}

The last arm is no claim of the paper: with the regularised value as baseline the naive gradient has the optimum
as a fixed point, so which "value baseline" is meant matters.

![regret by epoch](regret.png)

## B. A sequence task

Strings of at most 12 tokens out of 15 and an end token, after a prompt of one token. Reference: a small network
(44-64-64-16) taught 300 updates on strings of a random Markov grammar, another one for each seed. Reward:
ascending triples minus 0.1 a token. Data: {pairs} prompts, two strings each, half of them uniform, half from
the reference at temperature 1.5. All methods start at the reference and take {updates} updates of {per_update}
pairs with Adam 1e-3; DPO and IPO see the sign of the reward difference. J = E R - {beta} KL, by summing over
the tables of all states, not by samples. {seeds_b} seeds. Every method has four values of beta in steps of two
around its best of a pilot on another seed. The gain is
(J - J of the reference) / (J of the optimum - J of the reference), because grammars differ in what can be won.
**Rule: CoPG's best gain above DPO's and above IPO's best, 95% interval of the paired difference above 0; refuted if
an interval is below 0.**

| method | best beta | gain | J | reward | KL | copg minus it, gain |
|---|---|---|---|---|---|---|
{rows_b}

The optimum is J = {optimum:.3f}, the reference has {start:.3f}.

![gain by beta, reward by KL, gain by sampler](strings.png)

## C. Who wrote the data

Beta {beta} for both methods (the objective's), otherwise as B. **Rules: C1, from on-policy to uniform
data CoPG's gain falls by less than 0.1 (upper bound of the interval); C2, the gain of the naive policy gradient falls
by more than CoPG's, 95% interval of the paired difference above 0.**

| data | gain of CoPG | gain of the naive policy gradient |
|---|---|---|
{rows_c}

CoPG's gain falls by {fall_copg}, the naive gradient's by {fall_naive};
the difference is {extra}. CoPG's fixed point does not
depend on the sampler, but its finite-sample error does: uniform strings say little of where the optimum lives.
On-policy runs draw new pairs at every update, so they see more strings than the recorded data hold.

## Not run, and why

- Llama-2-7B on Reddit TL;DR with a reward model: needs a GPU for days. The paper prints no numbers of it, only figures.
- The paper's best betas (0.06, 0.1, 0.01) belong to its reward model's scale and are not comparable with these.
- Replay-buffer and hybrid samplers: discussed in the paper, not evaluated there.
"""


def run(folder: Path) -> None:
    """Write result.json, regret.png, strings.png and verdict.md."""
    result = json.loads(json.dumps(measure()))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, folder)
    (folder / "verdict.md").write_text(verdict(result))
