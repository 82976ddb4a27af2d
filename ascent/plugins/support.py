"""Which method runs where: in our own trainer, inside TRL, inside verl; and if not, why not.

Nothing is listed by hand: an engine is described by the columns that it can give to a method's parts, and the answer
follows from what the parts need. Neither engine is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ascent.core.method import CREDITED, DEFAULTED, Method
from ascent.core.part import Part
from ascent.core.registry import Card, card, cards

NAMES = ("native", "trl", "verl")


@dataclass(frozen=True)
class Support:
    """Whether a method runs in an engine; `reason` says why not, or what the user must give."""

    supported: bool
    reason: str = ""


@dataclass(frozen=True)
class Engine:
    """What an engine can give to the parts of a method.

    Attributes:
        name: as people write it.
        credit: columns of the whole collection when advantages are made.
        loss: columns of the rows of an update, recorded and evaluated, when the loss is made.
        prepares: evaluated columns of a whole update that it can compute before the update's first gradient.
        whole_update: the parts' `prepare` sees all rows of an update, not only those of a micro-batch.
        groups: the rows of a group can reach the loss together.
        state: what parts remember between updates is carried.
        on_request: columns that come only where the user gives something, with what.
    """

    name: str
    credit: frozenset[str]
    loss: frozenset[str]
    prepares: frozenset[str]
    whole_update: bool = True
    groups: bool = True
    state: bool = True
    on_request: Mapping[str, str] = field(default_factory=dict)


_TRL = frozenset(
    {"mask", "action", "reward", "terminated", "truncated", "group", "key", "policy_version", "budget"}
    | {"old_log_prob", "behaviour_log_prob", "reference_log_prob", "advantage"}
)
TRL = Engine(
    name="TRL",
    credit=_TRL,
    loss=_TRL | {"log_prob", "entropy", "features", "outputs"},
    prepares=frozenset({"log_prob", "entropy", "features", "outputs"}),
    on_request={"teacher_log_prob": 'scorers={"teacher_log_prob": <model>}'},
)
VERL = Engine(
    name="verl",
    credit=frozenset({"mask", "reward", "terminated", "truncated", "group", "budget"}),
    loss=frozenset({"mask", "advantage", "old_log_prob", "behaviour_log_prob", "log_prob"}),
    prepares=frozenset(),
    whole_update=False,
    groups=False,
    state=False,
)


def support(slug: str) -> dict[str, Support]:
    """What runs where, by `NAMES`, for the method's default parameters."""
    from ascent.plugins import verl_feed  # which takes a method apart and asks `obstacles` of the rest

    entry = card(slug)
    method = entry.build()
    return {"native": native(entry, method), "trl": fits(method, TRL), "verl": verl_feed.support(method)}


def fits(method: Method, engine: Engine) -> Support:
    """Whether `engine` can feed `method` as it is composed."""
    reasons = obstacles(method, engine)
    if reasons:
        return Support(False, "; ".join(reasons))
    asked = sorted(need for need in method.needs if need in engine.on_request)
    return Support(True, f"give {', '.join(engine.on_request[need] for need in asked)}" if asked else "")


def obstacles(method: Method, engine: Engine) -> list[str]:
    """Why `engine` cannot feed `method`; empty where it can."""
    # A method composed under a name of its own has no card, and is asked for its columns only.
    family = next((item.family for item in cards() if item.slug == method.slug), "language")
    if family == "supervised":
        return [f"learns from demonstrations, {engine.name} from the policy's own samples"]
    if family == "control":
        return [f"acts in an environment with observations, {engine.name} trains language models"]
    given = frozenset(engine.on_request) | DEFAULTED
    found = []
    missing = _needs(method, True) - engine.credit - given
    if missing:
        found.append(f"its credit needs {_listed(missing)}, which {engine.name} does not give")
    absent = _needs(method, False) - engine.loss - given - missing
    if absent:
        found.append(f"its loss needs {_listed(absent)}, which {engine.name} does not give")
    early = method.prepares - engine.prepares
    if early:
        found.append(f"it looks at {_listed(early)} of the whole update before its first gradient")
    elif not engine.whole_update and any(_own(part, "prepare") for part in method.parts.values()):
        found.append("it computes quantities of the whole update, and the loss sees micro-batches")
    if method.keep_together == "group" and not engine.groups:
        found.append("it compares the responses of a group in its loss, and the loss sees broken groups")
    if not engine.state and any(_own(part, "after") and part.start() for part in method.parts.values()):
        found.append("it remembers numbers from update to update, which nothing carries")
    if method.plan.stop is not None:
        found.append("it ends its passes early on a metric")
    return found


def native(entry: Card, method: Method) -> Support:
    """Whether our own trainer has a world and a sampler for `method`."""
    from ascent.systems.assembly import ALSO, FED, replayed
    from ascent.systems.supervised import GIVEN

    if entry.family == "supervised":
        given = GIVEN
    elif entry.family == "control":
        given = FED["off_policy" if replayed(method) else "control"]
    else:
        given = FED["language"]
    missing = method.needs - given - ALSO.get(entry.slug, frozenset()) - DEFAULTED - {"mask"}
    return Support(False, f"no assembly gives {_listed(missing)}") if missing else Support(True)


def _needs(method: Method, credit: bool) -> frozenset[str]:
    """What the parts of the credit read, or those of the loss."""
    first = (path.partition(".")[0] for path in method.parts)
    chosen = [
        part
        for name, part in zip(first, method.parts.values(), strict=True)
        if (name in (*CREDITED, "accept")) == credit
    ]
    return frozenset().union(*(part.needs for part in chosen))


def _own(part: Part, hook: str) -> bool:
    """Whether a part has this hook itself."""
    return vars(type(part)).get(hook) is not None


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
