"""The verdict in words, from the numbers; its rules were fixed before the runs."""

from __future__ import annotations

from typing import Any

YES, NO, REFUTED = "**confirmed**", "**not confirmed at this scale**", "**refuted at this scale**"
SAME = 1e-2


def span(found: dict[str, Any], digits: str = ".3f") -> str:
    return f"{found['mean']:{digits}} [{found['low']:{digits}}, {found['high']:{digits}}]"


def above(*gaps: dict[str, float]) -> str:
    """Confirmed where every interval is above 0, refuted where every one is below."""
    if all(gap["low"] > 0 for gap in gaps):
        return YES
    return REFUTED if all(gap["high"] < 0 for gap in gaps) else NO


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)


def verdict(result: dict[str, Any]) -> str:
    gaps, shift, made, settings = result["differences"], result["shift"], result["made"], result["settings"]
    same = all(max(shift[name]["moved"]["seeds"]) < SAME for name in ("P3O-V1", "P3O-V2"))
    worse = {key: -number for key, number in shift["PPO"]["change"].items()}
    worse = {"mean": worse["mean"], "low": worse["high"], "high": worse["low"]}

    def both(name: str) -> str:
        return above(gaps[name], result["recorded"][name])

    columns = [f"{level:g}" for level in settings["levels"]] + ["area"]
    fronts = [
        f"| {name} | " + " | ".join(span(found[c]) for c in columns) + " |"
        for name, found in result["frontier"].items()
    ]
    lines = [
        f"| {name} | {span(gap, '+.3f')} | {span(result['recorded'][name], '+.3f')} |" for name, gap in gaps.items()
    ]
    finals = [
        f"| {name} | {beta} | " + " | ".join(span(found[k]) for k in ("kl", "true", "proxy")) + " |"
        for name, by in result["final"].items()
        for beta, found in by.items()
    ]
    shifts = [
        f"| {name} | {max(found['moved']['seeds']):.2g} | {span(found['change'], '+.3f')} "
        f"| {span(found['average'], '+.3f')} |"
        for name, found in shift.items()
    ]
    quality = result["reward model"]
    return TEXT.format(
        date=made["date"],
        machine=made["machine"],
        v1=both("P3O-V1 - PPO"),
        v2=both("P3O-V2 - DPO"),
        same=YES if same else REFUTED,
        worse=above(worse),
        clip=YES if YES in (both("P3O-V1 - RLOO"), both("P3O-V2 - RLOO")) else NO,
        fronts="\n".join(fronts),
        head=" | ".join(f"KL <= {level:g}" for level in settings["levels"]),
        rule="|".join(["---"] * (len(columns) + 1)),
        lines="\n".join(lines),
        finals="\n".join(finals),
        shifts="\n".join(shifts),
        accuracy=mean([x["accuracy"] for x in quality]),
        judge=mean([x["judge"] for x in quality]),
        start=mean([x[2] for x in result["reference"]]),
        rates=", ".join(f"{name} {rate:g}" for name, rate in result["rates"].items()),
        betas=", ".join(f"{beta:g}" for beta in settings["betas"]),
        middle=settings["betas"][1],
        limit=SAME,
        **{key: settings[key] for key in ("steps", "pairs", "passes", "seeds")},
    )


TEXT = """# Verdict: pairwise proximal policy optimization (p3o)

Measured {date} on {machine}.
Intervals are 95% bootstrap intervals of the mean over seeds; differences are paired by seed. All curves are in
result.json; `ascent reproduce p3o` runs everything again.

| claim (rule fixed before the runs) | verdict |
|---|---|
| (a) P3O-V1's frontier lies above PPO's (difference in area above 0, in both readings) | {v1} |
| (b) P3O-V2's frontier lies above online DPO's (the same rule) | {v2} |
| (c) A prompt-wise shift of the reward leaves P3O's curves alone (changes below {limit:g} on every seed) | {same} |
| (d) The same shift makes PPO worse (interval of the change of score - beta KL below 0) | {worse} |
| (e) The pairs' clip adds to the baseline: a P3O frontier above RLOO's with two samples | {clip} |

Strings of at most 10 letters after one of 8 prompts; the hidden score counts favourite letters less repetitions. The
reference (a network 28-64-64-10) has learnt strings of a random grammar and scores {start:.2f}. The reward model was
trained here on 3000 comparisons by a Bradley-Terry judge of the hidden score; it orders {accuracy:.3f} of fresh pairs
as the hidden score does (the judge itself is expected to agree in {judge:.3f}). Every method sees the reward model
only: {steps} steps of {pairs} pairs, {passes} passes (RLOO: one, it is on policy), betas {betas}, {seeds} seeds. The
learning rate of each method is the best of three by the frontier on another seed:
{rates}.
The KL and both scores are exact; frontiers are straight between points recorded every third step.

## Frontier: the best hidden score with at most so much KL, over all betas and times; area is the mean over the levels

| method | {head} | area |
|{rule}|
{fronts}

| difference in area | on lines | recorded points only |
|---|---|---|
{lines}

The first analysis took recorded points only, which handicaps methods with large steps; the lines between them were
added after its result was seen. A claim counts as confirmed only if both readings confirm it. RLOO takes one update per
batch where P3O takes four, so its gap is of reuse under a clip, not of the clip alone.

![Frontier, final points, shift](frontier.png)

## After the last step

| method | beta | KL | hidden score | reward model's score |
|---|---|---|---|---|
{finals}

## Shift: reward + delta(x) with a standard deviation of ten of the reward model's, beta {middle:g}

| method | largest change of a curve | change of score - beta KL at the end | ... of its mean over the run |
|---|---|---|---|
{shifts}

The rewards are 32-bit numbers, so that a shift of ten deviations leaves rounding in the differences.

## Not run, and why

TL;DR and HH with 1B and 6B models, and judges by larger models: need GPUs for days. The paper's own appendix values are
not verified.
"""
