"""The verdict in words, from the numbers; its rules were fixed before the runs."""

from __future__ import annotations

from typing import Any

YES, NO, REFUTED = "**confirmed**", "**not confirmed at this scale**", "**refuted at this scale**"


def span(found: dict[str, Any], digits: str = ".3f") -> str:
    return f"{found['mean']:{digits}} [{found['low']:{digits}}, {found['high']:{digits}}]"


def above(*gaps: dict[str, float]) -> str:
    """Confirmed where every interval is above 0, refuted where one is below."""
    if any(gap["high"] < 0 for gap in gaps):
        return REFUTED
    return YES if all(gap["low"] > 0 for gap in gaps) else NO


def not_below(*gaps: dict[str, float], least: float = -0.05) -> str:
    """Confirmed where every interval stays above `least`, refuted where one is below 0 as a whole."""
    if any(gap["high"] < 0 for gap in gaps):
        return REFUTED
    return YES if all(gap["low"] > least for gap in gaps) else NO


def verdict(result: dict[str, Any], transformer: str) -> str:
    """The exact world's verdict, with the section on the transformer before it."""
    gaps, arms, made, settings = result["differences"], result["arms"], result["made"], result["settings"]
    clip, higher, wide = (gaps[f"BAPO - {to}"] for to in ("[0.8, 1.2]", "[0.8, 1.28]", "[0.8, 2.0]"))
    entropy = above(clip["entropy"], higher["entropy"])
    reward = not_below(clip["area"], higher["area"])
    adaptive = above(wide["area"]) if wide["area"]["low"] > 0 or wide["entropy"]["high"] < 0 else above(wide["entropy"])
    rows = [f"| {arm} | " + " | ".join(span(found[s]) for s in found) + " |" for arm, found in arms.items()]
    lines = [
        f"| {name} | "
        + " | ".join(span(found[s], "+.3f") for s in ("area", "final", "entropy", "gradient_norm"))
        + " |"
        for name, found in gaps.items()
    ]
    stale = [
        f"| {arm} | {e} | " + " | ".join(span(found[s]) for s in ("area", "final", "entropy", "searched")) + " |"
        for arm, by in result["staleness"].items()
        for e, found in by.items()
    ]
    return TEXT.format(
        transformer=transformer,
        date=made["date"],
        machine=made["machine"],
        entropy=entropy,
        reward=reward,
        adaptive=adaptive,
        orders=orders(result),
        growth=above(result["growth"]["area"]),
        grown=span(result["growth"]["area"], "+.3f"),
        raised=above(gaps["[0.8, 1.5] - [0.8, 1.2]"]["area"]),
        lowered=above({k: -v for k, v in _swap(gaps["[0.5, 1.2] - [0.8, 1.2]"]["area"]).items()}),
        rows="\n".join(rows),
        lines="\n".join(lines),
        stale="\n".join(stale),
        **{key: settings[key] for key in ("steps", "passes", "seeds", "learning_rate", "last")},
    )


def orders(result: dict[str, Any]) -> str:
    """What the two orders of search did, in words."""
    runs = result["runs"]
    passes = result["settings"]["passes"]
    same = all(
        run["curves"] == runs[key.replace("BAPO (code)", "BAPO")]["curves"]
        for key, run in runs.items()
        if key.startswith(f"BAPO (code), {passes} passes")
    )
    if not same:
        return "The paper's order of search and the code's led to different runs."
    return (
        "The paper's order of search and the code's gave the same runs to the last digit: so few positive tokens lie\n"
        "above 1.2 that raising c_high adds next to nothing to P, and a search passed at once or went to both ends."
    )


def _swap(gap: dict[str, float]) -> dict[str, float]:
    return {"mean": gap["mean"], "low": gap["high"], "high": gap["low"]}


TEXT = """# Verdict: balanced policy optimization (bapo)

Measured {date} on {machine}.
Intervals are 95% bootstrap intervals of the mean over seeds; differences are paired by seed. Every run's numbers are in
result.json; `ascent reproduce bapo` runs everything again.

{transformer}
## A small exact world

| claim (rule fixed before the runs) | verdict |
|---|---|
| (a) At {passes} passes BAPO ends with more entropy than [0.8, 1.2] and clip-higher (intervals above 0) | {entropy} |
| (b) ... and its mean reward over the run is not lower (intervals above -0.05) | {reward} |
| (c) BAPO differs from the fixed wide bound [0.8, 2.0], in reward or entropy, to its favour | {adaptive} |
| (d) BAPO's lead in mean reward over [0.8, 1.2] is larger at 16 passes than at 1: {grown} | {growth} |
| (e) Raising c_high helps: [0.8, 1.5] has a higher mean reward than [0.8, 1.2] | {raised} |
| (f) Lowering c_low hurts: [0.5, 1.2] has a lower mean reward than [0.8, 1.2] | {lowered} |

16 prompts, each with a secret code of 6 letters and an end token (`codes.py`); reward 1 for exactly that. A network of
prompt, place and last token (48-64-64-16) starts as supervised learning left it on mostly wrong demonstrations, whose
failures ramble. {steps} steps of 128 responses, groups of 8, one optimiser step a pass, Adam {learning_rate:g}, no
KL, no entropy bonus, {seeds} seeds, the same start for all arms of a seed. Reward and entropy are exact sums: "mean
reward" is the area under its curve, "entropy" the mean over the last {last} steps in nats a token, "gradient norm" the
largest before clipping, "searched" the share of steps in which a bound left its start.

**With group-centred advantages rho rests near 0.5**, since each group's credits add up to 0: only the lengths of
good and bad responses move it. So the paper's rho_0 = 0.4 hardly ever starts the search here, and BAPO (0.4) is
nearly the fixed clip [0.6, 1.2]. BAPO has rho_0 = 0.5, the value of the authors' README.

### {passes} passes over each batch

| arm | mean reward | final reward | entropy | gradient norm | searched |
|---|---|---|---|---|---|
{rows}

| difference | mean reward | final reward | entropy | gradient norm |
|---|---|---|---|---|
{lines}

{orders}

![Curves of the main arms](arms.png)

### Staleness by passes

| arm | passes | mean reward | final reward | entropy | searched |
|---|---|---|---|---|---|
{stale}

![Scores by passes](staleness.png)

### Diagnostics

![Probability by ratio, lengths, tokens](diagnosis.png)

## Not run, and why

AIME24/25 with 3B to 32B models: needs GPUs for days. The paper's numbers are not comparable with these.
"""
