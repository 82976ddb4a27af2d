"""One learning stage: draw, annotate, credit; then for each update prepare, improve, step; after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState
from ascent.policies.learning import learning
from ascent.policies.policy import Policy
from ascent.training.annotate import Scorer, annotated, evaluated, looked
from ascent.training.batches import share, split, updates
from ascent.training.memory import Memory
from ascent.training.program import Hook
from ascent.training.steps import stepper_for

if TYPE_CHECKING:
    from ascent.training.loop import Loop


Seen = Callable[[Evaluation], None]
Moved = Callable[[MethodState, MethodState], None]

ANNOTATED = frozenset({"old_log_prob", "value", "next_value", "routes", "prompt_routes"})
"""Columns that a policy may write of itself, where a method reads them and nobody recorded them."""


class Diverged(ArithmeticError):
    """The loss or the gradient is not finite; the parameters of the last good checkpoint are intact."""


class Learn:
    """Improves one model by one method on what a memory holds.

    Args:
        name: unique in the program; prefixes metrics when it is not "policy".
        model: the policy that learns.
        method: how.
        memory: where the collection is drawn from.
        scorers: by column, what writes it row by row: another policy's log-probs (`log_prob_of`), say.
        seed: of the dealing of minibatches.
        every: rounds of the phase between two runs of this stage.
        micro_rows: most rows in one forward, for memory only; None puts a whole update in one.
        before, after: hooks around the stage (copy parameters, for example).
        exact_behaviour: the sampler's log-probs are the policy's own, so they serve as `old_log_prob`.
        seen: is told what the model says of each update, without gradient and before the step; the update is not split.
        moved: is told the method's state before and after each update (to correct weights that a running scale reads).
        monitor: evaluated columns that are reported although the loss does not need them.
    """

    def __init__(
        self,
        name: str,
        model: Policy,
        method: Method,
        memory: Memory,
        *,
        scorers: Mapping[str, Scorer] | None = None,
        seed: int = 0,
        every: int = 1,
        micro_rows: int | None = None,
        before: Sequence[Hook] = (),
        after: Sequence[Hook] = (),
        exact_behaviour: bool = False,
        monitor: frozenset[str] = frozenset(),
        seen: Seen | None = None,
        moved: Moved | None = None,
    ) -> None:
        self.name, self.model, self.method, self.memory = name, model, method, memory
        self.scorers, self.seed, self.every, self.micro_rows = dict(scorers or {}), seed, every, micro_rows
        self.before, self.after, self.seen, self.moved = before, after, seen, moved
        self.exact_behaviour, self.monitor = exact_behaviour, monitor
        self.learner = learning(model)
        self.stepper = stepper_for(method.step, model)
        self.state: MethodState = method.start()
        self.collection: Decisions | None = None
        self.dealt: list[Decisions] | None = None
        self.position = self.updates = self.rounds = 0

    def run(self, loop: Loop, round_: int) -> None:
        """Draw a collection and walk it; a resumed stage goes on in the middle of its collection."""
        if (round_ + 1) % self.every:
            return
        if self.seen is not None and (self.micro_rows is not None or loop.processes.count > 1):
            raise ValueError(
                f"what stage {self.name!r} says is read by a later stage, so its updates cannot be split; got "
                f"micro_rows={self.micro_rows} and {loop.processes.count} processes. Run one process and no micro_rows."
            )
        if not self.model.splittable and (self.micro_rows is not None or loop.processes.count > 1):
            raise ValueError(
                f"the rows of stage {self.name!r}'s model are coupled (splittable is False), so they cannot be split; "
                f"got micro_rows={self.micro_rows} and {loop.processes.count} processes. Run one process without "
                "micro_rows."
            )
        if self.collection is None:
            for hook in self.before:
                hook()
            self.collection = self.credited(self.memory.draw(self.rounds), loop)
        plan = self.method.plan
        end = plan.passes * plan.minibatches
        while self.position < end:
            pass_, place = divmod(self.position, plan.minibatches)
            if place == 0 or self.dealt is None:
                self.dealt = updates(self.collection, plan, self.seed, self.rounds, pass_)
            rows = self.dealt[place]
            if not len(rows):
                self.position += 1
                continue
            go_on = self.update(rows, loop)
            self.position = self.position + 1 if go_on else end
            loop.updated()
        self.position, self.collection, self.dealt = 0, None, None
        self.rounds += 1
        for hook in self.after:
            hook()

    def credited(self, collection: Decisions, loop: Loop) -> Decisions:
        """The columns that the method asked for, then its credit, on the rows of all processes."""
        needs = self.method.needs
        if self.exact_behaviour and "old_log_prob" not in collection and "behaviour_log_prob" in collection:
            collection = collection.replace(old_log_prob=collection.behaviour_log_prob)
        annotates = self.method.recorded & ANNOTATED
        own = frozenset(name for name in annotates if name not in collection)
        scored = {name: scorer for name, scorer in self.scorers.items() if name in needs and name not in collection}
        if own or scored:
            collection = annotated(self.model, collection, own, scored, self.micro_rows, loop.processes)
        collection = self.method.credit(collection, self.state)
        return collection.flatten() if self.method.plan.unit == "decision" else collection

    def update(self, rows: Decisions, loop: Loop) -> bool:
        """One optimiser step on `rows`. Returns whether the walk goes on (early stop)."""
        method, processes = self.method, loop.processes
        self.state = MethodState(self.state.parts, Clock(self.updates, loop.progress))
        together = method.keep_together
        mine = share(rows, together, processes.rank, processes.count)
        whole = mine is None and (self.micro_rows is None or len(rows) <= self.micro_rows)
        wanted = method.evaluates | self.monitor
        totals: dict[str, Tensor] = {}
        if whole:
            now = evaluated(self.learner, rows, wanted, method.silent(rows))
            if self.seen is not None:
                self.seen(now.detach())
            rows = method.prepare(rows, now, self.state)
            self.improve(now, rows, totals)
        else:
            before = None
            if method.prepares or "old_log_prob" not in rows:
                before = looked(self.model, rows, method.prepares | {"log_prob"}, mine, self.micro_rows, processes)
            rows = method.prepare(rows, before, self.state)
            for part in split(rows if mine is None else rows.rows(mine), together, self.micro_rows):
                if len(part):
                    self.improve(evaluated(self.learner, part, wanted, method.silent(part)), part, totals)
        processes.sum_gradients(self.stepper.parameters)
        totals = processes.sum(totals)
        stop = method.plan.stop
        exceeded = stop is not None and float(totals[stop.metric]) > stop.above
        if exceeded and stop is not None and stop.when == "before":
            self.stepper.clear()
        else:
            totals |= self.stepper.step(self.state.clock)
            self.refuse_non_finite(totals)
            self.updates += 1
            earlier, self.state = self.state, method.after(rows, totals, self.state)
            if self.moved is not None:
                self.moved(earlier, self.state)
        loop.record(totals if self.name == "policy" else {f"{self.name}/{name}": x for name, x in totals.items()})
        return not exceeded

    def improve(self, now: Evaluation, rows: Decisions, totals: dict[str, Tensor]) -> None:
        """Loss and gradient of one prepared micro-batch; its metrics add to `totals`."""
        loss, metrics = self.method.loss(now, rows, self.state)
        loss.backward()
        share_ = rows.extras["weight"]
        for name in self.monitor:
            if name not in metrics:
                metrics[name] = (share_ * torch.where(rows.mask, now.column(name).detach(), 0.0)).sum()
        for name, metric in metrics.items():
            totals[name] = totals[name] + metric if name in totals else metric

    def refuse_non_finite(self, totals: Mapping[str, Tensor]) -> None:
        """Raise Diverged before a broken state can be saved."""
        # A sum is finite only if both are: one number to read instead of two.
        if math.isfinite(float(totals["loss"] + totals["gradient_norm"])):
            return
        checked = [float(totals["loss"]), float(totals["gradient_norm"])]
        if not all(math.isfinite(number) for number in checked):
            stage = "gradient" if math.isfinite(checked[0]) else "loss"
            raise Diverged(
                f"the {stage} of stage {self.name!r} is not finite at update {self.updates} "
                f"(loss {checked[0]}, gradient norm {checked[1]}). Lower learning_rate "
                f"({float(totals['learning_rate']):g}) or max_gradient_norm, or look at the rewards."
            )

    def state_dict(self) -> dict[str, Any]:
        """Optimiser, method state, counters, and the half-used collection."""
        return {
            "stepper": self.stepper.state_dict(),
            "method": {path: dict(state) for path, state in self.state.parts.items()},
            "collection": None if self.collection is None else self.collection.to_tensors(),
            "position": self.position,
            "updates": self.updates,
            "rounds": self.rounds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.stepper.load_state_dict(state["stepper"])
        self.state = MethodState(state["method"])
        held = state["collection"]
        self.collection = None if held is None else Decisions.from_tensors(held)
        self.position, self.updates, self.rounds = state["position"], state["updates"], state["rounds"]
