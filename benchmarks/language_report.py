"""Tables, picture and JSON of the language benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from language_phases import PHASES
from language_work import Work
from report import Ratio, folder, machine, write

TARGETS = {"1M fixed": 2.0, "1M ragged": 3.0, "32k vocabulary": 3.0, "6M fixed": 1.5}
MEMORY_TARGETS = {"32k vocabulary": 2.0}
COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#bbbbbb")


def quartiles(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(numbers) < 2:
        return numbers[0], numbers[0], numbers[0]
    low, middle, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return low, middle, high


def summary(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Medians and quartiles of one arm on one workload."""
    steps = arm["steps"]
    return {
        "arm": arm["arm"],
        "variant": arm["variant"],
        "wall": quartiles([step["wall"] for step in steps]),
        "cpu": quartiles([step["cpu"] for step in steps]),
        "phases": {name: quartiles([step["phases"][name] for step in steps]) for name in PHASES},
        "tokens": statistics.fmean(step["tokens"] for step in steps),
        "tokens/s": statistics.median(step["tokens"] / step["wall"] for step in steps),
        "peak": max(step["peak"] for step in steps),
        "loaded": arm["loaded"],
        "first": arm["first"],
        "steps": len(steps),
    }


def ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any], key: str = "wall") -> float:
    """Median over the steps of theirs / ours; both took the step beside each other."""
    return statistics.median(b[key] / a[key] for a, b in zip(ours["steps"], theirs["steps"], strict=True))


def spread(numbers: Sequence[float]) -> str:
    """`median (lower to upper quartile)` in milliseconds."""
    low, middle, high = (1000 * number for number in numbers)
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def steps_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a workload and arm."""
    rows = []
    for one in found:
        work, floor = Work(**one["work"]), sum(one["floor"].values())
        both = len(one["arms"]) == 2
        for arm in one["arms"]:
            told = summary(arm)
            quoted = both and arm["arm"] == "ascent"
            rows.append(
                {
                    "workload": f"{work.name}: {work.told}",
                    "arm": arm["arm"],
                    "step, ms": spread(told["wall"]),
                    "trl / Ascent": f"{ratio(*one['arms']):.2f}" if quoted else "",
                    "of processor time": f"{ratio(*one['arms'], 'cpu'):.2f}" if quoted else "",
                    "floor, ms": f"{1000 * floor:.0f}",
                    "step / floor": f"{told['wall'][1] / floor:.2f}",
                    "response tokens/s": str(round(told["tokens/s"])),
                    "peak memory, MB": str(round(told["peak"])),
                    "of it after imports": str(round(told["peak"] - told["loaded"])),
                    "first step, s": f"{told['first']:.1f}",
                    "steps": str(told["steps"]),
                }
            )
    return rows


def phases_rows(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Medians and quartiles by phase, and the floor of the two that hold the matrix products."""
    rows = []
    for one in found:
        for arm in one["arms"]:
            phases = summary(arm)["phases"]
            told = {f"{name}, ms": spread(phases[name]) for name in PHASES}
            rows.append({"workload": one["work"]["name"], "arm": arm["arm"], **told})
        told = dict.fromkeys([f"{name}, ms" for name in PHASES], "")
        told["sample, ms"] = f"{1000 * one['floor']['sample']:.0f}"
        told["evaluate, ms"] = f"{1000 * one['floor']['train']:.0f} with backward"
        rows.append({"workload": one["work"]["name"], "arm": "floor", **told})
    return rows


def ratios(found: Sequence[Mapping[str, Any]]) -> list[Ratio]:
    """The comparisons, with the targets that were set for them."""
    told = []
    for one in found:
        if len(one["arms"]) < 2:
            continue
        work = Work(**one["work"])
        ours, theirs = (summary(arm) for arm in one["arms"])
        times = (f"{1000 * side['wall'][1]:.0f} ms" for side in (ours, theirs))
        target = TARGETS.get(work.name)
        told.append(Ratio(f"{work.name}: a step", "trl", *times, ratio(*one["arms"]), target, target is not None))
        if work.name in MEMORY_TARGETS:
            peaks = (f"{side['peak']:.0f} MB" for side in (ours, theirs))
            larger = theirs["peak"] / ours["peak"]
            told.append(Ratio(f"{work.name}: peak memory", "trl", *peaks, larger, MEMORY_TARGETS[work.name]))
    return told


