"""The verdict of the experiment, written from its numbers."""

from __future__ import annotations

from itertools import pairwise
from math import exp
from typing import Any

CONFIRMED, NOT, REFUTED = "confirmed", "not confirmed at this scale", "refuted"
MARGIN = 0.03
"""Loss of pass@1 that still counts as "not lower": the whole interval must lie above minus this."""


def above(gaps: list[dict[str, float]]) -> str:
    """All differences above 0: confirmed if every interval is, refuted if one lies below."""
    if all(gap["low"] > 0 for gap in gaps):
        return CONFIRMED
    return REFUTED if any(gap["high"] < 0 for gap in gaps) else NOT


def not_lower(gap: dict[str, float]) -> str:
    """Confirmed if the interval lies above -MARGIN, refuted if it lies below 0."""
    if gap["low"] > -MARGIN:
        return CONFIRMED
    return REFUTED if gap["high"] < 0 else NOT


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    """One word a claim, by rules that were fixed before the runs."""
    claims = result["claims"]
    cause, gaps = claims["covariance"], claims["final"]["differences"]
    correlated = cause[f"covariance, window {result['settings']['window']}"]
    found = {
        "(a) covariance mostly positive": above([{key: cause["positive"][key] - 0.5 for key in ("low", "high")}]),
        "(a) covariance correlates with the fall of entropy": above([correlated]),
    }
    arms, few = result["arms"], f"({result['settings']['sweep_seeds']} seeds)"
    strength = {
        "Clip-Cov": f"Clip-Cov (r = {arms['Clip-Cov']['clip_fraction']:g})",
        "KL-Cov": f"KL-Cov (beta = {arms['KL-Cov']['kl_coefficient']:g})",
    }
    for name, control in (("Clip-Cov", "random drop"), ("KL-Cov", "random penalty")):
        pair = [gaps[f"{name} - {to}"]["final_entropy"] for to in ("GRPO", control)]
        found[f"(b) {strength[name]} ends with more entropy than GRPO and than its control"] = above(pair)
        means = [item["final_entropy"]["mean"] for item in claims["sweeps"][name]["levels"]]
        clear = above([claims["sweeps"][name]["last - first"]])
        rising = all(first < second for first, second in pairwise(means))
        found[f"(b) final entropy is monotone in {name}'s strength {few}"] = (
            NOT if clear == CONFIRMED and not rising else clear
        )
        if "control" in claims["sweeps"][name]:
            strong = above([claims["sweeps"][name]["last - control"]["final_entropy"]])
            found[f"(b) {name} at its greatest strength ends with more entropy than its control there {few}"] = strong
        found[f"(c) pass@1 of {strength[name]} not lower than GRPO's"] = not_lower(gaps[f"{name} - GRPO"]["pass@1"])
        strong = not_lower(claims["sweeps"][name]["last - GRPO"]["pass@1"])
        found[f"(c) pass@1 of {name} at its greatest strength not lower than GRPO's {few}"] = strong
    return found


