"""The entropy mechanism of RL for reasoning models: Clip-Cov and KL-Cov.

Policy gradients trade entropy for reward, R = -a exp(H) + b, because for softmax policies one step changes entropy by
minus the covariance of log pi with the advantage (Theorems 1 and 2 of the paper). A few tokens carry nearly all of it:

    Cov_t = (log pi_t - mean log pi)(A_t - mean A)              means over the N tokens of the update        (eq. 10)

    Clip-Cov   drop the gradient of max(floor(r N), 1) random tokens with omega_low < Cov_t < omega_high    (eqs. 11-12)
               loss = 1/N sum_t [t kept] max(-A_t r_t, -A_t clip(r_t, 1 - low, 1 + high))
    KL-Cov     penalise the max(floor(k N), 1) tokens of greatest covariance                                (eqs. 13-14)
               loss = 1/N sum_t -A_t r_t + beta [t chosen] |log pi_t - log pi_old_t|

Cui et al. 2025, arXiv 2505.22617; code PRIME-RL/Entropy-Mechanism-of-RL. Departures: covariance and selection are over
the whole update (paper: batch; code: micro-batch, so the choice depended on packing); a dropped token has loss 0 (code;
the paper's listing keeps the value and detaches it, the gradient is the same); log-ratios are limited to 20 nats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.decisions import Columns, Decisions
from ascent.core.divergences import Divergence, Entropy
from ascent.core.evaluation import Evaluation
from ascent.core.filters import Informative
from ascent.core.method import Method
from ascent.core.pairs import deviation, group_cells, row_sum
from ascent.core.part import Part, State
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.selectors import Band, Not
from ascent.core.surrogates import ClippedRatio, Ratio
from ascent.core.term import Term

SHARES = (2e-4, 2e-3, 2e-2, 0.2, 0.5)
"""The shares of tokens whose mean covariance is logged, as in the paper's table of extreme covariances."""

ACCURACIES = (0.125, 0.5, 0.875)
"""The levels of group accuracy by which the covariance of responses is logged: hard, middle, easy prompts."""


def top_means(covariance: Tensor, mask: Tensor, shares: Sequence[float] = SHARES) -> Tensor:
    """[len(shares)] mean covariance of the greatest `share` of the decisions, at least one of them; 0 where none is.

    Args:
        covariance, mask: [N, T].
        shares: each in (0, 1].
    """
    ordered = covariance[mask].sort(descending=True).values
    if not len(ordered):
        return covariance.new_zeros(len(shares))
    sizes = [max(int(share * len(ordered) + 1e-9), 1) for share in shares]
    return torch.stack([ordered[:size].mean() for size in sizes])