def gate_told(checked: Sequence[Mapping[str, Any]]) -> str:
    """The gate in a sentence."""
    if not checked:
        return "One arm alone: no gate."
    worst = {name: max(row[name] for row in checked) for name in ("loss", "gradient", "advantage")}
    sizes = sorted({(row["hidden"], row["vocabulary"]) for row in checked})
    return (
        "Gate, on recorded batches of ragged lengths, on-policy and off-policy with clipping, for each of "
        f"{', '.join(f'width {hidden} with vocabulary {vocabulary}' for hidden, vocabulary in sizes)}: largest "
        f"difference of the loss {worst['loss']:.1e}, of any gradient entry {worst['gradient']:.1e} (largest entry "
        f"{max(row['largest gradient'] for row in checked):.2g}), of an advantage {worst['advantage']:.1e}."
    )


def told(found: Sequence[Mapping[str, Any]], checked: Sequence[Mapping[str, Any]], variant: str, mark: str) -> None:
    """Print the tables; where a folder is named, keep them there with the picture."""
    ran_on = {**machine("torch", "transformers", "trl"), "threads": found[0]["work"]["threads"]}
    notes = (
        f"{mark}A GRPO step, float32, the arms in turns; trl's variant: {variant}. Medians, quartiles in brackets; "
        "`trl / Ascent` is the median over pairs of neighbouring steps. The floor is what the matrix products of a "
        "step take alone. Peak memory is resident memory of the arm's process, imports included; the first step "
        f"counts from the end of the imports and includes building the model.\n\n{gate_told(checked)}"
    )
    title = "A GRPO step beside trl's GRPOTrainer"
    write("language", title, steps_rows(found), ran_on, notes, ratios(found))
    write("language_phases", f"{title}, by phase", phases_rows(found), ran_on)
    place = folder()
    if place is not None and all(len(one["arms"]) == 2 for one in found):
        draw(found, place / "language.png")


def swept(found: Sequence[Mapping[str, Any]], mark: str) -> None:
    """The table of trl's variants: time of a step over the default's, measured in turns with it."""
    rows = []
    for one in found:
        default = next(arm for arm in one["arms"] if arm["variant"] == "default")
        for arm in one["arms"]:
            told = summary(arm)
            rows.append(
                {
                    "workload": one["work"]["name"],
                    "variant": arm["variant"],
                    "step, ms": spread(told["wall"]),
                    "step / default's": f"{1 / ratio(arm, default):.2f}",
                    "sample, ms": spread(told["phases"]["sample"]),
                    "peak memory, MB": str(round(told["peak"])),
                    "first step, s": f"{told['first']:.1f}",
                    "steps": str(told["steps"]),
                }
            )
        for variant in one["failed"]:
            rows.append({**dict.fromkeys(rows[-1], ""), "workload": one["work"]["name"], "variant": variant})
            rows[-1]["step, ms"] = "does not run here"
    ran_on = {**machine("torch", "transformers", "trl"), "threads": found[0]["work"]["threads"]}
    write("language_sweep", "trl's own variants", rows, ran_on, f"{mark}All of them in turns, in one run.")


def draw(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Bars by phase, both arms of every workload, as shares of trl's step; the ratio stands beside Ascent's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9.5, 0.95 * len(found) + 1.4))
    places, names = [], []
    for place, one in enumerate(found):
        ours, theirs = (summary(arm) for arm in one["arms"])
        whole = theirs["wall"][1]
        for told, offset, arm in ((theirs, -0.19, "trl"), (ours, 0.19, "Ascent")):
            left = 0.0
            # Medians of phases need not add up to the median of the step: the rest closes the bar.
            spans = [told["phases"][name][1] for name in PHASES[:-1]]
            spans.append(max(told["wall"][1] - sum(spans), 0.0))
            for span, colour in zip(spans, COLOURS, strict=True):
                axes.barh(place + offset, span / whole, 0.34, left, color=colour, edgecolor="white", linewidth=0.4)
                left += span / whole
            label = f"{arm}  {1000 * told['wall'][1]:.0f} ms"
            label += f"   {ratio(*one['arms']):.2f} times as fast" if arm == "Ascent" else ""
            axes.text(left + 0.01, place + offset, label, va="center", fontsize=8)
        floor = sum(one["floor"].values()) / whole
        axes.plot([floor, floor], [place - 0.4, place + 0.4], color="black", linewidth=1.4)
        places.append(place)
        names.append(f"{one['work']['name']}\n{Work(**one['work']).rows} x {one['work']['new_tokens']} tokens")
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.36)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.set_xlabel("time of a step, as a share of trl's; black line: the matrix products alone")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS]
    axes.legend(handles, PHASES, ncols=6, loc="lower center", bbox_to_anchor=(0.45, 1.0), frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
