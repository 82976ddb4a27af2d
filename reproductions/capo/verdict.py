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
    tuned_both = gaps["CAPO, best rate - conservative GRPO"]["area"]
    usual = {name: gaps[f"{name} - GRPO"]["final"] for name in arms if name.startswith(("PPO", "KL"))}
    holds = [name for name, gap in usual.items() if gap["low"] > 0]
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
        (
            "CAPO at the aggressive rate learns faster than the best conservative GRPO (area)",
            judged(tuned["low"] > 0, tuned["high"] < 0),
        ),
        (
            "CAPO at its best rate learns faster than GRPO at its best (area; as many rates tried for both)",
            judged(tuned_both["low"] > 0, tuned_both["high"] < 0),
        ),
        (
            "neither a small PPO clip nor a KL penalty ends higher than GRPO at the aggressive rate "
            f"({', '.join(holds) if holds else 'none of the six'} does for sure)",
            judged(all(gap["high"] < 0 for gap in usual.values()), bool(holds)),
        ),
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
        f"paired by seed; {settings['few']} seeds where the table says so. Aggressive rate "
        f"{rates['aggressive']:g} ({found}), conservative rate "
        f"{rates['conservative']:g}, best rate of CAPO {rates['CAPO']:g}, from sweeps on "
        f"{settings['sweep_seeds']} other seeds. A seed has "
        f"collapsed where its last {settings['window']} steps average less than half of its best or of its "
        "first. Thresholds (95% quantiles of tokens or responses in 5 updates of a conservative run, the greatest of "
        "the 5 for updates; at the aggressive rate): "
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
        fallen = arm["collapsed"]["seeds"]
        lines.append(
            f"| {name} | {shown(arm['final'])} | {arm['peak']['mean']:.3f} | {shown(arm['area'])} | "
            f"{sum(fallen):.0f} of {len(fallen)} | {arm['rejected_so_far']['mean']:.3f} | "
            f"{'' if name.startswith(('PPO', 'KL')) else shown(arm['spearman'], 2)} |"
        )
    lines += ["", "| difference | final reward | mean reward | share of collapsed seeds |", "|---|---|---|---|"]
    for name, scores in result["differences"].items():
        lines.append(f"| {name} | {' | '.join(shown(scores[key]) for key in ('final', 'area', 'collapsed'))} |")
    lines += ["", "Rates, on seeds of their own:", "", "| rate | GRPO: collapsed | mean reward | CAPO: collapsed |"]
    lines[-1] += " mean reward |"
    lines.append("|---|---|---|---|---|")
    for rate in result["sweep"]["GRPO"]:
        cells = []
        for name in ("GRPO", "CAPO"):
            own = result["sweep"][name][rate]
            area = sum(own["area"]) / len(own["area"])
            cells += [f"{sum(own['collapsed'])} of {settings['sweep_seeds']}", f"{area:.3f}"]
        lines.append(f"| {rate} | {' | '.join(cells)} |")
    lines += ["", f"Both thresholds scaled (Adam model, the same {settings['few']} seeds):", ""]
    lines += ["| scale | tokens rejected | final reward | mean reward |", "|---|---|---|---|"]
    for scale, own in result["scales"].items():
        lines.append(f"| {scale} | {own['rejected_so_far']:.3f} | {own['final']:.3f} | {own['area']:.3f} |")
    idle = result["arms"]["CAPO, updates"]["rejected_so_far"]["mean"] == 0
    tokens, update = result["calibration"]["tokens"], result["calibration"]["update"]
    lines += [
        "",
        "Predicted against realised KL of a step (GRPO at the aggressive rate, "
        f"{tokens['steps']} steps of all seeds): the mean m_F of the tokens' own steps is off by a factor of "
        f"{tokens['ratio']:.3g} (median of realised over predicted), with slope {tokens['slope']:.2f} of the "
        f"logarithms and rank correlation {tokens['rank']:.2f}; m_F of the update's step by "
        f"{update['ratio']:.3g}, with slope "
        f"{update['slope']:.2f} and rank correlation {update['rank']:.2f}. A calibrated model would have factor 1 and "
        "slope 1.",
        "",
        *(["No update crossed its threshold: the arm that judges whole updates is GRPO here.", ""] if idle else []),
        f"The penalty's coefficient {result['penalty']['chosen']:g} is the best of "
        f"{', '.join(result['penalty']['tried'])} on another seed. PPO clips take two passes over a collection, so "
        "twice the updates of the other arms on as many responses. m_F of the SGD model and of the Adam model are on "
        "scales of their own. Only the head is modelled (here it is tied to the embeddings).",
    ]
    return "\n".join(lines) + "\n"
