"""The verdict in words, from the numbers."""

from __future__ import annotations

from typing import Any

from ascent.evaluation.verdict import judged, shown


def claims(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Each claim of the paper that can be tested small, with its verdict."""
    arms, gaps = result["arms"], result["differences"]
    enough = gaps["top 20% - all tokens"]["pass@1"]
    control = gaps["top 20% - random 20%"]["pass@1"]
    behind, gain = gaps["bottom 80% - all tokens"]["pass@1"], arms["all tokens"]["gain"]
    quarter = 0.25 * gain["mean"]
    bottom = arms["bottom 80%"]["gain"]
    survival = result["patterns"]["survival"]
    lowest = min(survival["overlap"].values())
    curves = {name: dict(map(tuple, points)) for name, points in result["patterns"]["temperature"]["curves"].items()}
    same = [found["differences"]["top 20% - random 20%"] for found in result["equal"].values()]
    hot = curves["only at forks"][1.5] - curves["only elsewhere"][1.5]
    return [
        ("top 20% ends at most 0.05 below all tokens", judged(enough["low"] >= -0.05, enough["high"] < 0)),
        ("bottom 80% ends below all tokens", judged(behind["high"] < 0, behind["low"] > 0)),
        (
            "bottom 80% gains less than a quarter of what all tokens gain, which is above 0",
            judged(bottom["high"] < quarter and gain["low"] > 0, bottom["low"] > quarter),
        ),
        ("top 20% beats random 20%, each at its own best rate", judged(control["low"] > 0, control["high"] < 0)),
        (
            "top 20% beats random 20% at each of the rates, equal for both",
            judged(all(gap["low"] > 0 for gap in same), all(gap["high"] < 0 for gap in same)),
        ),
        (
            f"training keeps the pattern: overlap at least 0.86 (lowest {lowest:.2f}, chance 0.20; one training)",
            judged(lowest >= 0.86, lowest < 0.5),
        ),
        ("a higher temperature hurts more elsewhere than at forks (one model)", judged(hot > 0.02, hot < -0.02)),
    ]


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    lines = ["# Verdict: forking tokens", ""]
    lines += [f"- **{word}**: {claim}" for claim, word in claims(result)]
    settings = result["settings"]
    lines += [
        "",
        f"{settings['seeds']} seeds an arm, {settings['steps']} steps of "
        f"{settings['prompts'] * settings['group_size']} responses, {settings['minibatches']} updates a step; 95% "
        "intervals, differences paired by seed. Rates were chosen for each arm out of two on another seed; the "
        f"ablations take that of top 20% and {settings['few_seeds']} seeds.",
        "",
        "| arm | rate | tokens kept | pass@1 | gain over the base | mean reward | final entropy | top 20% that fork |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in result["arms"].items():
        lines.append(
            f"| {name} | {result['rates'][name]:g} | {arm['kept']['mean']:.2f} | {shown(arm['pass@1'])} | "
            f"{shown(arm['gain'])} | {shown(arm['mean_reward'])} | {shown(arm['final_entropy'])} | "
            f"{shown(arm['top positions that fork'], 2)} |"
        )
    lines += ["", "| difference | pass@1 | mean reward | final entropy |", "|---|---|---|---|"]
    for name, scores in result["differences"].items():
        lines.append(f"| {name} | {' | '.join(shown(scores[score]) for score in scores)} |")
    lines += ["", "At equal rates, pass@1 of the same seeds:", ""]
    lines += ["| rate | top 20% | random 20% | difference |", "|---|---|---|---|"]
    for rate, found in result["equal"].items():
        numbers = (*found["arms"].values(), *found["differences"].values())
        lines.append(f"| {rate} | {' | '.join(map(shown, numbers))} |")
    start = result["patterns"]["base"]
    lines += [
        "",
        f"Before training {start['top positions that fork']:.0%} of the top fifth of positions are letters and "
        f"{start['forks among the top']:.0%} of the letters are among them (the language has 3 forks in 18 tokens, so "
        "at most 83% of a fifth can fork).",
        "",
        "The paper's gain of the 20% over all tokens is one of its 14B and 32B models, none at 8B; what is tested here "
        "is the asymmetry. Dividing by all tokens scales the loss to about a fifth; Adam should hardly notice, "
        "the clipping of the gradient norm does; three seeds do not settle it. Training was cut short "
        "for the budget: every arm is still far from what the task allows, and seeds differ much.",
    ]
    return "\n".join(lines) + "\n"
