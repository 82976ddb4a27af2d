"""The verdict in words, from the numbers."""

from __future__ import annotations

import math
from typing import Any

from ascent.evaluation.verdict import judged, shown


def claims(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The paper's claims that can be tested small, with what the numbers allow to be said."""
    gaps, theory, coarse = result["differences"], result["theory"], result["settings"]["coarse"]

    def below(label: str, key: str = "final") -> str:
        gap = gaps[label][key]
        return judged(gap["high"] < 0, gap["low"] > 0)

    errors, sizes = theory["token objective"]["error"], theory["sizes"]
    power = math.log(errors[-2] / errors[-1]) / math.log(sizes[-2] / sizes[-1])
    stays = theory["length norm"]["error"][-1]
    kept = theory["no engine correction, engines 0.3 apart"]["error"]
    found = [
        (
            f"the token objective's gradient errs linearly in the distance (measured power {power:.2f}, cosine "
            f"{theory['token objective']['cosine'][-1]:.6f} at {sizes[-1]:g})",
            judged(abs(power - 1) < 0.1, abs(power - 1) > 0.5),
        ),
        (
            f"with length norm the error does not vanish (relative error {stays:.2f} at {sizes[-1]:g})",
            judged(stays > 0.1, stays < 0.02),
        ),
        (
            f"without the engine correction a gap between engines stays, however fresh the policy (error {kept[0]:.3f} "
            f"at e = {sizes[0]:g}, {kept[-1]:.3f} at {sizes[-1]:g})",
            judged(kept[-1] > 0.05, kept[-1] < 0.01),
        ),
        (
            f"on policy, without the engine correction the final reward is lower ({coarse} engine)",
            below(f"no engine correction - MiniRL, {coarse}, N=1"),
        ),
        ("on policy, length norm lowers the final reward", below(f"length norm - MiniRL, {coarse}, N=1")),
        (
            "R3 brings the engines together on policy (KL(mu, pi_old))",
            below(f"R3 - MiniRL, {coarse}, N=1", "engine_kl"),
        ),
        ("on policy, R3 does not raise the final reward", _not_above(gaps[f"R3 - MiniRL, {coarse}, N=1"]["final"])),
    ]
    for stale in (2, 4, 8):
        found.append((f"N = {stale}: without the mask the final reward is lower", below(_at("no mask", coarse, stale))))
        found.append((f"N = {stale}: R3 brings the engines together", below(_at("R3", coarse, stale), "engine_kl")))
    other = gaps[_at("GRPO", coarse, 4)]["final"]
    found.append(("N = 4: MiniRL ends above GRPO", judged(other["high"] < 0, other["low"] > 0)))
    for stale in (4, 8):
        for arm in ("R2", "R3"):
            gap = gaps[_at(arm, coarse, stale)]["final"]
            found.append((f"N = {stale}: {arm} raises the final reward", judged(gap["low"] > 0, gap["high"] < 0)))
    gap = result["cold starts"]["gap"]
    found.append(
        (
            "the longest and the shortest cold start end alike after the same reinforcement learning, which is short "
            f"here (difference {shown(gap)})",
            # The paper speaks of prolonged training, so a gap after a short one refutes nothing.
            "not confirmed at this scale" if gap["low"] > 0 or gap["high"] < 0 else "no counter-evidence",
        )
    )
    return found


def _at(arm: str, coarse: str, stale: int) -> str:
    return f"{arm} - MiniRL, {coarse}, N={stale}"


def _not_above(gap: dict[str, float]) -> str:
    """Of a claim of no gain: only a gain could refute it, and no interval proves it."""
    return "refuted" if gap["low"] > 0 else "no counter-evidence"


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    settings = result["settings"]
    rows = settings["prompts"] * settings["group_size"]
    lines = ["# Verdict: stabilizing_rl", ""]
    lines += [f"- **{word}**: {claim}" for claim, word in claims(result)]
    rates = "; ".join(
        f"{rate}: {sum(own['collapsed']):.0f} of {len(own['collapsed'])} collapsed, mean reward "
        f"{sum(own['area']) / len(own['area']):.3f}"
        for rate, own in result["rates"].items()
    )
    lines += [
        "",
        f"{settings['seeds']} seeds an arm, updates of {rows} responses (the batch is N times as large). On policy: "
        f"{settings['updates']} updates at the rate {settings['rate']:g}, the greatest at which no seed of MiniRL "
        f"collapses; off policy: {settings['stale_updates']} updates at {settings['stress']:g}, the next one, as a "
        f"stress test. Rates were tried on {settings['rate_seeds']} other seeds: {rates}. Final is the mean reward of "
        f"the last {settings['window']:.0%} of the updates; a seed has collapsed where that is below half of the best "
        "or of the first such mean. Rewards are of the engine's samples, so a coarser engine has lower ones from the "
        "start. 95% intervals, differences paired by seed; with so few seeds and updates they are wide, and what is "
        "not confirmed here is not refuted.",
        "",
        "| arm, engine, N | final | peak | mean reward | collapsed | KL(mu, pi_old) | masked | truncated | "
        "routes changed: layers | tokens | entropy at the end |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, arm in result["arms"].items():
        fallen = arm["collapsed"]["seeds"]

        def mean(key: str, digits: int = 3, arm: dict[str, Any] = arm) -> str:
            return f"{arm[key]['mean']:.{digits}f}" if key in arm else ""

        lines.append(
            f"| {name} | {shown(arm['final'])} | {mean('peak')} | {mean('area')} | {sum(fallen):.0f} of {len(fallen)} "
            f"| {mean('engine_kl', 4)} | {mean('clip_fraction')} | {mean('importance_changed', 4)} "
            f"| {mean('routes_changed')} | {mean('tokens_rerouted')} | {mean('entropy at the end')} |"
        )
    lines += ["", "| difference | final | mean reward | KL(mu, pi_old) |", "|---|---|---|---|"]
    for name, gap in result["differences"].items():
        kl = shown(gap["engine_kl"], 4) if "engine_kl" in gap else ""
        lines.append(f"| {name} | {shown(gap['final'])} | {shown(gap['area'])} | {kl} |")
    cold = result["cold starts"]
    lines += [
        "",
        "Cold starts (supervised updates), MiniRL on policy, finest engine, a longer run:",
        "",
    ]
    lines += ["| supervised updates | reward at first | final |", "|---|---|---|"]
    lines += [
        f"| {steps} | {shown(own['first'])} | {shown(own['final'])} |" for steps, own in cold.items() if steps != "gap"
    ]
    theory = result["theory"]
    lines += ["", "Relative error of the expected gradient, enumerated (mean of 5 policies):", ""]
    lines += ["| e | " + " | ".join(f"{size:g}" for size in theory["sizes"]) + " |"]
    lines += ["|---" * (len(theory["sizes"]) + 1) + "|"]
    for name, row in theory.items():
        if name != "sizes":
            lines.append(f"| {name} | " + " | ".join(f"{error:.4f}" for error in row["error"]) + " |")
    return "\n".join(lines) + "\n"
