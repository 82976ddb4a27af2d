"""What the transformer showed, in words; the rules were fixed before the runs."""

from __future__ import annotations

from typing import Any

from .verdict import above, not_below, span

NAMES = {
    "held_out": "held-out pass@1",
    "area": "mean reward",
    "entropy": "entropy",
    "gradient_norm": "gradient norm",
    "clip_fraction": "clipped",
    "positive_share": "positive share",
    "worst_drop": "worst drop",
}


def report(found: dict[str, Any]) -> str:
    """The section on the transformer."""
    settings, gaps, levels = found["settings"], found["differences"], found["levels"]
    stale = list(gaps)
    claims = [
        ("(a) BAPO ends with more entropy than [0.8, 1.2] and than [0.8, 1.28] (both intervals above 0)", entropy),
        ("(b) ... and its mean reward is not lower than theirs (intervals above -0.05)", reward),
        ("(c) BAPO has more mean reward than the fixed mean of its own bounds", adapts),
    ]
    lines = [f"| {claim} | " + " | ".join(rule(gaps[level]) for level in stale) + " |" for claim, rule in claims]
    growth = found["growth"]
    rows = [
        f"| {level} | {arm} | " + " | ".join(span(scores[name]) for name in NAMES) + " |"
        for level, arms in levels.items()
        for arm, scores in arms.items()
    ]
    changes = [
        f"| {level} | {name} | " + " | ".join(span(gap[score], "+.3f") for score in NAMES) + " |"
        for level, pairs in gaps.items()
        for name, gap in pairs.items()
    ]
    bounds = [
        f"{level} " + ", ".join(f"[{low:g}, {high:g}]" for low, high in found["bounds"][level]) for level in stale
    ]
    rates = [
        f"{level} " + ", ".join(f"{arm} {rate:g}" for arm, rate in arms.items())
        for level, arms in found["chosen"].items()
    ]
    ages = {level: age(found["runs"], level) for level in levels}
    return TEXT.format(
        rates_tried=", ".join(f"{rate:g}" for rate in settings["rates"]),
        levels=" | ".join(stale),
        rule="|---" * (len(stale) + 1) + "|",
        claims="\n".join(lines),
        growth=f"{above(growth['area'])} ({span(growth['area'], '+.3f')})",
        heads=" | ".join(NAMES.values()),
        line="|---" * (len(NAMES) + 2) + "|",
        rows="\n".join(rows),
        changes="\n".join(changes),
        bounds="; ".join(bounds),
        rates="; ".join(rates),
        pilot=", ".join(f"{name}: {score:.3f}" for name, score in found["pilot"].items()),
        ages=", ".join(f"{level} {number:.2f}" for level, number in ages.items()),
        **{name: number for name, number in settings.items() if name != "rates"},
    )


def entropy(gaps: dict[str, Any]) -> str:
    return above(gaps["BAPO - [0.8, 1.2]"]["entropy"], gaps["BAPO - [0.8, 1.28]"]["entropy"])


def reward(gaps: dict[str, Any]) -> str:
    return not_below(gaps["BAPO - [0.8, 1.2]"]["area"], gaps["BAPO - [0.8, 1.28]"]["area"])


def adapts(gaps: dict[str, Any]) -> str:
    return above(gaps["BAPO - fixed mean"]["area"])


def age(runs: dict[str, Any], level: str) -> float:
    """Mean over the runs of a level of how many collections old a token is when it is first learnt from."""
    ages = [
        sum(run["curves"]["staleness"]) / len(run["curves"]["staleness"]) for key, run in runs.items() if level in key
    ]
    return sum(ages) / len(ages)


TEXT = """## A transformer: staleness by passes and by partial rollouts

| claim (rule fixed before the runs) | {levels} |
{rule}
{claims}

BAPO's lead in mean reward over [0.8, 1.2] is larger at 8 passes than at 4: {growth}.

Three digits get signs so that they add up to a target, in at most three written attempts (`attempts.py`); reward 1
where the last one reaches it. A transformer of 2 layers and width 48 has read {warm_up} batches of blind attempts and
answers {before:.3f} of the held-out problems. {steps} steps of {prompts} prompts with {group_size} responses, one
optimiser step a pass, no KL, no entropy bonus, {seeds} seeds, equal prompts for all arms. BAPO has rho_0 = 0.5 (the
authors' README) and the paper's ranges: rho rests near 0.5 here, so that 0.4 would hardly start a search. Partial
rollouts: segments of {segment_tokens} tokens, {in_flight} batches under way, one pass. Tokens are so many collections
old on average when they are first learnt from: {ages}. Every token's ratio
is to the policy that drew it.

The learning rate of each arm is the best of {rates_tried} by mean reward on another seed, at 4 passes (also used at 8)
and with partial rollouts: {rates}. "Fixed mean" has BAPO's rate and, as constants, the means of BAPO's
bounds at the same staleness and seed: {bounds}.

"Held-out pass@1" is the mean of {samples} answers to {held_out} problems at the end, "entropy" the mean over the last
{last} steps in nats a token, "gradient norm" the largest before clipping, "worst drop" the largest fall of the reward,
smoothed over 5 steps, below what it had reached. At 1 pass the data are fresh and every arm is the same run.

| staleness | arm | {heads} |
{line}
{rows}

| staleness | difference | {heads} |
{line}
{changes}

![Curves by staleness](transformer.png)

![Probability by ratio, lengths, tokens](transformer_diagnosis.png)

Mean reward on the pilot seed: {pilot}.
"""
