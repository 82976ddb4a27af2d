"""What the numbers allow to be said."""

from __future__ import annotations

from typing import Any

from ascent.evaluation.verdict import judged, shown


def against(study: dict[str, Any], arm: str) -> tuple[str, str]:
    """Whether `to go` is above `arm`, and the paired difference, arm minus to go."""
    estimate, low, high = study["arms"][arm]["minus_to_go"]
    return judged(high < 0, low > 0), f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    studies = result["studies"]
    lines = [
        "# submodular_rl: verdict",
        "",
        f"{result['seeds']} seeds an arm, 32 walks a step, 120 steps, one network for all; each arm's learning rate is "
        "the best of three on two pilot seeds. Numbers are F of fresh walks of the last policy divided by the best "
        "walk known, with 95% intervals; differences are paired by seed, arm minus `to go`.",
        "",
    ]
    for name, study in studies.items():
        lines += [f"## {name}", "", "| arm | rate | F / best known | minus to go |", "|---|---|---|---|"]
        for arm, row in study["arms"].items():
            difference = "" if arm == "to go" else against(study, arm)[1]
            lines.append(f"| {arm} | {row['rate']:g} | {shown(row)} | {difference} |")
        lines += [
            "",
            f"Greedy planner {study['greedy_planner']:.3f}, best of 20,000 random walks {study['random_walks']:.3f}.",
            "",
        ]
    lines += ["## Claims", ""]
    for name in ("Coverage", "ItemCollection", "InformativePath", "Biodiversity", "TwoRooms"):
        lines.append(f"- Paying gains beats paying additive worth on {name}: **{against(studies[name], 'ModPO')[0]}**.")
    coverage = studies["Coverage"]
    for arm, what in (
        ("released", "the paper's reward-to-go beats the released weight as released, without a baseline"),
        ("released, baseline", "it beats the released weight with the same baseline"),
        ("greedy", "it beats the one-step greedy weight"),
        (
            "whole, no baseline",
            "gains with the baseline beat the whole trajectory's F without one",
        ),
        ("whole", "decomposing helps with the baseline too"),
    ):
        lines.append(f"- On Coverage {what}: **{against(coverage, arm)[0]}**.")
    trap = studies["GreedyTrap"]
    lines.append(f"- On GreedyTrap `to go` beats the one-step greedy weight: **{against(trap, 'greedy')[0]}**.")
    lines.append(f"- On GreedyTrap it beats the released weight: **{against(trap, 'released')[0]}**.")
    estimate, low, high = studies["TwoRooms"]["arms"]["to go, history"]["minus_to_go"]
    lines.append(
        f"- Seeing the history helps in two rooms ({estimate:+.3f} [{low:+.3f}, {high:+.3f}]): "
        f"**{judged(low > 0, high < 0)}**."
    )
    return "\n".join(lines) + "\n"
