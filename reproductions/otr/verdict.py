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
    lead, twin, dft = gaps["OTR - SFT"], gaps["OTR - OTR exact"], gaps["OTR - DFT"]
    sampling = [gap for gap in (twin["shifted"], twin["old"]) if gap["low"] > 0]
    names = ("target", "shifted", "old", "kl")
    rows = [
        f"| {arm} | " + " | ".join(span(found[s]) for s in names) + f" | {1000 * found['seconds']['mean']:.0f} |"
        for arm, found in arms.items()
    ]
    lines = [f"| {name} | " + " | ".join(span(gap[s], "+.3f") for s in names) + " |" for name, gap in gaps.items()]
    tries = [
        f"| {name} | " + " | ".join(f"{found[s]:.3f}" for s in names) + " |" for name, found in result["pilot"].items()
    ]
    before = result["base"]
    return TEXT.format(
        date=made["date"],
        machine=made["machine"],
        generalises=above(lead["shifted"]),
        forgets=above(lead["old"]),
        domain=above(lead["target"]),
        sampling=YES if sampling else NO,
        dft=f"shifted {span(dft['shifted'], '+.3f')}, old {span(dft['old'], '+.3f')}",
        table="\n".join(rows),
        lines="\n".join(lines),
        tries="\n".join(tries),
        before=", ".join(f"{name} {score:.2f}" for name, score in before.items()),
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
| (a) OTR generalises better than SFT: sums of two large numbers, which none of the data hold | {generalises} |
| (b) OTR forgets less than SFT: exact match on the old skills | {forgets} |
| (c) OTR is better than SFT in domain | {domain} |
| (d) The sampling itself helps: OTR above its exact twin in (a) or (b) | {sampling} |

Claim (a) could not be tested: on two large numbers every arm is near 0, so this split does not tell them apart.

Against DFT, which is the exact twin at kappa = 1 up to the factor 1 - beta:
{dft}. Adam takes such a factor out (a learning rate matched by the scale of
the gradient would be the same run), so what differs from DFT is the tempered sampler, beta beside it, and noise.

A transformer of 2 layers and width 64 has learnt copying, sorting and digit sums; before
fine-tuning it scores {before}.
It is taught two-digit addition with written carries: {steps} steps of {rows} fresh demonstrations, a fifth of them with
odd letters in place of semicolons. {seeds} seeds of data and test problems ({test} a score, greedy answers). The
learning rate of each family is the best of three by in-domain match on another seed: {rates}.

| arm | new skill | large numbers | old skills | KL(base, policy) | CPU ms a step |
|---|---|---|---|---|---|
{table}

| difference | new skill | large numbers | old skills | KL |
|---|---|---|---|---|
{lines}

OTR is K = 256, beta = -0.1, kappa = 1.3. Its step costs {overhead:.2f} times SFT's CPU time here (a vocabulary of 23).
Squared error of its gradient on one batch, relative to the squared exact gradient:
{variance}.

![Scores, positions that were hit, variance](arms.png)

## Choice of the learning rate (one pilot seed)

| family and rate | new skill | large numbers | old skills | KL |
|---|---|---|---|---|
{tries}

## Not run, and why

Qwen models on OpenR1-Math with GSM8K, MATH, HumanEval+ and MMLU-Pro: needs GPUs for days; none of the paper's figures
is verified here, so none is quoted. Label smoothing, unlikelihood training and RLVR as further baselines were not run.
"""
