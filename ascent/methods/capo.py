"""CAPO: curvature-aware policy optimization, a policy gradient without the few tokens that would move too far.

Before each update a second-order model of the language-model head alone (`core/curvature.py`) predicts for every token
how far its own optimiser step would move the objective (m_H) and the policy (m_F ~ KL of the step):

    accept t  iff  -delta_H < m_H < delta_H (symmetric; asymmetric: 0 <= m_H < delta_H)  and  m_F < delta_F
    loss = the base method's on the accepted tokens; the counts of its denominators too

The step model mirrors the optimiser: SGD in closed form, or Adam with moments [K, d] of the head, fed once an update
with the mean gradient of the accepted tokens, at the learning rate of this update.

2025, arXiv 2510.00819; code luckeciano/stable-pg-llm. Departures: the hidden state is the one that made the logits (the
code's is a position late); the threshold inf, not 0, switches a test off; an emptied row leaves the mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.curvature import AdamModel, Moments, Shifts, mean_gradient, residual, sgd_shifts
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Credit, Method
from ascent.core.part import Clock, Part, State
from ascent.core.plan import SGD, Adam, Number, Plan, at
from ascent.core.ranges import one_of, whole, within
from ascent.core.reductions import Reduction
from ascent.core.registry import register
from ascent.core.returns import Score
from ascent.core.selectors import lots
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term

THRESHOLDS: Mapping[str, tuple[float, float]] = {
    "grpo": (0.01, 1e-4),
    "dr_grpo": (5e-4, 1e-3),
    "reinforce": (0.1, 1e-5),
}
"""(delta_H, delta_F) of the released recipes; reinforce's are read off its recipe's name."""

LOGGED: tuple[str, ...] = (
    "rejected",
    "rejected_objective",
    "rejected_policy",
    "rejected_so_far",
    "curvature_objective",
)
LOGGED += ("curvature_policy", "curvature_policy_accepted", "curvature_objective_q95", "curvature_policy_q95")
LOGGED += ("curvature_policy_max",)


@dataclass(frozen=True)
class TrustRegion(Part):
    """The decisions whose own step stays inside the thresholds [N, T]; decided on the whole update.

    Logged: shares rejected in all and by each test, the share rejected since the start (`rejected_so_far`), mean m_H
    and m_F, m_F of the accepted, 95% quantiles of |m_H| and m_F (for calibration), the greatest m_F.

    Attributes:
        model: "adam" or "sgd".
        objective: delta_H > 0; policy: delta_F > 0; inf switches a test off.
        symmetric: m_H may also be negative, down to -delta_H.
        fisher: of the "sampled" action, or "expected" over all.
        top_k: actions of the softmax, 0 takes all.
        control: reject as many at random.
        learning_rate, warmup: of the optimiser; adam: its Adam, ignored by "sgd".
        temperature: of the policy: its logits are W h / temperature.
    """

    model: Literal["adam", "sgd"] = "adam"
    objective: float = 0.01
    policy: float = 1e-4
    symmetric: bool = True
    fisher: Literal["sampled", "expected"] = "sampled"
    top_k: int = 0
    control: bool = False
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

    def predicted(self, decisions: Decisions, evaluation: Evaluation, state: State) -> tuple[Shifts, Tensor, Tensor]:
        """Shifts of the M decisions, and their u and h."""
        mask = decisions.mask
        hidden, advantage = evaluation.features[mask] / self.temperature, decisions.advantage[mask]
        chance, u = residual(evaluation.outputs[mask], decisions.action[mask], self.top_k)
        advantage = advantage.to(u.dtype)
        rate, expected = self.rate(decisions, int(state["step"])), self.fisher == "expected"
        if self.model == "sgd":
            return sgd_shifts(u, chance, hidden, advantage, rate, expected), u, hidden
        moments = Moments(state.get("first"), state.get("second"), int(state["step"]))
        return self.adam.shifts(u, chance, hidden, advantage, rate, moments, expected), u, hidden

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        if evaluation is None:
            return {}
        mask = decisions.mask
        found, u, hidden = self.predicted(decisions, evaluation, state)
        low = -self.objective if self.symmetric else 0.0
        above = found.objective > low if self.symmetric else found.objective >= low
        by_objective = ~(above & (found.objective < self.objective))
        by_policy = ~(found.policy < self.policy)
        rejected = by_objective | by_policy
        if self.control:
            order = lots(decisions, 0)[mask].argsort()
            rejected = torch.zeros_like(rejected).index_fill(0, order[: int(rejected.sum())], True)
        accepted = torch.zeros_like(mask).masked_scatter(mask, ~rejected)

        def spread(flat: Tensor) -> Tensor:
            return flat.new_zeros(mask.shape).masked_scatter(mask, flat)

        rows = len(decisions)
        columns = {
            "curvature_accepted": accepted,
            "curvature_objective": spread(found.objective),
            "curvature_policy": spread(found.policy),
            "curvature_logged": self.numbers(found, rejected, by_objective, by_policy, state).expand(rows, -1),
        }
        if self.model == "adam":
            kept = ~rejected
            mean = mean_gradient(u[kept], hidden[kept], decisions.advantage[mask].to(u.dtype)[kept])
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

        def q95(numbers: Tensor) -> Tensor:
            return numbers.sort().values[min(int(0.95 * len(numbers)), len(numbers) - 1)]

        ends = [q95(objective.abs()), q95(policy), policy.max()]
        return torch.stack([*share, so_far.to(policy.dtype), objective.mean(), policy.mean(), kept, *ends])

    def __call__(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        return decisions.mask & decisions.column("curvature_accepted", "TrustRegion")

    def after(self, decisions: Decisions, totals: Columns, state: State) -> State:
        accepted, mask = decisions.column("curvature_accepted"), decisions.mask
        step = int(state["step"])
        counted = {
            "step": state["step"] + 1,
            "seen": state["seen"] + mask.sum(),
            "refused": state["refused"] + (mask & ~accepted).sum(),
        }
        if self.model == "sgd" or not len(decisions):
            return counted
        mean = decisions.column("curvature_mean")[0]
        moments = self.adam.after(mean, Moments(state.get("first"), state.get("second"), step))
        assert moments.first is not None and moments.second is not None
        return {**counted, "first": moments.first, "second": moments.second}

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        numbers = decisions.column("curvature_logged", "TrustRegion")
        return {name: numbers[:, place, None] for place, name in enumerate(LOGGED)}


def mirrored(method: Method, temperature: float) -> Method:
    """The method with a step model that mirrors its present optimiser and the policy's temperature."""
    step = method.step
    changes: dict[str, object] = {"learning_rate": step.learning_rate, "temperature": temperature}
    if isinstance(step, Adam):
        changes["warmup"] = step.warmup

    def changed(term: Term) -> Term:
        if not isinstance(term.keep, TrustRegion):
            return term
        own = dict(changes)
        if isinstance(step, Adam):
            own["adam"] = dataclasses.replace(term.keep.adam, betas=step.betas, eps=step.eps)
        return dataclasses.replace(term, keep=dataclasses.replace(term.keep, **own))  # type: ignore[arg-type]

    return method.replace(losses={name: changed(term) for name, term in method.losses.items()})


