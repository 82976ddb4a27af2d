"""A method as verl runs it: what verl does itself, what is left to the plug-in, and what it cannot feed.

verl calls two functions of ours. The estimator sees the whole collection: token rewards, the mask, the uid of each
prompt. The policy loss sees one micro-batch: the log-probs of now and then, advantages and the mask. Three things of
a method verl does beside them, so they are taken out of it and asked of verl's configuration instead:

    a KL estimate to the reference in the loss    actor.use_kl_loss, kl_loss_coef, kl_loss_type
    an entropy bonus                              actor.entropy_coeff
    the log-ratio to the reference in the reward  algorithm.use_kl_in_reward, kl_ctrl

verl is not imported here, so the table of what runs where can be made without it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from ascent.core.decisions import Table
from ascent.core.divergences import Divergence, Entropy
from ascent.core.method import CREDITED, Credit, Method
from ascent.core.part import Part, walk
from ascent.core.registry import card, cards
from ascent.core.registry import method as build
from ascent.core.shaping import Penalised
from ascent.core.surrogates import ImportanceWeighted
from ascent.core.term import Term
from ascent.plugins.support import VERL, Support, obstacles

PREFIX = "ascent_"
KL_TYPES: Mapping[str, str] = {"k1": "kl", "k2": "mse", "k3": "low_var_kl", "abs": "abs"}
"""Our kinds of estimate and verl's names for them."""

ACTOR, ALGORITHM = "actor_rollout_ref.actor", "algorithm"
BUDGET = "${data.max_response_length}"
# Where a micro-batch is the whole update, `prepare` is given what it needs.
_WHOLE = dataclasses.replace(VERL, whole_update=True, prepares=frozenset({"log_prob"}))


class Refused(ValueError):
    """verl cannot feed a method, or its configuration contradicts it; the text says why and what to do."""


@dataclass(frozen=True)
class Reading:
    """A method taken apart for verl.

    Attributes:
        method: as it was composed.
        credit: what the estimator computes; a penalty in the reward is left to verl.
        actor: the terms that the policy loss computes.
        divergence: the term that is verl's KL loss.
        bonus: the term that is verl's entropy bonus.
        penalty: coefficient of the log-ratio in the reward, verl's too.
        reasons: why verl cannot feed it; empty where it can.
    """

    method: Method
    credit: Method
    actor: Method
    divergence: Term | None
    bonus: Term | None
    penalty: float
    reasons: tuple[str, ...]

    @cached_property
    def whole(self) -> bool:
        """Whether the loss depends on quantities of the whole update."""
        actor = self.actor
        hooks = any(type(part).prepare is not Part.prepare for part in actor.parts.values())
        return hooks or actor.normalise is not None or any(term.keep is not None for term in actor.losses.values())

    @cached_property
    def reduction(self) -> str:
        """How tokens add up: `actor.loss_agg_mode`, which verl's own terms follow."""
        delegated = [term for term in (self.divergence, self.bonus) if term is not None]
        return next(iter([*delegated, *self.actor.losses.values()])).reduction

    @cached_property
    def horizon(self) -> float | None:
        """The constant length that the method itself fixes."""
        terms = [*self.actor.losses.values(), self.divergence, self.bonus]
        return next((term.horizon for term in terms if term is not None and term.horizon is not None), None)

    @cached_property
    def scaled(self) -> bool:
        """Whether a constant length divides."""
        terms = [*self.actor.losses.values(), self.divergence, self.bonus]
        return any(term is not None and term.reduction == "seq-mean-token-sum-norm" for term in terms)

    def settings(self) -> dict[str, Any]:
        """What verl's configuration must say for this method, by dotted path."""
        name = PREFIX + self.method.slug
        wanted: dict[str, Any] = {
            f"{ALGORITHM}.adv_estimator": name,
            f"{ACTOR}.policy_loss.loss_mode": name,
            f"{ACTOR}.loss_agg_mode": self.reduction,
        }
        if self.scaled:
            wanted[f"{ACTOR}.loss_scale_factor"] = BUDGET if self.horizon is None else int(self.horizon)
        if self.divergence is not None:
            assert isinstance(self.divergence.value, Divergence)
            wanted |= {
                f"{ACTOR}.use_kl_loss": True,
                f"{ACTOR}.kl_loss_coef": self.divergence.coefficient,
                f"{ACTOR}.kl_loss_type": KL_TYPES[self.divergence.value.kind],
            }
        if self.bonus is not None:
            wanted[f"{ACTOR}.entropy_coeff"] = self.bonus.coefficient
        if self.penalty:
            wanted |= {
                f"{ALGORITHM}.use_kl_in_reward": True,
                f"{ALGORITHM}.kl_penalty": "kl",
                f"{ALGORITHM}.kl_ctrl.type": "fixed",
                f"{ALGORITHM}.kl_ctrl.kl_coef": self.penalty,
            }
        if self.method.accept is not None:
            wanted[f"{ALGORITHM}.filter_groups.enable"] = True
        return wanted

    @cached_property
    def budgeted(self) -> bool:
        """Whether the credit reads the response budget."""
        return "budget" in self.credit.needs

    def refuse(self) -> None:
        """Raise Refused where verl cannot feed the method."""
        if self.reasons:
            raise Refused(f"verl cannot run the method {self.method.slug!r}: {'; '.join(self.reasons)}.")


