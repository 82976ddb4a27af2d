"""A method is a composition of parts; four lines use it anywhere:

method = ascent.method("grpo", clip_low=0.2)
method = method.replace(advantage=...)
decisions = method.credit(decisions)
loss, metrics = method.loss(evaluation, decisions)
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.evaluation import EVALUATED, Evaluation
from ascent.core.example import example
from ascent.core.part import MethodState, Part, Together, walk
from ascent.core.plan import Adam, Plan, Step, at
from ascent.core.returns import LambdaReturn
from ascent.core.term import Term

Credit = Callable[[Decisions], Tensor]

# Columns that `loss` fills itself (the four-line contract), so an engine need not bring them.
DEFAULTED = frozenset({"advantage", "old_log_prob", "behaviour_log_prob", "value_target", "progress"})
# The parts that credit calls.
CREDITED = ("advantage", "value_target", "reject")


@dataclass(frozen=True)
class Method:
    """One policy-gradient method.

    Attributes:
        slug: its registered name.
        losses: named terms whose sum is minimised.
        advantage: decisions -> [N, T], once per collection; None for methods without credit.
        value_target: decisions -> [N, T(, K)], once per collection.
        normalise: decisions -> [N, T], replaces the advantage within each update (PPO).
        accept: decisions -> [N] bool, rows that are refused before any forward (dynamic sampling).
        reject: decisions -> [N, T] bool, decisions masked after credit; they still shape the baseline.
        plan: passes, minibatches, unit, early stop.
        step: the optimiser.
        companions: methods of other models that this one needs (behaviour policy, critics).
        parameters: the keyword arguments that built it, for the manifest.
    """

    slug: str
    losses: Mapping[str, Term]
    advantage: Credit | None = None
    value_target: Credit | None = None
    normalise: Credit | None = None
    accept: Credit | None = None
    reject: Credit | None = None
    plan: Plan = Plan()
    step: Step = Adam()
    companions: Mapping[str, Method] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False)
    parts: Mapping[str, Part] = field(init=False, repr=False, compare=False)
    needs: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.losses:
            raise ValueError(f"method {self.slug!r} has no losses; give at least one named Term.")
        composed = ("losses", "advantage", "value_target", "normalise", "accept", "reject")
        parts = {path: part for name in composed for path, part in walk(name, self.__dict__[name])}
        needs = frozenset({"mask"}).union(*(part.needs for part in parts.values()))
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "needs", needs)

    def replace(self, **changes: Any) -> Method:
        """A copy with other parts. `losses` replaces all terms; see `with_terms` to add or change some."""
        allowed = [item.name for item in dataclasses.fields(self) if item.init]
        for name in changes:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"Method has no part {name!r}; parts are {', '.join(allowed)}.{hint}")
        return dataclasses.replace(self, **changes)

    def with_terms(self, **terms: Term | None) -> Method:
        """A copy with these loss terms added or replaced; None removes one."""
        merged: dict[str, Term | None] = {**self.losses, **terms}
        return self.replace(losses={name: term for name, term in merged.items() if term is not None})

    @functools.cached_property
    def evaluates(self) -> frozenset[str]:
        """What the policy must compute for the loss: `log_prob`, `entropy`, ..., `probe:<name>`."""
        return frozenset(need for need in self.needs if need in EVALUATED or need.startswith("probe:")) | {"log_prob"}

    @functools.cached_property
    def recorded(self) -> frozenset[str]:
        """Columns that some part reads from the decisions, so they are annotated where nobody recorded them."""
        return frozenset().union(*(part.recorded for part in self.parts.values()))

    @functools.cached_property
    def prepares(self) -> frozenset[str]:
        """What the policy must compute on the whole update before the first gradient; often nothing."""
        return frozenset().union(*(part.prepares for part in self.parts.values()))

    @functools.cached_property
    def keep_together(self) -> Together:
        """Rows that a micro-batch split must not separate."""
        wanted = {part.keep_together for part in self.parts.values()}
        return "group" if "group" in wanted else "context" if "context" in wanted else "row"

    @functools.cached_property
    def follows_advantage(self) -> bool:
        """Whether a row whose recorded advantages are all 0 has no gradient at all."""
        values = (term.value for term in self.losses.values())
        return self.normalise is None and all(isinstance(value, Part) and value.follows_advantage for value in values)

    def silent(self, decisions: Decisions) -> Tensor | None:
        """[N] bool, credited rows whose gradient is exactly 0: they need only a forward pass, for the metrics.

        None where the advantage alone does not decide: divergences, entropy bonuses and critics teach on such rows too.
        """
        if not self.follows_advantage or "advantage" not in decisions:
            return None
        return ~(decisions.mask & (decisions.advantage != 0)).any(1)

    def start(self) -> MethodState:
        """The state before the first collection."""
        return MethodState({path: part.start() for path, part in self.parts.items()})

    @functools.cached_property
    def _required(self) -> tuple[str, ...]:
        """Columns that the loss cannot do without."""
        return _undefaulted(self.needs)

    @functools.cached_property
    def _credit_required(self) -> tuple[str, ...]:
        """Columns that the credit cannot do without."""
        parts = (part for path, part in self.parts.items() if path.partition(".")[0] in CREDITED)
        return _undefaulted(frozenset().union(*(part.needs for part in parts)))

    def require(self, decisions: Decisions, names: Iterable[str]) -> None:
        """Raise MissingColumn, naming this method, if a column among `names` is absent."""
        for name in names:
            if name not in decisions:
                raise MissingColumn(name, list(decisions), f"method {self.slug!r}")

    def annotate(self, decisions: Decisions, state: MethodState | None = None) -> Decisions:
        """Write the columns that parts derive from their state, before credit."""
        state = state or self.start()
        for path, part in self.parts.items():
            columns = part.annotate(decisions, state.parts[path])
            decisions = decisions.with_extras(columns) if columns else decisions
        return decisions

    def credit(self, decisions: Decisions, state: MethodState | None = None) -> Decisions:
        """Fill `advantage` (and `value_target`) of one collection; `reject` then masks decisions.

        Raises:
            MissingColumn: a column that the credit reads is absent.
        """
        self.require(decisions, self._credit_required)
        with torch.no_grad():
            decisions = self.annotate(decisions, state)
            if self.advantage is not None:
                decisions = decisions.replace(advantage=self.advantage(decisions))
            target = self.value_target
            if isinstance(target, LambdaReturn) and target.estimate == self.advantage:  # estimated once for both
                decisions = decisions.replace(value_target=target.above(decisions.advantage, decisions))
            elif target is not None:
                decisions = decisions.replace(value_target=target(decisions))
            if self.reject is not None:
                decisions = decisions.replace(mask=decisions.mask & ~self.reject(decisions))
        return decisions

    def prepare(
        self, decisions: Decisions, evaluation: Evaluation | None, state: MethodState | None = None
    ) -> Decisions:
        """Whole-update quantities as columns: they travel with the rows through any split.

        Args:
            decisions: the rows of one optimiser step, credited.
            evaluation: what the policy says of them, at least `self.prepares`; None where that is empty.
            state: of the parts, and the clock.
        """
        state = state or self.start()
        self.require(decisions, self._required)
        with torch.no_grad():
            decisions = decisions.cleaned()
            if evaluation is not None:
                evaluation = evaluation.detach()
                evaluation = evaluation if decisions.whole else evaluation.cleaned(decisions.mask)
                if "old_log_prob" not in decisions and "log_prob" in evaluation:
                    decisions = decisions.replace(old_log_prob=evaluation.log_prob)
            if "old_log_prob" in decisions and "behaviour_log_prob" not in decisions:
                decisions = decisions.with_extras({"behaviour_log_prob": decisions.old_log_prob})
            if self.normalise is not None:
                decisions = decisions.with_extras({"advantage": self.normalise(decisions)})
            if "progress" in self.needs:  # scheduled parts read the clock as a column, like all else
                done = decisions.mask.new_full((len(decisions),), state.clock.progress, dtype=torch.get_default_dtype())
                decisions = decisions.with_extras({"progress": done})
            for path, part in self.parts.items():
                columns = part.prepare(decisions, evaluation, state.parts[path])
                decisions = decisions.with_extras(columns) if columns else decisions
            weights, plain = {}, dict[object, Tensor]()
            for name, term in self.losses.items():
                alike = None if term.keep is not None else (term.reduction, term.unit, term.horizon)
                factors = plain.get(alike) if alike else None
                if factors is None:
                    factors = term.factors(evaluation, decisions)
                    plain[alike] = factors
                coefficient = at(term.coefficient, state.clock)
                weights[f"weight:{name}"] = factors if coefficient == 1.0 else factors * coefficient
            return decisions.with_extras({**weights, "weight": equal_share(decisions)})

    def prepared(self, decisions: Decisions) -> bool:
        """Whether `prepare` has already written this method's columns."""
        return "weight" in decisions.extras and all(f"weight:{name}" in decisions.extras for name in self.losses)

    def loss(
        self, evaluation: Evaluation, decisions: Decisions, state: MethodState | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss with gradient and detached metrics, of a whole update or a prepared part of it.

        Decisions without `advantage` are credited first, unprepared ones are a complete update. Metrics of
        the parts of an update add up to the update's.
        """
        if not self.prepared(decisions):
            if "old_log_prob" not in decisions and "log_prob" in evaluation:
                decisions = decisions.replace(old_log_prob=evaluation.detach().cleaned(decisions.mask).log_prob)
            wanted = {"advantage": self.advantage, "value_target": self.value_target}
            given = {name: decisions.column(name) for name in wanted if name in decisions}
            if any(credit is not None and name not in given for name, credit in wanted.items()):
                decisions = self.credit(decisions, state).with_extras(given)
            decisions = self.prepare(decisions, evaluation, state)
        whole = decisions.whole
        evaluation = evaluation if whole else evaluation.cleaned(decisions.mask)
        metrics: dict[str, Tensor] = {}
        terms = []
        share = decisions.extras["weight"]
        for name, term in self.losses.items():
            value = term.value(evaluation, decisions)
            weights = decisions.extras[f"weight:{name}"]
            # Without padding or selection there is nothing to hide from the sum.
            every = whole and term.keep is None and term.unit == "decision"
            terms.append((weights * (value if every else torch.where(weights != 0, value, 0.0))).sum())
            metrics[f"loss/{name}"] = terms[-1].detach()
            if term.keep is not None:
                metrics[f"kept/{name}"] = (share * (weights != 0)).sum()
        loss = sum(terms[1:], start=terms[0])
        with torch.no_grad():
            metrics["loss"] = loss.detach()
            columns: dict[str, Tensor] = {}
            for part in self.parts.values():
                columns |= part.metrics(evaluation, decisions)
            if columns:
                shape = share.shape
                stacked = torch.stack([x if x.shape == shape else x.expand(shape) for x in columns.values()])
                metrics |= zip(columns, (share * stacked).flatten(1).sum(1).unbind(), strict=True)
        return loss, metrics

    def after(self, decisions: Decisions, totals: Mapping[str, Tensor], state: MethodState) -> MethodState:
        """The state after an optimiser step."""
        parts = {path: part.after(decisions, totals, state.parts[path]) for path, part in self.parts.items()}
        return MethodState(parts, state.clock)

    def example(
        self, rows: int = 8, columns: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> tuple[Evaluation, Decisions]:
        """Valid random inputs, evaluated columns as leaves: `loss, metrics = method.loss(*method.example(8, 6))`."""
        return example(self.needs, self.parts.values(), rows, columns, seed, dtype)


def equal_share(decisions: Decisions) -> Tensor:
    """[N, T] 1 / (number of decisions), 0 where `mask` is False: what averages a metric over an update."""
    mask = decisions.mask
    if decisions.whole and mask.numel():
        return torch.full(mask.shape, 1.0 / mask.numel(), device=mask.device)
    return mask / mask.sum().clamp(min=1)


def _undefaulted(names: frozenset[str]) -> tuple[str, ...]:
    """The recorded columns among `names` that the contract does not fill itself, in order."""
    recorded = (name for name in names - DEFAULTED if name not in EVALUATED and not name.startswith("probe:"))
    return tuple(sorted(recorded))
