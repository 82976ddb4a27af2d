"""A language method's loss where single steps are rewarded: the credit, critic and plan of PPO around its own terms.

A group of answers to one prompt has no counterpart in an environment, but a clip, a selection of decisions or a bonus
does. So a method whose terms are means over decisions keeps them and is given GAE, a critic and minibatches of steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ascent.core.method import Method
from ascent.core.registry import card
from ascent.core.registry import method as build_method
from ascent.methods.ppo import ppo

ANSWERS = frozenset({"group", "budget"})
"""Columns that only sampled answers have."""
STEPS = frozenset({"action", "advantage", "behaviour_log_prob", "old_log_prob", "log_prob", "entropy", "progress"})
"""What a step in an environment gives a loss."""
PLANNED = ("passes", "minibatches")


def speaks_of_steps(method: Method) -> bool:
    """Whether a language method scores answers, but every term of its loss is a mean over what steps have as well."""
    read = frozenset().union(*(part.needs for path, part in method.parts.items() if path.startswith("losses")))
    alone = method.keep_together == "row" and method.advantage is not None and bool(ANSWERS & method.needs)
    means = all(term.reduction == "token-mean" and term.unit == "decision" for term in method.losses.values())
    return alone and means and read <= STEPS and card(method.slug).family == "language"


def stepwise(method: Method, given: Mapping[str, Any]) -> Method:
    """`method`'s losses with PPO's credit, critic, plan and optimiser.

    Args:
        method: one that `speaks_of_steps`.
        given: parameters that the user set; passes, minibatches and learning_rate among them stay the method's.

    Raises:
        ValueError: a given parameter speaks of what was exchanged, so that it would do nothing.
    """
    found = _exchanged(method, given)
    for name in sorted(given.keys() - {*PLANNED, "learning_rate"}):
        rest = {key: value for key, value in given.items() if key != name}
        usual = build_method(method.slug, **rest)
        if method.parameters[name] != usual.parameters[name] and found == _exchanged(usual, rest):
            raise ValueError(
                f"{name}={given[name]!r} says how {method.slug!r} scores or samples answers, and in an environment the "
                "credit is ppo's: it would do nothing. Drop it, or give --task."
            )
    return found


def _exchanged(method: Method, given: Mapping[str, Any]) -> Method:
    around = ppo()
    plan = {name: getattr(method.plan, name) for name in PLANNED if name in given}
    rate = {"learning_rate": method.parameters["learning_rate"]} if "learning_rate" in given else {}
    return method.replace(
        advantage=around.advantage,
        value_target=around.value_target,
        normalise=around.normalise,
        accept=None,
        reject=None,
        losses={**method.losses, "value": around.losses["value"]},
        plan=dataclasses.replace(around.plan, **plan),
        step=dataclasses.replace(around.step, **rate),
    )
