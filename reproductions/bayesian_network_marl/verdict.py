"""What the numbers allow to be said."""

from __future__ import annotations

from typing import Any

from ascent.evaluation.verdict import judged, shown

MARGIN, CLOSED = 0.02, 0.05


def signed(difference: list[float]) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference)


def above(difference: list[float]) -> str:
    return judged(difference[1] > 0, difference[2] < 0)


def level(difference: list[float], also: bool = True) -> str:
    """Not below by more than the margin."""
    return judged(difference[1] > -MARGIN and also, difference[2] < -MARGIN)


def verdict(result: dict[str, Any]) -> str:
    """verdict.md."""
    tables, sampled = result["tables"], result["sampled"]
    rates = ", ".join(f"{sum(found) / len(found):.3f} at {rate}" for rate, found in result["pilot"].items())
    lines = [
        "# bayesian_network_marl: what was measured",
        "",
        "## Exact gradients",
        "",
        "J / J* from N(0, 1) tables with 95% intervals over seeds; the gap is Nash gap / J*. `coins` has the complete "
        "graph's parameters, but each agent picks its row by a private coin.",
        "",
        "| game | graph | seeds | at 2000 steps | at the end | over 0.95 | gap | end minus empty |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, room in tables.items():
        for arm, row in room["arms"].items():
            game = "one-shot" if name == "matrix" else f"{name} agents"
            difference = "" if arm == "empty" else signed(row["minus_empty_end"])
            lines.append(
                f"| {game}, {room['at'][-1]} steps | {arm} | {len(row['end']['seeds'])} | {shown(row['at_2000'])} | "
                f"{shown(row['end'])} | {row['over_95']:.2f} | {shown(row['gap'], 4)} | {difference} |"
            )
    lines += [
        "",
        "## From samples, 3 agents",
        "",
        f"{result['steps']} collections of 800 steps, {result['seeds']} seeds; heads are drawn so that logits are "
        "about N(0, 1) in each state, the same weights for all graphs of a seed. Learning rate "
        f"{result['rate']:g} for all, where MAPPO earned most on seeds of its own: {rates}. Returns of 128 fresh "
        "episodes over the optimum, actions and graphs drawn, or the likeliest ones. Intervals of open ratios are "
        "plain percentiles of the bootstrap. The ratio is the mean over the five updates on the first collection.",
        "",
        "| arm | before | drawn | likeliest | open ratio, drawn | open, likeliest | ratio | drawn minus empty |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, row in sampled.items():
        difference = "" if arm.startswith("empty") else signed(row["drawn_minus_empty"])
        lines.append(
            f"| {arm} | {shown(row['first'])} | {shown(row['drawn'])} | {shown(row['likely'])} | "
            f"{shown(row['open_drawn'])} | {row['open_likely']:.3f} | {row['first_ratio']:.4f} | {difference} |"
        )
    lines += ["", "## Verdict by claim", ""]
    for name in ("2", "3", "5"):
        arms = tables[name]["arms"]
        lines.append(
            f"- Exact, {name} agents: the complete graph ends above the empty one: "
            f"**{above(arms['complete']['minus_empty_end'])}**; at 2000 steps: "
            f"**{above(arms['complete']['minus_empty_at_2000'])}**."
        )
        if "coins" in arms:
            lines.append(
                f"- Exact, {name} agents: the control with as many parameters and no correlation is above the empty "
                f"graph: {signed(arms['coins']['minus_empty_end'])}."
            )
    worst = max(row["gap"]["mean"] for room in tables.values() for row in room["arms"].values())
    lines.append(
        f"- All graphs approach a Nash equilibrium (mean gap / J* below 0.01 everywhere; the largest is {worst:.4f}): "
        f"**{judged(worst < 0.01, worst > 0.1)}**."
    )
    for arm, other in (("complete", "empty"), ("learned", "empty"), ("learned", "random")):
        difference = sampled[arm][f"drawn_minus_{other}"]
        lines.append(
            f"- From samples, `{arm}` earns more than `{other}`: **{above(difference)}** ({signed(difference)})."
        )
    lines.append(
        f"- From samples, `learned` is not below `complete` by more than {MARGIN} and has fewer edges: "
        f"**{level(sampled['learned']['drawn_minus_complete'], sampled['learned']['open_drawn']['high'] < 1)}** "
        f"({signed(sampled['learned']['drawn_minus_complete'])}, open ratio {shown(sampled['learned']['open_drawn'])})."
    )
    annealed = sampled["learned, annealed"]
    edges = annealed["open_drawn"]
    lines += [
        f"- Annealing ends without edges (open ratio below {CLOSED}): "
        f"**{judged(edges['high'] < CLOSED, edges['low'] > CLOSED)}** ({shown(edges)}).",
        f"- Annealed teams are not below MAPPO by more than {MARGIN}: "
        f"**{level(annealed['drawn_minus_empty'])}**; they earn more: **{above(annealed['drawn_minus_empty'])}** "
        f"({signed(annealed['drawn_minus_empty'])}).",
    ]
    return "\n".join(lines) + "\n"
