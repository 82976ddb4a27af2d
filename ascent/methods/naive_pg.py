"""Naive off-policy policy gradient: REINFORCE with the KL in the reward, on data that another policy sampled.

    A(y) = R(y) - beta log(pi / pi_ref)(y) - b          detached, the present pi
    loss = -(1/N) sum_i A(y_i) log pi(y_i)              no importance weight

Unbiased where pi sampled the data; elsewhere its fixed point is not the KL-regularised optimum. It is the baseline
that `copg` is measured against (Flet-Berliac et al. 2024, arXiv 2406.19185, section 5.1): b = 0, or the "value
baseline" b = E_pi[R | x] without the KL term, brought as a recorded column `baseline` [N].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.pairs import on_last, row_log_ratio, row_sum
from ascent.core.part import Part
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.term import Term


@dataclass(frozen=True)
class Naive(Part):
    """-sg[R - beta lr - b] log pi [N, T], one number a row, on its last decision.

    Attributes:
        beta: >= 0, weight of the KL to the reference.
        baseline: "none" for b = 0, "column" for the recorded column `baseline` [N].
    """

    beta: float
    baseline: Literal["none", "column"] = "none"

    @property
    def needs(self) -> frozenset[str]:
        column = {"baseline"} if self.baseline == "column" else set()
        return frozenset({"log_prob", "reference_log_prob", "reward"}) | column

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        if self.baseline == "none":
            return {}
        return {"baseline": torch.randn(len(decisions), generator=generator, dtype=torch.float64).to(decisions.reward)}

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        advantage = (
            row_sum(decisions.reward, decisions.mask) - self.beta * row_log_ratio(evaluation, decisions).detach()
        )
        if self.baseline == "column":
            advantage = advantage - decisions.column("baseline", "Naive")
        return on_last(-advantage * row_sum(evaluation.log_prob, decisions.mask), decisions)


@register(
    "naive_pg",
    title="Naive off-policy policy gradient, a baseline of Contrastive policy gradient",
    paper="Flet-Berliac et al., preprint",
    year=2024,
    url="https://arxiv.org/abs/2406.19185",
    family="language",
    status="baseline",
)
def naive_pg(
    beta: float = 0.06,
    baseline: Literal["none", "column"] = "none",
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
) -> Method:
    """Policy gradient on another policy's data without importance weights; biased, kept as a control arm.

    Args:
        beta: weight of the KL to the reference inside the reward, >= 0.
        baseline: "none", or "column": the recorded column `baseline` [N], E_pi[R | x] in the paper.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model.
    """
    within("beta", beta, "[0, inf)", "Use 0.06 for rewards of scale 1")
    one_of("baseline", baseline, ("none", "column"))
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 1 to take one step per batch")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    return Method(
        slug="naive_pg",
        losses={"policy": Term(Naive(beta, baseline), unit="row", reduction="seq-mean-token-sum")},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
