"""Which arms a comparison has: methods by name, or `all`, which is every method that the world can feed."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ascent.core.method import Method
from ascent.core.registry import Card, card, cards
from ascent.systems.assembly import refuse_small, refuse_unfed
from ascent.systems.config import BadConfig, Config, ControlConfig, LanguageConfig
from ascent.systems.environments import copies
from ascent.systems.run import WHOLE

ALL = "all"

REFUSING = frozenset({"bapo", "capo", "kdrl", "p3o", "stabilizing_rl", "supervised"}) | frozenset(
    {"bayesian_network_marl", "ggtd", "off_policy", "props", "submodular_rl", "vagram", "yann_rl"}
)
"""Assemblies of whole systems that refuse more than what their world does not give; each has a `refuse`."""
TEAMS = "bayesian_network_marl"
"""The assembly whose environments are not Gymnasium's."""


@dataclass(frozen=True)
class Chosen:
    """What is compared.

    Attributes:
        arms: methods, `slug` or `slug:name=value,...`; the first one is the reference of the differences.
        left_out: why a method is not among `all`, by slug.
    """

    arms: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)


def arm_config(base: Config, arm: str) -> Config:
    """The configuration of an arm written `slug` or `slug:name=value,name=value`."""
    slug, _, text = arm.partition(":")
    own = tuple(entry for entry in text.split(",") if entry)
    return dataclasses.replace(base, method=slug, set=(*base.set, *own))


def placeholder(words: Sequence[str], reference: str | None = None) -> str:
    """A method that a base configuration can be made with before its arms are known.

    Raises:
        UnknownMethod: the first of the named ones is unknown.
    """
    named = [word.partition(":")[0] for word in words if word != ALL]
    return card(named[0] if named else (reference or "reinforce").partition(":")[0]).slug


def choose(words: Sequence[str], base: Config, without: Sequence[str] = (), reference: str | None = None) -> Chosen:
    """The arms that a person asked for, all of them able to run.

    Args:
        words: methods by name, or the one word `all`.
        base: everything else of the configuration.
        without: methods that `all` leaves out.
        reference: the arm that differences are to; with `all` it is grpo (ppo in control) where that takes part, else
            the first arm.

    Raises:
        BadConfig, UnknownMethod: an arm is unknown, twice there or not to be built, or nothing is left.
    """
    given = ", ".join(words) or "none"
    if ALL not in words:
        if without:
            raise BadConfig(f"without goes with the arms `all`; got without={', '.join(without)} and arms {given}.")
        if len(set(words)) < len(words) or not words:
            raise BadConfig(f"arms must be one or more different methods, or `all`; got {given}.")
        for arm in words:
            config = arm_config(base, arm)
            refuse(config, config.composed())
        return Chosen(_first(words, reference))
    if list(words) != [ALL]:
        raise BadConfig(f"arms must be `all` or methods by name, not both; got {given}.")
    if isinstance(base, LanguageConfig) and base.scored is not None:
        raise BadConfig("`all` compares methods on samples of their own; with --scored name the methods.")
    for slug in without:
        card(slug)
    taken, left_out = [], {}
    for item in cards():
        reason = "left out by --without" if item.slug in without else _unfit(item, base)
        if reason is None:
            taken.append(item.slug)
        else:
            left_out[item.slug] = reason
    if not taken:
        raise BadConfig(
            f"`all` leaves no method for {base.world!r}: "
            + "; ".join(f"{slug} ({reason})" for slug, reason in left_out.items())
        )
    usual = "ppo" if isinstance(base, ControlConfig) else "grpo"
    if reference is None and usual in taken:
        reference = usual
    return Chosen(_first(taken, reference), left_out)


def _first(arms: Sequence[str], reference: str | None) -> tuple[str, ...]:
    """The arms with the reference before the others."""
    if reference is not None and reference not in arms:
        raise BadConfig(f"reference must be one of the arms {', '.join(arms)}; got {reference!r}.")
    return tuple(sorted(arms, key=lambda arm: arm != reference)) if reference else tuple(arms)


def _unfit(item: Card, base: Config) -> str | None:
    """Why a method cannot run in the configured world, or None."""
    control = isinstance(base, ControlConfig)
    if control and item.family not in ("control", "both"):
        return f"a method of {item.family} runs"
    if not control and item.family == "control":
        return "a method of control"
    try:
        config = dataclasses.replace(base, method=item.slug)
        refuse(config, config.composed())
    except (ValueError, ImportError) as error:
        return str(error).partition(". ")[0].rstrip(".")
    return None


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where a run of this configuration would be refused, before anything heavy loads."""
    module = WHOLE.get(config.method)
    if module in REFUSING:
        importlib.import_module(f"ascent.systems.{module}").refuse(config, method)
    else:
        refuse_unfed(config, method)
    if isinstance(config, ControlConfig) and module != TEAMS:
        copies(config, 1).close()
    if isinstance(config, LanguageConfig):
        groups = config.batch if module == "supervised" else config.batch // config.group_size
        refuse_small(method.plan, config.batch, groups, config.batch)