def shown(number: dict[str, float], digits: int = 3, sign: str = "") -> str:
    """mean [low, high]"""
    mean, low, high = (f"{number[name]:{sign}.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def arms_table(result: dict[str, Any]) -> str:
    """Scores of every arm and differences to GRPO, then the differences to the controls."""
    final, many = result["claims"]["final"], f"pass@{result['settings']['samples']}"
    lines = [
        f"| arm | tokens chosen | final entropy | - GRPO | pass@1 | - GRPO | {many} |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, scores in final["arms"].items():
        gap = final["differences"].get(f"{name} - GRPO")
        chosen = next(iter(result["runs"][name].values()))["chosen_per_update"]
        entropy, score = (scores["final_entropy"], scores["pass@1"])
        cells = [
            f"{chosen:.0f}",
            shown(entropy, 4),
            shown(gap["final_entropy"], 4, "+") if gap else "",
            shown(score),
            shown(gap["pass@1"], 3, "+") if gap else "",
            shown(scores[many]),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| difference | final entropy | pass@1 |", "|---|---|---|"]
    for name, gap in final["differences"].items():
        if not name.endswith("- GRPO"):
            lines.append(f"| {name} | {shown(gap['final_entropy'], 4, '+')} | {shown(gap['pass@1'], 3, '+')} |")
    return "\n".join(lines)


def sweeps_table(result: dict[str, Any]) -> str:
    """Final entropy and pass@1 by strength, 0 is GRPO; and the reward that GRPO's own law gives to that entropy."""
    law = result["claims"]["law"]
    lines = ["| remedy | strength | final entropy | pass@1 | GRPO's law there |", "|---|---|---|---|---|"]
    for name, sweep in result["claims"]["sweeps"].items():
        for item in sweep["levels"]:
            strength = "0 (GRPO)" if item["level"] == 0 else f"`{sweep['parameter']}` {item['level']:g}"
            entropy, score = shown(item["final_entropy"], 4), shown(item["pass@1"])
            reward = law["b"]["mean"] - law["a"]["mean"] * exp(item["final_entropy"]["mean"])
            lines.append(f"| {name} | {strength} | {entropy} | {score} | {reward:.3f} |")
        lines.append(f"| {name} | greatest - least strength | {shown(sweep['last - first'], 4, '+')} | | |")
        gap = sweep["last - GRPO"]
        entropy, score = shown(gap["final_entropy"], 4, "+"), shown(gap["pass@1"], 3, "+")
        lines.append(f"| {name} | greatest strength - GRPO | {entropy} | {score} | |")
        if "control" in sweep:
            control, gap = sweep["control"], sweep["last - control"]
            entropy, score = shown(control["final_entropy"], 4), shown(control["pass@1"])
            lines.append(f"| as many at random | `{sweep['parameter']}` {control['level']:g} | {entropy} | {score} | |")
            entropy, score = shown(gap["final_entropy"], 4, "+"), shown(gap["pass@1"], 3, "+")
            lines.append(f"| {name} | greatest strength - as many at random | {entropy} | {score} | |")
    return "\n".join(lines)


def verdict(result: dict[str, Any]) -> str:
    """The page verdict.md."""
    claims, settings, made = result["claims"], result["settings"], result["made"]
    cause, law, means = claims["covariance"], claims["law"], claims["covariance"]["means"]
    arms, clip = result["arms"], result["arms"]["Clip-Cov"]
    window, steps, last = settings["window"], settings["steps"], settings["last"]
    tokens = next(iter(result["runs"]["Clip-Cov"].values()))["tokens_per_update"]
    by_accuracy = ", ".join(
        f"{means[name]['mean']:.3f} at {name.rsplit('_', 1)[-1]}" for name in means if "accuracy" in name
    )
    words = "\n".join(f"- **{word}**: {claim}" for claim, word in verdicts(result).items())
    return f"""# Verdict: the entropy mechanism, Clip-Cov and KL-Cov

{words}

Intervals are 95% bootstrap intervals over seeds, widened for few seeds; differences are paired by seed. An ordering is
confirmed where its whole interval lies above 0 and "not lower" where it lies above -{MARGIN}; refuted where it lies
below 0. These rules were fixed before the runs; what is said of the greatest strength was added after the first
results.

![Entropy and pass@1 of every arm](arms.png)

## What was run

The embedded model (0.86 M parameters, {settings["warm_up_steps"]} supervised steps on half wrong solutions) on
`{settings["task"]}`: {steps} steps of {settings["batch"]} responses, {settings["group_size"]} a prompt,
{settings["minibatches"]} updates per rollout, Adam at {settings["learning_rate"]:g}; {settings["seeds"]} seeds an arm,
{settings["sweep_seeds"]} a setting of the sweeps. Every arm gets the same prompts, responses and steps. None was tuned:
the strengths were fixed after pilots on another seed (GRPO at two learning rates, Clip-Cov and KL-Cov once): r
{clip["clip_fraction"]:g}, beta {arms["KL-Cov"]["kl_coefficient"]:g} as in the paper, entropy bonus
{arms["entropy bonus"]["entropy_coefficient"]:g}; two more of r and of beta are in the sweeps. GRPO, the baseline, is
clipped ratios (0.2) with a token mean and no reference KL. `random drop` and `random penalty` are Clip-Cov and KL-Cov
that choose as many tokens at random. Final entropy is the mean of the last {last} steps' logged policy entropy.

An update has about {tokens:.0f} tokens, so a share of 0.01 chooses {int(0.01 * tokens)} of them, 0.03
{int(0.03 * tokens)} and 0.09 {int(0.09 * tokens)}; the paper's 2e-4 would always choose the obligatory one. The bounds
of Clip-Cov are quantiles, {clip["covariance_low"]:g} and {clip["covariance_high"]:g}: the greatest tenth without the
very greatest, because the paper's (1, 5) belong to the covariance scale of its model, where they leave about the top
2%.

{arms_table(result)}

## (a) The covariance and the fall of entropy

The mean covariance of GRPO was positive in {shown(cause["positive"], 2)} of the steps. Its correlation with the fall of
entropy, both over windows of {window} steps, was {shown(cause[f"covariance, window {window}"], 2)} by seed and
{cause["of the mean curves"]:.2f} between the mean curves of the seeds; step by step, where the difference of two
estimated entropies is mostly noise, {shown(cause["covariance, window 1"], 2)}. Both decline over training; with the
straight lines taken out of both, {shown(cause["covariance without trends"], 2)} remains. Between whole
responses (mean token log-prob with advantage, within each prompt) it was
{shown(cause[f"response_covariance, window {window}"], 2)}. The greatest 0.2% of an update's tokens had a mean
covariance of {means["covariance_top/0.002"]["mean"]:.2f}, the greatest half
{means["covariance_top/0.5"]["mean"]:.3f}. By accuracy of the group: {by_accuracy}.

![Covariance, extreme tokens, difficulty and the law](mechanism.png)

## (b), (c) Strength of the remedies

{sweeps_table(result)}

![Final entropy and pass@1 by strength](control.png)

## The law R = b - a exp(H)

Fitted to the {steps} steps of each GRPO run (mean reward of the collected responses to fresh prompts): R²
{shown(law["R2"], 2)}, a {shown(law["a"], 2)}, b {shown(law["b"], 2)}, ceiling b - a {shown(law["ceiling"], 2)}, RMSE
{shown(law["RMSE"])}; the binomial sampling error of a step's reward alone is
{law["sampling error of a step"]["mean"]:.3f}. The law of the first 15% of the steps predicts the rest with RMSE
{shown(law["early RMSE of the rest"])}, a constant with {shown(law["RMSE of the rest of a constant"])}; it puts the last
{last} steps at {shown(law["early prediction of the last steps"], 2)}, measured
{shown(law["reward of the last steps"], 2)}.

## What was not run, and why

- The paper's models, data and benchmarks (7B and 32B; AIME, AMC, MATH500, OMNI, Olympiad, Minerva), the coefficients
  against model size, and the other algorithms of its law (RLOO, REINFORCE++, PRIME): beyond a few CPU minutes.
- The filter of all-correct and all-wrong groups, so that every arm uses the same prompts; such groups have advantage 0
  but count as tokens. No sweeps of the reference KL and of the entropy bonus, which had one strength.
- More seeds of the sweeps: the interval of {settings["sweep_seeds"]} runs is about their range, which is weak evidence.
- A task with many solutions. Two-digit addition has one written solution, so its best policy has entropy 0: kept
  entropy costs reward here at once, and what it may buy in exploration later is not tested. Countdown, which has many,
  was tried once with GRPO: entropy fell from 0.48 to 0.25 and held-out pass@1 from 0.10 to 0.05 in 60 steps (learning
  rate 3e-4), so the warmed-up model is too weak there to measure (c).

Made {made["date"]} on {made["machine"]}, torch {made["versions"].get("torch")}; `ascent reproduce entropy_mechanism`
makes it again. Every seed's numbers and curves are in `result.json`.
"""
