"""The verdict in words, from the numbers; its rules were fixed before the runs."""

from __future__ import annotations

from typing import Any

YES, NO, REFUTED = "**confirmed**", "**not confirmed at this scale**", "**refuted at this scale**"


def span(found: dict[str, Any], digits: str = ".3f") -> str:
    return f"{found['mean']:{digits}} [{found['low']:{digits}}, {found['high']:{digits}}]"


def above(gap: dict[str, float]) -> str:
    return YES if gap["low"] > 0 else REFUTED if gap["high"] < 0 else NO


def verdict(result: dict[str, Any]) -> str:
    gaps, arms, made, settings = result["differences"], result["arms"], result["made"], result["settings"]
    lead, twin = gaps["OTR - SFT"], gaps["OTR - OTR exact"]
    dft = gaps["OTR - DFT"]
    sampling = [gap for gap in (twin["shifted"], twin["old"]) if gap["low"] > 0]
    names = ("target", "shifted", "old", "kl", "odd")
    rows = [
        f"| {arm} | "
        + " | ".join(span(found[s]) for s in names)
        + f" | {result['below'][arm]['mean']:.1f} | {1000 * found['seconds']['mean']:.0f} |"
        for arm, found in arms.items()
    ]
    lines = [f"| {name} | " + " | ".join(span(gap[s], "+.3f") for s in names) + " |" for name, gap in gaps.items()]
    matched = [
        f"| {name} | " + " | ".join(span(gap[s], "+.3f") for s in ("shifted", "old", "kl")) + " |"
        for name, gap in result["matched"].items()
    ]
    frontier = [
        f"| {arm} | {rate} | " + " | ".join(span(found[s]) for s in names) + " |"
        for arm, by in result["frontier"].items()
        for rate, found in by.items()
    ]
    tries = [
        f"| {name} | " + " | ".join(f"{found[s]:.3f}" for s in names) + " |" for name, found in result["pilot"].items()
    ]
    return TEXT.format(
        date=made["date"],
        machine=made["machine"],
        tuned_shifted=f"{above(lead['shifted'])}: {span(lead['shifted'], '+.3f')}",
        tuned_old=f"{above(lead['old'])}: {span(lead['old'], '+.3f')}",
        domain=f"{above(lead['target'])}: {span(lead['target'], '+.3f')}",
        sampling=YES if sampling else NO,
        beyond=YES if dft["shifted"]["low"] > 0 or dft["old"]["low"] > 0 else NO,
        table="\n".join(rows),
        lines="\n".join(lines),
        matched="\n".join(matched),
        frontier="\n".join(frontier),
        tries="\n".join(tries),
        before=", ".join(f"{name} {score:.2f}" for name, score in result["base"].items()),
        rates=", ".join(f"{arm} {rate:g}" for arm, rate in settings["rates"].items()),
        variance=", ".join(f"{number:.3g} at K = {k}" for k, number in result["variance"].items()),
        overhead=arms["OTR"]["seconds"]["mean"] / arms["SFT"]["seconds"]["mean"],
        **{key: settings[key] for key in ("steps", "rows", "seeds", "test")},
    )


TEXT = """# Verdict: one-token rollouts (otr)

Measured {date} on {machine}.
Intervals are 95% bootstrap intervals of the mean over seeds; differences are paired by seed. Every run's numbers are in
result.json; `ascent reproduce otr` runs everything again.

| claim (rule: the interval of the paired difference is above 0) | verdict |
|---|---|
| (a) OTR generalises better than SFT, each at its best rate (two large numbers) | {tuned_shifted} |
| (b) OTR forgets less than SFT, each at its best rate: exact match on the old skills | {tuned_old} |
| (c) OTR is better than SFT in domain | {domain} |
| (d) The sampling itself helps: OTR above its exact twin on large numbers or old skills | {sampling} |
| (e) OTR is above DFT on large numbers or old skills | {beyond} |

A transformer of 2 layers and width 64 has learnt copying, sorting and digit sums, and addition with written carries in
part; before fine-tuning it scores {before} ("odd" is the probability it gives to odd
letters). It is taught more addition: {steps} steps of {rows} fresh demonstrations, none with two numbers of 50 and
more, a fifth of them with odd letters in place of semicolons. {seeds} seeds of data and test problems ({test} a score,
greedy answers). The learning rate of each family is the best of three by in-domain match on another seed:
{rates}.

"Equal in-domain accuracy": SFT's three rates give three points of in-domain accuracy and score on each seed; OTR is
compared with the line through them at its own in-domain accuracy (with the end of the line where it lies beyond). No
verdict rests on this table, which was meant to carry (a) and (b): in-domain accuracy does not always rise with the
rate, so the line is a weak yardstick.

| at equal in-domain accuracy | large numbers | old skills | KL |
|---|---|---|---|
{matched}

| arm, best rate | new skill | large numbers | old skills | KL(base, policy) | odd letters | below base | ms a step |
|---|---|---|---|---|---|---|---|
{table}

| difference | new skill | large numbers | old skills | KL | odd letters |
|---|---|---|---|---|---|
{lines}

| arm | rate | new skill | large numbers | old skills | KL | odd letters |
|---|---|---|---|---|---|---|
{frontier}

OTR is K = 256, beta = -0.1, kappa = 1.3. At kappa = 1 its expectation is DFT up to the factor 1 - beta, which Adam
takes out (a learning rate matched by the scale of the gradient would be the same run). "Weights elsewhere" is DFT whose
weights are dealt out to other positions: if it does as well, the tie of weight and token is not what helps. "Label
smoothing" leaves 0.1 to the vocabulary. "GRPO"
learns from as many own answers with rewards and sees no demonstration. "Below base": how many of the five exact-match
scores (new skill, large numbers, the three old skills) are below the base model's on the same problems.

An OTR step costs {overhead:.2f} times SFT's CPU time here (a vocabulary of 23). Squared error of its gradient on one
batch, relative to the squared exact gradient:
{variance}.

![Scores, what is kept, positions that were hit, variance](arms.png)

## Choice of the learning rate (one pilot seed)

| family and rate | new skill | large numbers | old skills | KL | odd letters |
|---|---|---|---|---|---|
{tries}

## Not run, and why

Qwen models on OpenR1-Math with GSM8K, MATH, HumanEval+ and MMLU-Pro: needs GPUs for days; none of the paper's figures
is verified here, so none is quoted.
"""