def read(method: Method) -> Reading:
    """Take a method apart for verl, with the reasons against it."""
    own: dict[str, Term] = {}
    divergence = bonus = None
    for name, term in method.losses.items():
        plain = term.keep is None and term.unit == "decision" and isinstance(term.coefficient, int | float)
        if plain and divergence is None and _reference_kl(term.value):
            divergence = term
        elif plain and bonus is None and isinstance(term.value, Entropy):
            bonus = term
        else:
            own[name] = term
    penalties = {part.coefficient for _, part in walk("", method.advantage) if _reference_penalty(part)}
    unpenalised: Credit | None = method.advantage if len(penalties) != 1 else _without(method.advantage)
    reduced = method.replace(losses=own or method.losses, advantage=unpenalised, accept=None)
    credit = reduced.replace(normalise=None)
    actor = reduced.replace(advantage=None, value_target=None, reject=None)
    found = obstacles(reduced, _WHOLE)
    if next((item.family for item in cards() if item.slug == method.slug), "language") in ("language", "both"):
        found += _further(reduced, own)
    if divergence is not None and bonus is not None and divergence.reduction != bonus.reduction:
        found.append("its divergence and its entropy bonus add up differently, and verl has one loss_agg_mode for both")
    return Reading(method, credit, actor, divergence, bonus, sum(penalties), tuple(found))


def _reference_kl(value: object) -> bool:
    """Whether a value of a term is one of the estimates that verl adds itself."""
    known = isinstance(value, Divergence) and value.kind in KL_TYPES
    return known and (value.against, value.limit) == ("reference", None)  # type: ignore[attr-defined]


def _reference_penalty(part: Part) -> bool:
    return isinstance(part, Penalised) and part.coefficient > 0 and part.against == "reference"


def _without(thing: Any) -> Any:
    """The credit `thing` with coefficient 0 for penalties that verl has already taken out of the rewards."""
    if isinstance(thing, Part) and _reference_penalty(thing):
        thing = dataclasses.replace(thing, coefficient=0.0)  # type: ignore[call-arg]
    if not dataclasses.is_dataclass(thing) or isinstance(thing, type | Table):
        return thing
    inner = {item.name: thing.__dict__[item.name] for item in dataclasses.fields(thing) if item.init}
    changed = {name: _without(value) for name, value in inner.items() if isinstance(value, Part)}
    return dataclasses.replace(thing, **changed) if changed else thing


