"""What the numbers allow to be said."""

from __future__ import annotations

from typing import Any

from ascent.evaluation.verdict import judged, shown


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    room, pole, steps = result["studies"]["room"], result["studies"]["pole"], result["steps"]
    lines = [
        "# gbrl: verdict",
        "",
        f"{result['seeds']} seeds an arm, 95% bootstrap intervals; differences are paired by seed, arm minus `trees`.",
        "",
        f"## A DoorKey room, {steps['room']:,} steps",
        "",
        "| arm | rate | steps to 90% success | area under success | final return | CPU seconds | kilobytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, row in room.items():
        kilobytes = row["bytes"]["mean"] / 1000
        lines.append(
            f"| {arm} | {row['rate']:g} | {shown(row['steps'], 0)} | {shown(row['area'])} | {shown(row['final'])} "
            f"| {row['seconds']['mean']:.1f} | {kilobytes:.0f} |"
        )
    lines += [
        "",
        f"An arm that never reached 90% counts as {steps['room'] + 2048:,} steps.",
        "",
        f"## CartPole-v1, {steps['pole']:,} steps",
        "",
        "| arm | rate | mean return over the run | final return | CPU seconds | kilobytes |",
        "|---|---|---|---|---|---|",
    ]
    for arm, row in pole.items():
        lines.append(
            f"| {arm} | {row['rate']:g} | {shown(row['area'], 1)} | {shown(row['final'], 1)} "
            f"| {row['seconds']['mean']:.1f} | {row['bytes']['mean'] / 1000:.0f} |"
        )
    lines += ["", "## Claims", ""]
    for arm, claim in (
        ("network, codes as numbers", "Trees need fewer steps to 90% than a network on integer codes"),
        ("network, one-hot", "Trees need fewer steps to 90% than a network on one-hot words"),
        ("trees, codes as numbers", "Asking for words needs fewer steps than thresholds on codes, both with trees"),
        ("trees, one rate", "Two learning rates need fewer steps than one"),
    ):
        lines.append(_claim(claim, room[arm]["steps"]["minus_trees"], "steps", 0))
    separate = room["trees, separate"]
    away, time = separate["area"]["minus_trees"], separate["seconds"]["minus_trees"]
    size = separate["bytes"]["mean"] / room["trees"]["bytes"]["mean"]
    lines.append(
        f"- Shared trees do as well as separate ones: **{_tie(away)}** (area of separate trees {_numbers(away, 3)}; "
        f"CPU seconds {_numbers(time, 1)}; {size:.2f} times the bytes)."
    )
    final = pole["network"]["final"]["minus_trees"]
    lines.append(
        f"- A tie on CartPole: **{_tie(final)}** (final return of the network, which walks four times, minus that of "
        f"trees, which walk once: {_numbers(final, 1)})."
    )
    lines += [
        "",
        "Small worlds, few seeds, a short budget: MiniGrid itself, Football, Atari-RAM, the paper's budgets and its "
        "twenty walks over a collection were not run.",
    ]
    return "\n".join(lines) + "\n"


def _claim(claim: str, away: list[float], unit: str, digits: int) -> str:
    return f"- {claim}: **{judged(away[1] > 0, away[2] < 0)}** ({_numbers(away, digits)} {unit})."


def _tie(away: list[float]) -> str:
    """What an interval of "other minus trees" says of a tie: no interval around 0 confirms one."""
    return "refuted" if away[1] > 0 else "not confirmed at this scale" if away[2] >= 0 else "exceeded"


def _numbers(away: list[float], digits: int) -> str:
    return f"{away[0]:+.{digits}f} [{away[1]:+.{digits}f}, {away[2]:+.{digits}f}]"
