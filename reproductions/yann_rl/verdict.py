"""What the numbers allow to be said."""

from __future__ import annotations

from typing import Any

import numpy as np

from ascent.evaluation.verdict import judged, shown


def difference(numbers: list[float]) -> str:
    """Estimate and interval with their signs."""
    estimate, low, high = numbers
    return f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"


def table(study: dict[str, Any]) -> list[str]:
    """Every arm's costs."""
    lines = [
        "| arm | rate | first cost | last cost | minus predictive control | training blocks with a violation |",
        "|---|---|---|---|---|---|",
    ]
    for arm, row in study["arms"].items():
        beyond = ", ".join(map(str, row["episodes_beyond"]))
        lines.append(
            f"| {arm} | {row['rate']:g} | {np.mean(row['start']):.2f} | {shown(row, 2)} | "
            f"{difference(row['minus_control'])} | {beyond} |"
        )
    return lines


def claims(plant: str, study: dict[str, Any]) -> list[str]:
    """Each claim with its word."""
    yann, control = study["arms"]["YANN-DDPG"], study["predictive_control"]
    off = max(yann["start_difference"])
    worst = max(yann["seeds"]) / control - 1.0
    estimate, low, high = yann["minus_control"]
    lines = [
        f"- It starts as predictive control: the laws differ by at most {off:.1e} on a lattice of states: "
        f"**{judged(off < 1e-6, off >= 1e-6)}**.",
        f"- No seed ends more than 2% above predictive control (worst {worst:+.1%}): "
        f"**{judged(worst <= 0.02, worst > 0.02)}**.",
        f"- Fine-tuning lowers the cost ({estimate:+.3f} [{low:+.3f}, {high:+.3f}]): **{judged(high < 0, low > 0)}**.",
    ]
    for arm, row in study["arms"].items():
        if arm == "YANN-DDPG":
            continue
        gaps = np.array(row["curves"]) - np.array(yann["curves"])
        later = gaps[:, 1:].mean(0)
        _, low, high = row["minus_yann"]
        if arm.startswith("DDPG"):
            lines.append(
                f"- It is below {arm} after training ({difference(row['minus_yann'])}, {arm} minus YANN-DDPG): "
                f"**{judged(low > 0, high < 0)}**; in the mean it is below at {int((later > 0).sum())} of "
                f"{len(later)} evaluations."
            )
        else:
            lines.append(
                f"- The critic's start matters, {arm} ends higher ({difference(row['minus_yann'])}): "
                f"**{judged(low > 0, high < 0)}**."
            )
    ours, theirs = yann["episodes_beyond"], study["arms"]["DDPG, noise 0.1"]["episodes_beyond"]
    fewer = all(a < b for a, b in zip(ours, theirs, strict=True))
    lines.append(
        f"- Training blocks of an episode's length with a violation, {sum(ours)} against {sum(theirs)} of DDPG with "
        "noise over all seeds: "
        f"fewer in every seed is **{judged(fewer, sum(ours) >= sum(theirs))}**."
    )
    moved = np.abs(np.array(yann["episode_changes"])) > 0.01
    gained = -np.minimum(np.array(yann["episode_changes"]), 0.0)
    lines.append(
        f"- Of seed 0's {len(moved)} held-out episodes {int(moved.sum())} change by more than 0.01; the two largest "
        f"gains are {np.sort(gained)[-2:].sum() / max(gained.sum(), 1e-9):.0%} of all gain."
    )
    return lines


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    settings = result["settings"]
    lines = [
        "# yann_rl: verdict",
        "",
        f"{settings['seeds']} seeds an arm; costs are means of 20 held-out episodes, the same for every arm, with 95% "
        "intervals over seeds. Each arm's policy rate is the best of two on one pilot seed; batch 64, one update "
        "a step, target rate 1e-3 for all; critic rate 1e-4 from the quadratic cost, 1e-3 from random weights. The "
        "paper trains 50 episodes with one seed.",
        "",
    ]
    for plant, study in result["studies"].items():
        lines += [
            f"## {plant}, {settings['episodes'][plant]} episodes",
            "",
            f"Predictive control alone: {study['predictive_control']:.2f}.",
            "",
            *table(study),
            "",
            *claims(plant, study),
            "",
        ]
    return "\n".join(lines)
