"""What a reader of a comparison must know beside its numbers: what was run, where, and what each arm is."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ascent.core.method import Method
from ascent.core.registry import card
from ascent.systems.arms import Chosen, arm_config
from ascent.systems.assembly import replayed
from ascent.systems.config import Config, ControlConfig, LanguageConfig
from ascent.systems.manifest import version
from ascent.systems.run import WHOLE

PACKAGES = ("torch", "transformers", "gymnasium", "numpy")
OWN = ("method", "seed", "output", "threads", "quiet", "tensorboard", "save_every", "keep")
"""Fields that a comparison sets for every run, or that change no result."""


def unit(config: Config) -> str:
    """What the budget of a comparison counts."""
    if isinstance(config, ControlConfig):
        return "environment steps"
    return "answers" if config.scored is None else "prompts"


def per(config: Config) -> float:
    """Units of the budget in one unit of a run's `consumed`: a drawn prompt is answered by a whole group, a written
    solution counts as one answer."""
    if unit(config) != "answers" or WHOLE.get(config.method) == "supervised":
        return 1.0
    assert isinstance(config, LanguageConfig)
    return float(config.group_size)


def kind(method: Method) -> str:
    """A method's place in the pictures, by what it learns from."""
    if card(method.slug).family == "supervised" or any(need.startswith("teacher") for need in method.needs):
        return "written solutions or a teacher"
    if replayed(method):
        return "a replay memory"
    if method.advantage is None:
        return "rewards against a reference"
    if method.accept is not None:
        return "ratio, even groups refused"
    return "ratio to the old policy" if "old_log_prob" in method.needs else "advantage times log-prob"


def command(
    words: Sequence[str], base: Config, seeds: int, without: Sequence[str] = (), reference: str | None = None
) -> str:
    """The words that make the same runs again, wherever their results go."""
    found = ["ascent", "compare", *words]
    world = "env" if isinstance(base, ControlConfig) else "task" if base.data is None else "data"
    for item in dataclasses.fields(base):
        value = getattr(base, item.name)
        if item.name in OWN or (item.name != world and value == item.default) or (item.name == "task" != world):
            continue
        flag = "--" + item.name.replace("_", "-")
        if isinstance(item.default, bool):
            found.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            found += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    found += ["--seeds", str(seeds)]
    found += [] if base.seed == 0 else ["--seed", str(base.seed)]
    found += ["--without", *without] if without else []
    found += ["--reference", reference] if reference is not None else []
    return " ".join(found)


def about(base: Config, chosen: Chosen, runs: Sequence[Path], told: Mapping[str, Any]) -> dict[str, Any]:
    """A document of JSON values.

    Args:
        base: of every run.
        chosen: the arms.
        runs: the run folders.
        told: further entries.
    """
    methods = {arm: arm_config(base, arm).composed() for arm in chosen.arms}
    finished = max((folder / "result.json").stat().st_mtime for folder in runs)
    return {
        "date": datetime.fromtimestamp(finished, UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "world": base.world,
        "unit": unit(base),
        "steps": base.steps,
        "reference": chosen.arms[0],
        "left_out": dict(chosen.left_out),
        "kinds": {arm: kind(method) for arm, method in methods.items()},
        "notes": notes(methods),
        "learning_rates": {arm: rate(method) for arm, method in methods.items()},
        "updates": {arm: method.plan.passes * method.plan.minibatches for arm, method in methods.items()},
        **told,
    }


def rate(method: Method) -> str:
    """The learning rate of a method's optimiser, or its schedule, as people write it."""
    value = method.step.learning_rate
    return f"{value:g}" if isinstance(value, float) else repr(value)


def notes(methods: Mapping[str, Method]) -> list[str]:
    """What is not equal between these arms, by their names."""
    taught = [arm for arm, method in methods.items() if any(need.startswith("teacher") for need in method.needs)]
    shown = [arm for arm, method in methods.items() if card(method.slug).family == "supervised"]
    refusing = [arm for arm, method in methods.items() if method.accept is not None]
    found = []
    if refusing:
        found.append(
            f"{listed(refusing)}: groups whose answers all have the same reward are refused and other prompts drawn "
            "for them. Every drawn answer counts, so these arms take fewer steps within the budget."
        )
    if taught:
        found.append(
            f"{listed(taught)}: a frozen teacher scores every token. What it learnt from before the run is in no "
            "column, and its forward passes are in the processor time only."
        )
    if shown:
        found.append(
            f"{listed(shown)}: no answers are drawn; each reads one correct written solution where the others draw "
            "one answer. It sees what the others must find, and has no reward in training."
        )
    return found


def listed(names: Sequence[str]) -> str:
    """Names as code, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
