"""What an assembly hands to a run, and the check that its world can feed its method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ascent.core.method import DEFAULTED, Method
from ascent.core.plan import AppendTree, Plan
from ascent.core.registry import cards
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.systems.stepwise import speaks_of_steps
from ascent.training import batches
from ascent.training.loop import System


@dataclass
class Assembly:
    """A system ready to run.

    Attributes:
        system: models, memories, program, evaluation.
        method: of the main model.
        unit: what its speed counts, "tokens" or "steps".
        score: the held-out score that says whether it learnt.
        save: writes the trained policy into a folder.
    """

    system: System
    method: Method
    unit: str
    score: str
    save: Callable[[Path], None]


SHARED = ["action", "behaviour_log_prob", "old_log_prob", "reward", "terminated", "truncated", "value", "next_value"]
SHARED += ["index", "log_prob", "entropy", "features"]
FED = {
    "language": frozenset({*SHARED, "reference_log_prob", "group", "key", "policy_version", "budget"}),
    "control": frozenset({*SHARED, "trajectory", "elapsed", "outputs", "probe:value_spread"}),
    "off_policy": frozenset(
        {*("action", "reward", "terminated", "truncated", "trajectory", "index", "action_noise", "outcome", "value")}
        | {*("next_value", "next_log_prob", "temperature", "own_log_prob")}
        | {*("probe:own_log_prob", "probe:temperature", "probe:value_spread")}
    ),
}
"""Columns that the samplers, policies and scorers of a family give; off-policy ones are annotated at each draw."""


def replayed(method: Method) -> bool:
    """Whether a control method's critic is a method of its own, so that its assembly is `off_policy`."""
    return "critic" in method.companions


ALSO = {
    "kdrl": frozenset({"teacher_log_prob", "teacher_distribution", "outputs"}),
    "capo": frozenset({"outputs"}),
    "stabilizing_rl": frozenset({"routes", "prompt_routes", "probe:routes_changed"}),
    "bayesian_network_marl": frozenset({"segment", "agent", "left", "graph_noise", "progress", "probe:open_ratio"}),
}
"""What the assembly of one method gives besides."""


def refuse_unfed(config: Config, method: Method) -> None:
    """Raise BadConfig, naming the missing needs, where the configured world cannot feed the method."""
    family = "control" if isinstance(config, ControlConfig) else "language"
    off_policy = family == "control" and replayed(method)
    given = FED["off_policy" if off_policy else family] | DEFAULTED | {"mask"}
    fed = given | ALSO.get(config.method, frozenset())
    if method.slug in {card.slug for card in cards() if card.family == "supervised"}:
        raise BadConfig(f"method {method.slug!r} learns from demonstrations, not from its own samples; choose another.")
    if family == "language" and isinstance(method.step, AppendTree):
        raise BadConfig(
            f"method {method.slug!r} grows trees, which write no text; give --env, for example CartPole-v1."
        )
    missing = sorted(method.needs - fed)
    if missing:
        fitting = [card.slug for card in cards() if card.family != "supervised" and _runs(card.build(), family, given)]
        what = "environment" if family == "control" else "task"
        raise BadConfig(
            f"method {method.slug!r} needs {', '.join(missing)}, which {what} {config.world!r} does not give. "
            f"Methods that run here: {', '.join(fitting)}."
        )


def _runs(method: Method, family: str, given: frozenset[str]) -> bool:
    return method.needs <= given or (family == "control" and speaks_of_steps(method))


def refuse_small(plan: Plan, rows: int, groups: int, decisions: int) -> None:
    """Raise BadConfig where a whole collection cannot fill every update of a pass."""
    try:
        batches.refuse_small(plan, rows, groups, decisions)
    except ValueError as error:
        raise BadConfig(str(error)) from error