def _further(method: Method, own: Mapping[str, Term]) -> list[str]:
    """Reasons that do not follow from columns alone."""
    found = []
    credited = [part for path, part in method.parts.items() if path.partition(".")[0] in CREDITED]
    strange = frozenset().union(*(part.needs for part in credited)) - VERL.credit
    late = sorted(strange & {"old_log_prob", "behaviour_log_prob", "value_target", "progress"})
    if late:  # `obstacles` counts them as columns that our own loss fills by itself
        found.append(f"its credit needs {', '.join(f'`{name}`' for name in late)}, which no estimator of verl is given")
    if not own:
        found.append("nothing is left for a policy loss: all its terms are verl's own")
    if method.reject is not None:
        found.append("it masks decisions after credit, and an estimator of verl cannot change the mask")
    if method.companions:
        found.append(f"it trains other models beside the policy ({', '.join(method.companions)})")
    scheduled = [name for name, term in own.items() if not isinstance(term.coefficient, int | float)]
    if scheduled or "progress" in method.needs:
        found.append("it follows a schedule, and a policy loss of verl is not told how far the run is")
    if any(term.unit != "decision" for term in own.values()):
        found.append("a term counts rows or segments, and verl's reductions count tokens")
    if any(term.keep is not None and term.count == "kept" for term in own.values()):
        found.append("a denominator counts only kept decisions, and verl's counts are of all")
    if any(isinstance(part, ImportanceWeighted) and part.numerator == "old" for part in method.parts.values()):
        found.append("it weighs old by behaviour log-probs, and a policy loss of verl is given one of both")
    return found


@lru_cache(maxsize=64)
def _reading(slug: str, parameters: str) -> Reading:
    chosen = json.loads(parameters)
    method = build(slug, **chosen)
    for name in chosen:
        rest = {other: value for other, value in chosen.items() if other != name}
        without = build(slug, **rest)
        default = next(item.default for item in card(slug).parameters if item.name == name)
        idle = chosen[name] != default and method == without.replace(plan=method.plan, step=method.step)
        if idle:
            raise Refused(
                f"parameter {name!r} of {slug!r} changes nothing inside verl as the others are set. Optimiser, passes "
                "and rollouts are verl's: actor.optim.lr, actor.ppo_epochs, actor.ppo_mini_batch_size and their like."
            )
    return read(method)


def reading(slug: str, parameters: Mapping[str, Any] | None = None) -> Reading:
    """The reading of a method by its name and parameters (plain values), remembered.

    Raises:
        Refused: verl cannot feed it, or a parameter has no effect there.
        UnknownMethod, TypeError, ValueError: as `ascent.method`.
    """
    found = _reading(slug, json.dumps(dict(parameters or {}), sort_keys=True))
    found.refuse()
    return found


def support(method: Method) -> Support:
    """Whether verl runs `method`, and what the user must give."""
    found = read(method)
    if found.reasons:
        return Support(False, "; ".join(found.reasons))
    asked = []
    if found.divergence is not None:
        asked.append("verl's KL loss")
    if found.bonus is not None:
        asked.append("verl's entropy bonus")
    if found.penalty:
        asked.append("verl's KL in the reward")
    if found.whole:
        asked.append("the update in one micro-batch, or `per_micro_batch`")
    return Support(True, f"with {', '.join(asked)}" if asked else "")


def overrides(slug: str, parameters: Mapping[str, Any] | None = None) -> list[str]:
    """The overrides of verl's command line that run a method.

    Raises:
        Refused: as `reading`.
    """
    found = reading(slug, parameters)
    inner = ",".join(f"{name}:{_literal(value)}" for name, value in (parameters or {}).items())
    lines = [f"+{ALGORITHM}.ascent={{{inner}}}"]
    if found.budgeted:
        lines.append(f"+{ALGORITHM}.ascent_budget={BUDGET}")
    lines += [
        f"{ACTOR}.policy_loss._target_=ascent.plugins.verl.AscentPolicyLoss",
        f"+{ACTOR}.policy_loss.ascent=${{{ALGORITHM}.ascent}}",
        f"+{ACTOR}.policy_loss.estimator=${{{ALGORITHM}.adv_estimator}}",
    ]
    return lines + [f"{path}={_literal(value)}" for path, value in found.settings().items()]


def _literal(value: Any) -> str:
    """A value as Hydra's command line writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def contradictions(wanted: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    """Settings of `wanted` that `said` (by the same paths) contradicts, as sentences."""
    found = []
    for path, value in wanted.items():
        has = said.get(path)
        good = has is not None if value == BUDGET else has == value
        if not good:
            found.append(f"{path} must be {_literal(value)}, and is {_literal(has)}")
    return found