@register(
    "capo",
    title="Stabilizing policy gradients for sample-efficient reinforcement learning in LLM reasoning",
    paper="ICLR",
    year=2025,
    url="https://arxiv.org/abs/2510.00819",
    family="language",
)
def capo(
    base: Literal["grpo", "dr_grpo", "reinforce"] = "grpo",
    model: Literal["adam", "sgd"] = "adam",
    objective_threshold: float | None = None,
    policy_threshold: float | None = None,
    symmetric: bool = True,
    fisher: Literal["sampled", "expected"] = "sampled",
    top_k: int = 0,
    control: bool = False,
    variant: Literal["paper", "reference"] = "paper",
    clip: float = 0.2,
    optimiser: Literal["adam", "sgd"] = "adam",
    beta1: float = 0.9,
    beta2: float = 0.999,
    adam_eps: float = 1e-8,
    warmup: int = 0,
    max_gradient_norm: float | None = 1.0,
    ddof: int = 1,
    eps: float = 1e-4,
    learning_rate: float = 1e-4,
) -> Method:
    """Curvature-aware rejection of tokens around a policy gradient.

    Args:
        base: "grpo" (CAPO), "dr_grpo" (Dr.CAPO: no division by the deviation), "reinforce" (ReinCAPO: A = R).
        model: of a token's own step: "adam" with moments of the head, or "sgd" in closed form.
        objective_threshold: delta_H of m_H, > 0; inf switches the test off; None takes the base's recipe.
        policy_threshold: delta_F of m_F, > 0; inf switches the test off; None takes the base's recipe.
        symmetric: accept -delta_H < m_H < delta_H; otherwise 0 <= m_H < delta_H.
        fisher: m_F of the "sampled" action, or "expected" over all actions.
        top_k: actions of the head's softmax, >= 0; 0 takes all, the released recipes take 50.
        control: reject as many tokens at random instead, the arm that would expose a sham.
        variant: "paper", or "reference": before the first update Adam's step is the raw gradient, as in the code.
        clip: of the ratio on both sides, >= 0; inactive with one update a collection.
        optimiser: of the update; "adam", or plain "sgd".
        beta1: of Adam and its model, in [0, 1).
        beta2: of Adam and its model, in [0, 1).
        adam_eps: of Adam and its model, > 0.
        warmup: first updates over which the learning rate rises, >= 0.
        max_gradient_norm: clip of the update's gradient, > 0; None does not clip. The step model does not know it.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        learning_rate: of the optimiser, > 0; 1e-4 suits the embedded model, the paper's 7B model uses 1.5e-5.
    """
    one_of("base", base, THRESHOLDS)
    one_of("model", model, ("adam", "sgd"))
    for name, number in (("objective_threshold", objective_threshold), ("policy_threshold", policy_threshold)):
        if number is not None:
            within(name, number, "(0, inf]", "Calibrate it on a stable run; inf switches the test off")
    one_of("symmetric", symmetric, (True, False))
    one_of("fisher", fisher, ("sampled", "expected"))
    whole("top_k", top_k, 0, "Use 0 for the whole vocabulary")
    one_of("control", control, (True, False))
    one_of("variant", variant, ("paper", "reference"))
    within("clip", clip, "[0, inf]", "Use 0.2; inf switches the bound off")
    one_of("optimiser", optimiser, ("adam", "sgd"))
    within("beta1", beta1, "[0, 1)", "Use 0.9")
    within("beta2", beta2, "[0, 1)", "Use 0.999")
    within("adam_eps", adam_eps, "(0, inf)", "Use 1e-8")
    whole("warmup", warmup, 0, "Use 0 for none")
    if max_gradient_norm is not None:
        within("max_gradient_norm", max_gradient_norm, "(0, inf]", "Use 1, or None for no clip")
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-4")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")

    default_objective, default_policy = THRESHOLDS[base]
    region = TrustRegion(
        model=model,
        objective=default_objective if objective_threshold is None else objective_threshold,
        policy=default_policy if policy_threshold is None else policy_threshold,
        symmetric=symmetric,
        fisher=fisher,
        top_k=top_k,
        control=control,
        learning_rate=learning_rate,
        warmup=warmup if optimiser == "adam" else 0,
        adam=AdamModel((beta1, beta2), adam_eps, raw_start=variant == "reference"),
    )
    advantages: dict[str, Credit] = {
        "grpo": Centre(by="group", scale="group", ddof=ddof, eps=eps),
        "dr_grpo": Centre(by="group", scale=None),
        "reinforce": Score(),
    }
    reduction: Reduction = "seq-mean-token-sum-norm" if base == "dr_grpo" else "seq-mean-token-mean"
    adam = Adam(learning_rate, (beta1, beta2), adam_eps, max_gradient_norm=max_gradient_norm, warmup=warmup)
    return Method(
        slug="capo",
        advantage=advantages[base],
        losses={"policy": Term(ClippedRatio(clip, clip), keep=region, reduction=reduction, count="kept")},
        plan=Plan(),
        step=adam if optimiser == "adam" else SGD(learning_rate, max_gradient_norm=max_gradient_norm),
    )
