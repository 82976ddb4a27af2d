"""The verdict in words, from the numbers."""

from __future__ import annotations

from typing import Any


def shown(number: dict[str, Any] | None, digits: int = 3) -> str:
    """Mean and interval, or nothing."""
    if number is None:
        return ""
    return f"{number['mean']:.{digits}f} [{number['low']:.{digits}f}, {number['high']:.{digits}f}]"


def judged(number: dict[str, Any], least: float = 0.0) -> str:
    """Whether a difference is above `least`."""
    return (
        "confirmed" if number["low"] > least else "refuted" if number["high"] < least else "not confirmed at this scale"
    )


def claims(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The paper's claims that can be tested small."""
    gaps = result["differences"]
    sooner = gaps["KDRL constant - GRPO"]["rollouts_to_target"]
    both = (gaps["KD, then GRPO - KD"]["pass@1"], gaps["KDRL constant - KD"]["pass@1"])
    beaten = both[0]["mean"] > both[1]["mean"]
    return [
        (
            "KDRL reaches half right answers with fewer rollouts than GRPO",
            judged({"mean": -sooner["mean"], "low": -sooner["high"], "high": -sooner["low"]}),
        ),
        ("KDRL ends above GRPO", judged(gaps["KDRL constant - GRPO"]["pass@1"])),
        ("KDRL ends above distillation alone", judged(gaps["KDRL constant - KD"]["pass@1"])),
        (
            "with a poor teacher KDRL ends above distillation alone",
            judged(gaps["KDRL constant, poor teacher - KD, poor teacher"]["pass@1"]),
        ),
        (
            "annealing is at least as good as a constant coefficient",
            judged(gaps["KDRL annealing - KDRL constant"]["pass@1"], -0.05),
        ),
        (
            f"distillation, then GRPO, ends {'above' if beaten else 'not above'} the joint loss (mean of the seeds)",
            "counter-evidence" if beaten else "no counter-evidence",
        ),
    ]


def remarks(result: dict[str, Any]) -> list[str]:
    """What the claims do not say."""
    arms = result["arms"]
    best = max(arms, key=lambda name: arms[name]["pass@1"]["mean"])
    never = (result["settings"]["steps"] + 1) * result["settings"]["prompts"] * result["settings"]["group_size"]
    reached = [name for name, arm in arms.items() if arm.get("rollouts_to_target", {"low": never})["low"] < never]
    grid = [float(tried) for tried in result["pilots"]["coefficient"]]
    edge = {min(grid): "the least", max(grid): "the greatest"}.get(result["coefficient"])
    found = [f"The highest mean of pass@1 is that of {best}."]
    found.append(f"Some run reaches the target in {', '.join(reached)}." if reached else "No run reaches the target.")
    if edge:
        found.append(f"The chosen coefficient is {edge} of its grid.")
    if arms["KD by k1"]["pass@1"]["high"] < arms["KD"]["pass@1"]["low"]:
        found.append("As a loss k1 ruins the student, as the enumeration says: its gradient is noise.")
    return [" ".join(found) + " Scores of this part are of training problems."]


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    settings, accuracy, pilots = result["settings"], result["accuracy"], result["pilots"]
    lines = ["# Verdict: KDRL", ""]
    lines += [f"- **{word}**: {claim}" for claim, word in claims(result)]
    lines += [
        "",
        f"Accuracy: student {accuracy['student']:.3f}, teacher {accuracy['teacher']:.3f}, poor teacher "
        f"{accuracy['poor teacher']:.3f}. {settings['seeds']} seeds an arm, {settings['steps']} steps of "
        f"{settings['prompts'] * settings['group_size']} responses, one update a step, Adam at "
        f"{settings['learning_rate']:g} for every arm; 95% intervals, differences paired by seed. By mean reward on "
        f"{len(pilots['seeds'])} other seeds the rate is GRPO's best of {', '.join(pilots['rate'])}, and the constant "
        f"coefficient {result['coefficient']:g} the joint loss's best of {', '.join(pilots['coefficient'])}. "
        "Rollouts to the target count up to where "
        f"five steps in a row average {settings['target']:g}; a run that never gets there counts as one step more than "
        "its budget.",
        "",
        "| arm | pass@1 | mean reward | rollouts to target | characters | tokens distilled |",
        "|---|---|---|---|---|---|",
    ]
    for name, arm in result["arms"].items():
        lines.append(
            f"| {name} | {shown(arm['pass@1'])} | {shown(arm['mean_reward'])} | "
            f"{shown(arm.get('rollouts_to_target'), 0)} | {shown(arm['characters'], 1)} | "
            f"{arm['distilled']['mean']:.2f} |"
        )
    lines += ["", "| difference | pass@1 | mean reward | rollouts to target |", "|---|---|---|---|"]
    for name, scores in result["differences"].items():
        lines.append(
            f"| {name} | {shown(scores['pass@1'])} | {shown(scores['mean_reward'])} | "
            f"{shown(scores.get('rollouts_to_target'), 0)} |"
        )
    lines += [
        "",
        *remarks(result),
        "",
        "The mean reward of the supervised arm is its teacher's. Every arm with a teacher also pays for a forward "
        "of the teacher over its samples, which the rollouts do not count.",
    ]
    return "\n".join(lines) + "\n"
