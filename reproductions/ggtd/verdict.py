"""The verdict in words, from the numbers; its rules were fixed before the runs.

"Better" is a paired difference whose 95% interval lies on the right side of 0, and refuted where it lies on the other
side. "Not worse" allows a margin: 25 of CartPole's 500, 60 of the about 1,300 between random and good on Pendulum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ascent.evaluation.verdict import judged, shown

WORLDS = {"cartpole": "PPO, noisy CartPole", "pendulum": "SAC, noisy Pendulum"}
MARGINS = {"cartpole": 25.0, "pendulum": 60.0}
TIE = 0.02  # nats an error
FOLLOWS = 0.5  # correlation of said and true shape


def better(away: list[float]) -> str:
    return judged(away[1] > 0, away[2] < 0)


def not_worse(away: list[float], margin: float) -> str:
    return judged(away[1] > -margin, away[2] < 0)


def numbers(away: list[float], digits: int = 1) -> str:
    return f"{away[0]:+.{digits}f} [{away[1]:+.{digits}f}, {away[2]:+.{digits}f}]"


def of_estimation(laws: Mapping[str, Any]) -> list[str]:
    """Claims of part A."""
    lines = []
    for law in ("varying", "laplace"):
        away = laws[law]["shape"]["minus_variance"]["nll"]
        lines.append(
            f"- A, {law}: a shape head predicts fresh errors better than a variance head: "
            f"**{judged(away[2] < 0, away[1] > 0)}** ({numbers(away, 3)} nats)."
        )
    away = laws["gaussian"]["shape"]["minus_variance"]["nll"]
    word = judged(away[1] > -TIE and away[2] < TIE, away[1] > TIE or away[2] < -TIE)
    lines.append(f"- A, gaussian: the two tie, within {TIE} nats: **{word}** ({numbers(away, 3)}).")
    for head, what in (("shape", "power form"), ("shape, product", "product form")):
        found = laws["varying"][head]["measures"]["correlation"]
        word = judged(found["low"] > FOLLOWS, found["high"] < FOLLOWS)
        lines.append(
            f"- A, varying: the said shape follows the true one (correlation above {FOLLOWS}), {what}: "
            f"**{word}** ({shown(found, 2)})."
        )
    for law in ("laplace", "gaussian"):
        away = laws[law]["shape"]["minus_variance"]["variation"]
        lines.append(
            f"- A, {law}, where the truth does not vary: what the shape head says varies less (coefficient of "
            f"variation): **{judged(away[2] < 0, away[1] > 0)}** ({numbers(away, 3)})."
        )
    return lines


def of_control(name: str, world: Mapping[str, Any]) -> list[str]:
    """Claims of part B in one world, on the mean return over the run."""
    pairs, arms, lines = world["pairs"], world["arms"], []
    for left, right, what in (
        ("ggd", "gd", "A shape head beats a variance head"),
        ("ggd", "base", "A shape head beats squared errors"),
        ("iev_ggd", "base", "The whole method beats squared errors"),
        ("iev_ggd", "gd", "The whole method beats a variance head"),
    ):
        away = pairs[f"{left} - {right}"]["area"]
        lines.append(f"- B, {what}: **{better(away)}** ({numbers(away)}).")
    away = pairs["iev_ggd - iv_ggd"]["area"]
    lines.append(
        f"- B, BIEV is not worse than BIV, margin {MARGINS[name]:g}: **{not_worse(away, MARGINS[name])}** "
        f"({numbers(away)})."
    )
    for measure, what in (("variation", "varies less"), ("roughness", "moves more smoothly")):
        away = pairs["ggd - gd"][measure]
        lines.append(
            f"- B, What a shape head says {what} than what a variance head says: "
            f"**{judged(away[2] < 0, away[1] > 0)}** ({numbers(away, 3)})."
        )
    base = arms["base"]["measures"]
    heavy, gain = base["kurtosis"], base["gain"]
    word = judged(heavy["low"] > 0, heavy["high"] < 0)
    lines.append(
        f"- B, TD errors are heavy-tailed to the end, with squared errors too (excess kurtosis above 0): **{word}** "
        f"({shown(heavy, 1)}; the generalised Gaussian fits them better by {shown(gain, 2)} nats an error)."
    )
    share = arms["iev_ggd"]["measures"]["up_to_2"]
    word = judged(share["low"] > 0.5, share["high"] < 0.5)
    lines.append(f"- B, Said shapes mostly settle in (0, 2] (share above a half): **{word}** ({shown(share, 2)}).")
    return lines


def cell(measures: Mapping[str, Any], name: str, digits: int) -> str:
    return shown(measures[name], digits) if name in measures else ""


def verdict(result: Mapping[str, Any]) -> str:
    """verdict.md."""
    lines = [
        "# ggtd: verdict",
        "",
        f"{result['seeds']} seeds an arm, 95% bootstrap intervals of the mean; differences are paired by seed. The "
        "rules (`verdict.py`) were fixed before the runs. Arms of a study have equal steps, networks and learning "
        "rates, tuned for none of them; how many steps was decided by two other seeds of squared errors (`base`). "
        "`base` is an ensemble of five, as every arm is but `plain`, PPO with one critic.",
        "",
        "## Claims",
        "",
        *of_estimation(result["estimation"]),
    ]
    for name, title in WORLDS.items():
        lines += ["", f"### {title}", "", *of_control(name, result["worlds"][name])]
    lines += ["", "## A. Estimation", ""]
    for law, heads in result["estimation"].items():
        lines += [
            f"### {law}",
            "",
            "| head | nats an error | minus variance head | error of the mean | said, mean | variation | correlation |",
            "|---|---|---|---|---|---|---|",
        ]
        for head, told in heads.items():
            own = told["measures"]
            away = "" if head == "variance" else numbers(told["minus_variance"]["nll"], 3)
            lines.append(
                f"| {head} | {shown(own['nll'])} | {away} | {shown(own['mean_error'])} | {shown(own['said'], 2)} "
                f"| {shown(own['variation'], 2)} | {cell(own, 'correlation', 2)} |"
            )
        lines.append("")
    lines += ["A product form is judged by the density of the shape that it says.", ""]
    for name, title in WORLDS.items():
        lines += [f"## B. {title}", "", *control_table(result["worlds"][name])]
    lines += ["## C. Ablations", "", *ablation_table(result)]
    return "\n".join(lines) + "\n"


def control_table(world: Mapping[str, Any]) -> list[str]:
    """Every arm and every difference."""
    lines = [
        "| arm | mean return over the run | final return | kurtosis of TD errors | gain of the GGD, nats | variation | "
        "roughness |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, told in world["arms"].items():
        own = told["measures"]
        lines.append(
            f"| {arm} | {shown(own['area'], 1)} | {shown(own['final'], 1)} | {shown(own['kurtosis'], 1)} "
            f"| {shown(own['gain'], 2)} | {cell(own, 'variation', 2)} | {cell(own, 'roughness', 2)} |"
        )
    lines += ["", "| difference | mean return over the run | final return |", "|---|---|---|"]
    for pair, away in world["pairs"].items():
        lines.append(f"| {pair} | {numbers(away['area'])} | {numbers(away['final'])} |")
    return [*lines, ""]


def ablation_table(result: Mapping[str, Any]) -> list[str]:
    """The whole method with one thing changed."""
    lines = [
        f"CartPole, {result['fewer']} seeds, each minus the whole method (`iev_ggd`) on the same seeds: a look, no "
        "claim.",
        "",
        "| changed | mean return over the run | minus the whole method | final return |",
        "|---|---|---|---|",
    ]
    for arm, told in result["ablations"]["changed"].items():
        own, away = told["measures"], told["minus_whole"]
        lines.append(f"| {arm} | {shown(own['area'], 1)} | {numbers(away['area'])} | {shown(own['final'], 1)} |")
    for arm, told in result["ablations"]["released_push"].items():
        own = told["measures"]
        lines.append(f"| {arm} | {shown(own['area'], 1)} | | {shown(own['final'], 1)} |")
    away = result["ablations"]["released_push"]["iev_ggd, released push"]["minus_base"]["area"]
    return [
        *lines,
        "",
        f"With the release's push, U(1.7, 2.3), the whole method minus squared errors is {numbers(away)}; everywhere "
        "else the push is the intended U(0.7, 1.3). A regulariser of 0 is `ggd` above, BIV `iv_ggd`.",
    ]