@dataclass(frozen=True)
class Covariance(Part):
    """Cov_t [N, T] (eq. 10): its mean over the decisions is the covariance of log pi and the advantage.

    Logged: the mean, `covariance`, and the means of the greatest of an update, `covariance_top/<share>`.
    """

    needs = frozenset({"log_prob", "advantage"})
    prepares = frozenset({"log_prob"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        mask, count = decisions.mask, decisions.mask.sum().clamp(min=1)

        def centred(column: Tensor) -> Tensor:
            return torch.where(mask, column - torch.where(mask, column, 0.0).sum() / count, 0.0)

        return centred(evaluation.log_prob.detach()) * centred(decisions.advantage)

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        if evaluation is None:
            return {}
        covariance = self(evaluation, decisions)
        top = top_means(covariance, decisions.mask)
        return {"covariance": covariance, "covariance_top": top.expand(len(decisions), -1)}

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        top = decisions.column("covariance_top", "Covariance")
        tops = {f"covariance_top/{share:g}": top[:, place, None] for place, share in enumerate(SHARES)}
        return {"covariance": decisions.column("covariance", "Covariance"), **tops}


@dataclass(frozen=True)
class ResponseCovariance(Part):
    """The credit `of`, unchanged; logs the covariance between responses, the paper's check of its theorems.

    Over the responses of each prompt, of the mean token log-prob with the advantage (Theorem 2, `response_covariance`)
    and with pi A (Theorem 1, `response_covariance/policy`, pi the geometric mean token probability), averaged over
    the prompts of a collection; and the first by the group's accuracy, `response_covariance/accuracy_<level>`, over
    the groups that are nearest to the level. It is on-policy: log-probs are those at the start of the collection.

    Attributes:
        of: the credit, one number a response.
        levels: of accuracy, the mean total reward of a group.
    """

    of: Centre = field(default_factory=Centre)
    levels: tuple[float, ...] = ACCURACIES

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"group", "reward", "old_log_prob"}

    def __call__(self, decisions: Decisions) -> Tensor:
        return self.of(decisions)

    def annotate(self, decisions: Decisions, state: State) -> Columns:
        if "old_log_prob" not in decisions:
            return {}
        found = self.averages(decisions)
        one = decisions.reward.new_ones(len(decisions))
        return {name: one * average for name, average in found.items()}

    def averages(self, decisions: Decisions) -> dict[str, Tensor]:
        """The numbers that are logged, scalars; a level without groups is left out."""
        cell, count, present = group_cells(decisions)
        length = decisions.mask.sum(1).clamp(min=1)
        log_prob = row_sum(decisions.old_log_prob, decisions.mask) / length
        advantage = row_sum(self.of(decisions), decisions.mask) / length
        score = row_sum(decisions.reward, decisions.mask)
        accuracy = score - deviation(score, cell, count, present)
        # Every prompt weighs the same, however many responses it has.
        weight = present.to(score.dtype) / count.clamp(min=1)

        def average(credit: Tensor, rows: Tensor) -> Tensor:
            product = deviation(log_prob, cell, count, present) * deviation(credit, cell, count, present)
            return (weight * product)[rows].sum() / weight[rows].sum()

        if not bool(present.any()):
            return {}
        found = {
            "response_covariance": average(advantage, present),
            "response_covariance/policy": average(log_prob.exp() * advantage, present),
        }
        nearest = (accuracy[:, None] - accuracy.new_tensor(self.levels)).abs().argmin(1)
        for place, level in enumerate(self.levels):
            rows = present & (nearest == place)
            if bool(rows.any()):
                found[f"response_covariance/accuracy_{level:g}"] = average(advantage, rows)
        return found

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        names = [name for name in decisions.extras if name.startswith("response_covariance")]
        return {name: decisions.column(name)[:, None] for name in names}


@dataclass(frozen=True)
class Candidate(Part):
    """1 [N, T] where Clip-Cov may drop: covariance strictly inside the bounds, not cut by the PPO clip; else 0.

    Attributes:
        low, high: omega bounds of the covariance, or their quantiles within the update if `bounds="quantile"`.
        bounds: "value" (the paper) or "quantile" (the covariance scale depends on the model).
        clip_low, clip_high: of the PPO clip beside it.
        of: the covariance.
    """

    low: float
    high: float
    bounds: Literal["value", "quantile"]
    clip_low: float
    clip_high: float
    of: Covariance = field(default_factory=Covariance)
    needs = frozenset({"log_prob", "old_log_prob", "advantage"})
    prepares = frozenset({"log_prob"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        covariance, advantage = self.of(evaluation, decisions), decisions.advantage
        low, high = torch.full_like(covariance[:1, :1], self.low), torch.full_like(covariance[:1, :1], self.high)
        if self.bounds == "quantile" and bool(decisions.mask.any()):
            ordered = covariance[decisions.mask].sort().values
            low, high = (ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in (self.low, self.high))
        ratio = (evaluation.log_prob - decisions.old_log_prob).exp()
        cut = ((ratio > 1 + self.clip_high) & (advantage > 0)) | ((ratio < 1 - self.clip_low) & (advantage < 0))
        return ((covariance > low) & (covariance < high) & ~cut & decisions.mask).to(covariance.dtype)


@register(
    "entropy_mechanism",
    title="The entropy mechanism of reinforcement learning for reasoning language models",
    paper="Cui et al., preprint",
    year=2025,
    url="https://arxiv.org/abs/2505.22617",
    family="language",
)
def entropy_mechanism(
    variant: Literal["clip_cov", "kl_cov"] = "clip_cov",
    clip_fraction: float = 2e-4,
    covariance_low: float = 1.0,
    covariance_high: float = 5.0,
    bounds: Literal["value", "quantile"] = "value",
    clip_low: float = 1.0,
    clip_high: float = 1.0,
    kl_fraction: float = 2e-3,
    kl_coefficient: float = 1.0,
    kl_kind: Literal["abs", "k1", "k2", "k3"] = "abs",
    control: bool = False,
    entropy_coefficient: float = 0.0,
    dynamic_sampling: bool = True,
    diagnostics: bool = False,
    ddof: int = 1,
    eps: float = 1e-6,
    passes: int = 1,
    minibatches: int = 8,
    learning_rate: float = 1e-4,
) -> Method:
    """Covariance-aware policy gradient that keeps entropy.

    Args:
        variant: "clip_cov" drops gradients, "kl_cov" adds a penalty; clip_cov also acts on policy, kl_cov does not.
        clip_fraction: r, share of tokens whose gradient Clip-Cov drops (at least one), in [0, 1]; 0 drops none.
        covariance_low: omega_low, candidates have a greater covariance.
        covariance_high: omega_high, candidates have a smaller covariance.
        bounds: "value", or "quantile": the two omegas are shares in [0, 1] of the update's sorted covariances.
        clip_low: PPO clip of Clip-Cov below 1, >= 0; the official 1.0 is a safeguard only, verl's default is 0.2.
        clip_high: PPO clip of Clip-Cov above 1, >= 0.
        kl_fraction: k, share of tokens that KL-Cov penalises (at least one), in [0, 1]; the code's is in percent.
        kl_coefficient: beta of KL-Cov, >= 0; the paper's 1, verl's configuration says 0.1.
        kl_kind: estimator of KL-Cov's divergence to the old policy; the code's is the absolute log-ratio.
        control: choose as many tokens at random instead, the arm that would expose a sham.
        entropy_coefficient: weight of an entropy bonus, >= 0 (the paper's failing remedy, for comparison).
        dynamic_sampling: whether groups of equal scores are refused (all correct or all wrong).
        diagnostics: whether the covariance between responses, also by accuracy of the group, is logged.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; the paper takes 8 per rollout.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the paper's 7B model uses 5e-7.
    """
    one_of("variant", variant, ("clip_cov", "kl_cov"))
    one_of("bounds", bounds, ("value", "quantile"))
    one_of("kl_kind", kl_kind, ("abs", "k1", "k2", "k3"))
    one_of("ddof", ddof, (0, 1))
    within("clip_fraction", clip_fraction, "[0, 1]", "Use 2e-4, more where an update has few tokens")
    within("kl_fraction", kl_fraction, "[0, 1]", "Use 2e-3; the official script's 0.2 is a percentage")
    ends = "[0, 1]" if bounds == "quantile" else "[-inf, inf]"
    within("covariance_low", covariance_low, ends, "Use 1, or 0.99 with bounds='quantile'")
    within("covariance_high", covariance_high, ends, "Use 5, or 0.9999 with bounds='quantile'")
    if covariance_low >= covariance_high:
        raise ValueError(
            f"covariance_low must be < covariance_high; got {covariance_low!r} and {covariance_high!r}. Use 1 and 5."
        )
    for name, number in (("clip_low", clip_low), ("clip_high", clip_high)):
        within(name, number, "[0, inf]", "Use 1.0 as the official scripts do")
    for name, number in (
        ("kl_coefficient", kl_coefficient),
        ("entropy_coefficient", entropy_coefficient),
        ("eps", eps),
    ):
        within(name, number, "[0, inf)", "Use the default")
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 8 as the paper does")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")

    if variant == "clip_cov":
        candidate = Candidate(covariance_low, covariance_high, bounds, clip_low, clip_high)
        dropped = Band(candidate, low=1.0, fraction=clip_fraction, control=control)
        losses = {"policy": Term(ClippedRatio(low=clip_low, high=clip_high), keep=Not(dropped))}
    else:
        chosen = Band(Covariance(), fraction=kl_fraction, order="high", control=control)
        penalty = Term(Divergence(kl_kind, against="old"), kl_coefficient, keep=chosen)
        losses = {"policy": Term(Ratio()), "kl_cov": penalty}
    if entropy_coefficient:
        losses["entropy"] = Term(Entropy(), entropy_coefficient)
    advantage = Centre(by="group", scale="group", ddof=ddof, eps=eps)
    return Method(
        slug="entropy_mechanism",
        advantage=ResponseCovariance(advantage) if diagnostics else advantage,
        accept=Informative() if dynamic_sampling else None,
        losses=losses,
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
