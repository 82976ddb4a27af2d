"""Which decisions may carry the gradient: those whose predicted shift stays inside a trust region (`curvature.py`).

A decision, a response or the whole update is accepted where its own step would move objective and policy little enough;
or the predicted shift is added to the loss, which bends the step instead of refusing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.curvature import AdamModel, Moments, Shifts, mean_gradient, pooled, residual, sgd_along, shifts
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Clock, Part, State
from ascent.core.plan import Number, at
from ascent.core.selectors import lots

Level = Literal["token", "sentence", "global", "sequential"]

LOGGED: tuple[str, ...] = (
    "rejected",
    "rejected_objective",
    "rejected_policy",
    "rejected_so_far",
    "curvature_objective",
    "curvature_policy",
    "curvature_policy_accepted",
    "curvature_objective_q95",
    "curvature_policy_q95",
    "curvature_policy_max",
)
WIDER: tuple[str, ...] = ("sentence_objective", "sentence_policy", "sentence_policy_accepted")
WIDER += ("sentence_objective_q95", "sentence_policy_q95", "sentence_policy_max")
WIDER += ("global_objective", "global_policy", "global_objective_accepted", "global_policy_accepted")


@dataclass(frozen=True)
class Seen:
    """What the model sees of the M decisions of an update: pi, u [M, K], h [M, d], A [M], row [M], and v = U h [M, K]
    of each decision's own step."""

    chance: Tensor
    u: Tensor
    hidden: Tensor
    advantage: Tensor
    row: Tensor
    along: Tensor


