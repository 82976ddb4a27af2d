"""The verdict in words, from the numbers."""

from __future__ import annotations

from typing import Any

from ascent.evaluation.verdict import judged, shown


def claims(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The paper's claims that can be tested small."""
    arms, gaps = result["arms"], result["differences"]
    plain = gaps["CAPO, Adam model - GRPO"]
    control = gaps["CAPO, Adam model - random rejection"]
    tuned = gaps["CAPO, Adam model - conservative GRPO"]["area"]
    sgd = gaps["CAPO, SGD model - GRPO"]["final"]
    share = arms["CAPO, Adam model"]["rejected_so_far"]
    rank = arms["GRPO"]["spearman"]
    return [
        (
            "CAPO ends higher than GRPO at the aggressive rate",
            judged(plain["final"]["low"] > 0, plain["final"]["high"] < 0),
        ),
        (
            "CAPO collapses in fewer seeds than GRPO",
            judged(plain["collapsed"]["high"] < 0, plain["collapsed"]["low"] > 0),
        ),
        (
            "CAPO ends higher than with as many tokens rejected at random",
            judged(control["final"]["low"] > 0, control["final"]["high"] < 0),
        ),
        ("the SGD model helps as well", judged(sgd["low"] > 0, sgd["high"] < 0)),
        ("it rejects less than a tenth of the tokens", judged(share["high"] < 0.1, share["low"] > 0.1)),
        ("CAPO learns faster than the best conservative GRPO (area)", judged(tuned["low"] > 0, tuned["high"] < 0)),
        ("m_F of a batch ranks with the realised KL of its step (GRPO)", judged(rank["low"] > 0, rank["high"] < 0)),
    ]


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    settings, rates = result["settings"], result["rates"]
    lines = ["# Verdict: CAPO", ""]
    lines += [f"- **{word}**: {claim}" for claim, word in claims(result)]
    found = "most seeds of plain GRPO collapse" if rates["collapse found"] else "the greatest tried; no rate collapsed"
    lines += [
        "",
        f"{settings['seeds']} seeds an arm, {settings['steps']} steps of "
        f"{settings['prompts'] * settings['group_size']} responses, one update a step, "
        f"{settings['warm_up']} updates of warm-up; 95% intervals, differences "
        f"paired by seed. Aggressive rate {rates['aggressive']:g} ({found}), conservative rate "
        f"{rates['conservative']:g}, both from a sweep on {settings['sweep_seeds']} other seeds. A seed has "
        f"collapsed where its last {settings['window']} steps average less than half of its best or of its "
        "first. Thresholds (95% quantiles of a conservative run, at the aggressive rate): "
        + "; ".join(
            f"{model}: m_H {values['objective_threshold']:.3g}, m_F {values['policy_threshold']:.3g}"
            for model, values in result["thresholds"].items()
        )
        + ".",
        "",
        "| arm | final reward | peak | mean reward | collapsed seeds | tokens rejected | rank correlation m_F, KL |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, arm in result["arms"].items():
        lines.append(
            f"| {name} | {shown(arm['final'])} | {arm['peak']['mean']:.3f} | {shown(arm['area'])} | "
            f"{sum(arm['collapsed']['seeds']):.0f} of {settings['seeds']} | {arm['rejected_so_far']['mean']:.3f} | "
            f"{shown(arm['spearman'], 2)} |"
        )
    lines += ["", "| difference | final reward | mean reward | share of collapsed seeds |", "|---|---|---|---|"]
    for name, scores in result["differences"].items():
        lines.append(f"| {name} | {' | '.join(shown(scores[key]) for key in ('final', 'area', 'collapsed'))} |")
    lines += ["", "Sweep of plain GRPO:", "", "| rate | collapsed | mean reward |", "|---|---|---|"]
    for rate, own in result["sweep"].items():
        area = sum(own["area"]) / len(own["area"])
        lines.append(f"| {rate} | {sum(own['collapsed'])} of {settings['sweep_seeds']} | {area:.3f} |")
    lines += [
        "",
        "What speaks for a limit of the scale rather than of the idea: the reward falls evenly from the first steps on "
        "in every seed, so no few tokens are to blame; only the head is modelled (here it is tied to the embeddings), "
        "and m_F ranks steps but is far below their realised KL. A sweep of the thresholds was not run; the quantile "
        "was fixed beforehand. m_F of the SGD model and of the Adam model are on scales of their own.",
    ]
    return "\n".join(lines) + "\n"