@dataclass(frozen=True)
class TrustRegion(Part):
    """The decisions whose step stays inside the thresholds [N, T]; decided on the whole update.

    Logged: shares rejected in all and by each test, the share rejected since the start (`rejected_so_far`), mean m_H
    and m_F, m_F of the accepted, 95% quantiles of |m_H| and m_F (for calibration), the greatest m_F. With
    `diagnostics`, the same of responses (`sentence_`) and of the update (`global_`), before and after the rejection.

    State: updates, decisions seen and refused in all and by action (`refused_by_action` [K]), Adam's moments.

    Attributes:
        model: "adam" or "sgd".
        level: what is judged, by the step of its mean gradient: a decision, a response ("sentence"), the update
            ("global"), or all three in turn, each on what the one before has left ("sequential").
        objective: delta_H > 0; policy: delta_F > 0; inf switches a test off. The same at every level.
        symmetric: m_H may also be negative, down to -delta_H.
        floor: lower bound of m_H instead, below `objective`; None leaves it to `symmetric`.
        fisher: of the "sampled" action, or "expected" over all.
        top_k: actions of the softmax, 0 takes all.
        control: reject as many at random; not for "global", which has nothing to choose from.
        diagnostics: whether responses and the update are measured too.
        bends: whether `curvature_step` is written, for `PredictedShift`.
        learning_rate, warmup: of the optimiser; adam: its Adam, ignored by "sgd".
        temperature: of the policy: its logits are W h / temperature.
    """

    model: Literal["adam", "sgd"] = "adam"
    level: Level = "token"
    objective: float = 0.01
    policy: float = 1e-4
    symmetric: bool = True
    floor: float | None = None
    fisher: Literal["sampled", "expected"] = "sampled"
    top_k: int = 0
    control: bool = False
    diagnostics: bool = False
    bends: bool = False
    learning_rate: Number = 1e-4
    warmup: int = 0
    adam: AdamModel = AdamModel()
    temperature: float = 1.0

    @property
    def needs(self) -> frozenset[str]:
        scheduled = frozenset() if isinstance(self.learning_rate, int | float) else frozenset({"progress"})
        return frozenset({"outputs", "features", "action", "advantage"}) | scheduled

    prepares = frozenset({"outputs", "features"})

    def start(self) -> State:
        return {name: torch.zeros((), dtype=torch.int64) for name in ("step", "seen", "refused")}

    def rate(self, decisions: Decisions, step: int) -> float:
        """The learning rate of this update."""
        progress = float(decisions.extras["progress"][0]) if "progress" in decisions.extras and len(decisions) else 0.0
        now = at(self.learning_rate, Clock(step, progress))
        return now * min(1.0, (step + 1) / self.warmup) if self.warmup else now

    def step(self, gradient: Tensor, rate: float, state: State) -> Tensor:
        """The optimiser's step on a gradient [..., K, d]."""
        if self.model == "sgd":
            return rate * gradient
        return rate * self.adam.direction(gradient, _moments(state))

    def seen(self, decisions: Decisions, evaluation: Evaluation, rate: float, state: State) -> Seen:
        """What is known of the decisions of an update."""
        mask = decisions.mask
        hidden = evaluation.features[mask] / self.temperature
        chance, u = residual(evaluation.outputs[mask], decisions.action[mask], self.top_k)
        advantage = decisions.advantage[mask].to(u.dtype)
        if self.model == "sgd":
            along = sgd_along(u, hidden, advantage, rate)
        else:
            along = self.adam.along(u, hidden, advantage, rate, _moments(state))
        return Seen(chance, u, hidden, advantage, torch.nonzero(mask)[:, 0], along)

    def wider(self, seen: Seen, kept: Tensor, rate: float, state: State, whole: bool) -> tuple[Shifts, Tensor]:
        """Shifts of the responses, or of the update, made of the decisions that are kept; and their numbers."""
        cell = torch.zeros_like(seen.row) if whole else seen.row
        part = (seen.u[kept], seen.chance[kept], seen.hidden[kept], seen.advantage[kept], cell[kept])

        def step(gradient: Tensor) -> Tensor:
            return self.step(gradient, rate, state)

        return pooled(*part, step, self.fisher == "expected"), torch.unique(cell[kept])

    def refused(self, found: Shifts) -> tuple[Tensor, Tensor]:
        """Which fail the test of the objective, and which that of the policy."""
        if self.floor is not None:
            above = found.objective > self.floor
        else:
            above = found.objective > -self.objective if self.symmetric else found.objective >= 0.0
        return ~(above & (found.objective < self.objective)), ~(found.policy < self.policy)

    def judged(
        self, seen: Seen, tokens: Shifts, decisions: Decisions, rate: float, state: State
    ) -> tuple[Tensor, Tensor]:
        """[M] rejected for the objective, [M] rejected for the policy."""
        nothing = torch.zeros_like(seen.row, dtype=torch.bool)
        failed = self.refused(tokens) if self.level in ("token", "sequential") else (nothing, nothing)
        for level in ("sentence", "global"):
            if self.level not in (level, "sequential"):
                continue
            whole, kept = level == "global", ~(failed[0] | failed[1])
            found, cells = self.wider(seen, kept, rate, state, whole)
            cell = torch.zeros_like(seen.row) if whole else seen.row
            one, other = (kept & torch.isin(cell, cells[flags]) for flags in self.refused(found))
            failed = failed[0] | one, failed[1] | other
        return failed

    def at_random(self, rejected: Tensor, seen: Seen, decisions: Decisions) -> Tensor:
        """[M] as many decisions, or responses, drawn by hash."""
        lot = lots(decisions, 0)[decisions.mask]
        if self.level != "sentence":
            order = lot.argsort()
            return torch.zeros_like(rejected).index_fill(0, order[: int(rejected.sum())], True)
        first = torch.ones_like(rejected)
        first[1:] = seen.row[1:] != seen.row[:-1]
        rows = seen.row[first][lot[first].argsort()]
        return torch.isin(seen.row, rows[: len(torch.unique(seen.row[rejected]))])

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        if evaluation is None:
            return {}
        mask, rows, rate = decisions.mask, len(decisions), self.rate(decisions, int(state["step"]))
        seen = self.seen(decisions, evaluation, rate, state)
        found = shifts(seen.u, seen.chance, seen.along, seen.advantage, self.fisher == "expected")
        by_objective, by_policy = self.judged(seen, found, decisions, rate, state)
        rejected = by_objective | by_policy
        rejected = self.at_random(rejected, seen, decisions) if self.control else rejected

        def spread(flat: Tensor) -> Tensor:
            return flat.new_zeros((*mask.shape, *flat.shape[1:])).index_put((mask,), flat)

        actions, taken = seen.u.shape[-1], decisions.action[mask]
        numbers = self.numbers(found, rejected, by_objective, by_policy, state)
        if self.diagnostics:
            numbers = torch.cat([numbers, self.wider_numbers(seen, rejected, rate, state)])
        columns = {
            "curvature_accepted": spread(~rejected),
            "curvature_objective": spread(found.objective),
            "curvature_policy": spread(found.policy),
            "curvature_logged": numbers.expand(rows, -1),
            "curvature_refused": torch.bincount(taken[rejected], minlength=actions).expand(rows, -1),
        }
        if self.bends:
            columns["curvature_step"] = spread(seen.along)
        if self.model == "adam":
            kept = ~rejected
            mean = mean_gradient(seen.u[kept], seen.hidden[kept], seen.advantage[kept])
            columns["curvature_mean"] = mean.expand(rows, -1, -1)
        return columns

    def numbers(self, found: Shifts, rejected: Tensor, one: Tensor, other: Tensor, state: State) -> Tensor:
        """What is logged, in the order of LOGGED."""
        policy, objective = found.policy, found.objective
        if not len(policy):
            return policy.new_zeros(len(LOGGED))
        share = [flags.to(policy.dtype).mean() for flags in (rejected, one, other)]
        so_far = (state["refused"] + rejected.sum()) / (state["seen"] + len(rejected))
        kept = torch.where(rejected, 0.0, policy).sum() / (~rejected).sum().clamp(min=1)
        ends = [_q95(objective.abs()), _q95(policy), policy.max()]
        return torch.stack([*share, so_far.to(policy.dtype), objective.mean(), policy.mean(), kept, *ends])

    def wider_numbers(self, seen: Seen, rejected: Tensor, rate: float, state: State) -> Tensor:
        """What is logged of responses and of the update, in the order of WIDER."""
        every, zero = torch.ones_like(rejected), seen.u.new_zeros(())
        if not len(every):
            return seen.u.new_zeros(len(WIDER))
        sentence, update = (self.wider(seen, every, rate, state, whole)[0] for whole in (False, True))
        left = [self.wider(seen, ~rejected, rate, state, whole)[0] for whole in (False, True)]
        after = [(x.objective.mean(), x.policy.mean()) if len(x.policy) else (zero, zero) for x in left]
        ends = [_q95(sentence.objective.abs()), _q95(sentence.policy), sentence.policy.max()]
        of_sentences = (sentence.objective.mean(), sentence.policy.mean(), after[0][1], *ends)
        return torch.stack([*of_sentences, update.objective[0], update.policy[0], *after[1]])

    def __call__(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        return decisions.mask & decisions.column("curvature_accepted", "TrustRegion")

    def after(self, decisions: Decisions, totals: Columns, state: State) -> State:
        if not len(decisions):
            return {**state, "step": state["step"] + 1}
        accepted, mask = decisions.column("curvature_accepted"), decisions.mask
        refused = decisions.column("curvature_refused")[0]
        counted = {
            "step": state["step"] + 1,
            "seen": state["seen"] + mask.sum(),
            "refused": state["refused"] + (mask & ~accepted).sum(),
            "refused_by_action": state.get("refused_by_action", torch.zeros_like(refused)) + refused,
        }
        if self.model == "sgd":
            return counted
        moments = self.adam.after(decisions.column("curvature_mean")[0], _moments(state))
        assert moments.first is not None and moments.second is not None
        return {**counted, "first": moments.first, "second": moments.second}

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        numbers = decisions.column("curvature_logged", "TrustRegion")
        names = (*LOGGED, *WIDER) if self.diagnostics else LOGGED
        return {name: numbers[:, place, None] for place, name in enumerate(names)}


@dataclass(frozen=True)
class PredictedShift(Part):
    """m_H or m_F of every decision as a loss [N, T]: a soft trust region beside, or instead of, the rejection.

    The step U h of the logits stays as it was at the start of the update (`curvature_step`, which a `TrustRegion` with
    `bends` writes); gradient flows through pi and u = e_a - pi, so the policy turns away from where its step leads far.

    Attributes:
        of: "objective" (m_H) or "policy" (m_F).
        fisher, top_k: of the region.
    """

    of: Literal["objective", "policy"] = "policy"
    fisher: Literal["sampled", "expected"] = "sampled"
    top_k: int = 0
    needs = frozenset({"outputs", "action", "advantage"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        mask, along = decisions.mask, decisions.column("curvature_step", "PredictedShift")
        chance, u = residual(evaluation.outputs[mask], decisions.action[mask], self.top_k)
        advantage = decisions.advantage[mask].to(u.dtype)
        found = shifts(u, chance, along[mask].to(u.dtype), advantage, self.fisher == "expected")
        flat = found.objective if self.of == "objective" else found.policy
        return flat.new_zeros(mask.shape).index_put((mask,), flat)


def _moments(state: State) -> Moments:
    return Moments(state.get("first"), state.get("second"), int(state["step"]))


def _q95(numbers: Tensor) -> Tensor:
    return numbers.sort().values[min(int(0.95 * len(numbers)), len(numbers) - 1)]
