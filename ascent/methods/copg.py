"""Contrastive policy gradient: right on any data, since the baseline is another response's regularised reward.

For two responses of one prompt, sampled by anyone, with lr(y) = log pi(y) - log pi_ref(y) summed over tokens and
R_b(y) = R(y) - b lr(y), maximise

    l(y, y') = (R_{beta/2}(y) - R_{beta/2}(y')) (lr(y) - lr(y'))                                         (eqs. 7-9)
             = D_R^2 / (2 beta) - (D_R - beta D)^2 / (2 beta),          D_R = R(y) - R(y'), D = lr(y) - lr(y')
    grad l   = (R_beta(y) - R_beta(y')) (grad log pi(y) - grad log pi(y'))                             (eqs. 18-19)

Its only maximiser is pi* ~ pi_ref exp(R / beta), whatever sampled the pairs (Theorem 1). With k responses,
l_k = 1/(k-1) sum_{i>j} l(y_i, y_j), whose gradient is RLOO's with k samples of the regularised reward. In terms of
deviations from the group's mean (written ~) every pair sum collapses, and the loss of a row is

    product    -k^2/(k-1) R~_{beta/2} lr~          squared    k^2/(k-1) (R~ - beta lr~)^2 / (2 beta)
    detached   -k sg[R_beta,i - mean_{j!=i} R_beta,j] log pi(y_i)

whose mean over rows is the mean over groups of -l_k, up to a constant; all three have the same gradient.

Flet-Berliac et al. 2024, arXiv 2406.19185 (no official code; the k-sample form is Cohere's Command A, derived here).
No ratio, no clip, no length normalisation: each would move the fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.pairs import deviation, group_cells, on_last, row_log_ratio, row_sum
from ascent.core.part import Part, State, Together
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.term import Term

Form = Literal["product", "squared", "detached"]


@dataclass(frozen=True)
class Contrast(Part):
    """-l_k of each group [N, T], spread over its rows, on their last decisions; 0 for a row alone in its group.

    Attributes:
        beta: > 0, weight of the KL to the reference.
        form: "product" (the paper), "squared" regression, or "detached" advantages, which alone may be split
            within a group, at the price of one evaluation before the first gradient.
    """

    beta: float
    form: Form = "product"
    needs = frozenset({"log_prob", "reference_log_prob", "reward", "group"})

    @property
    def prepares(self) -> frozenset[str]:
        return frozenset({"log_prob"}) if self.form == "detached" else frozenset()

    @property
    def keep_together(self) -> Together:
        return "row" if self.form == "detached" else "group"

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        if self.form != "detached" or evaluation is None:
            return {}
        cell, count, present = group_cells(decisions)
        score = row_sum(decisions.reward, decisions.mask) - self.beta * row_log_ratio(evaluation, decisions)
        size = count.to(score.dtype)
        leave_one_out = deviation(score, cell, count, present) * size / (size - 1).clamp(min=1)
        return {"contrast": size * leave_one_out}

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        if self.form == "detached":
            log_prob = row_sum(evaluation.log_prob, decisions.mask)
            return on_last(-decisions.column("contrast", "Contrast") * log_prob, decisions)
        cell, count, present = group_cells(decisions)
        size = count.to(evaluation.log_prob.dtype)
        pairs = size.square() / (size - 1).clamp(min=1)
        score = deviation(row_sum(decisions.reward, decisions.mask), cell, count, present)
        ratio = deviation(row_log_ratio(evaluation, decisions), cell, count, present)
        if self.form == "squared":
            row = pairs * (score - self.beta * ratio) ** 2 / (2 * self.beta)
            return on_last(torch.where(count > 1, row, torch.zeros_like(row)), decisions)
        return on_last(-pairs * (score - 0.5 * self.beta * ratio) * ratio, decisions)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """`log_ratio`: mean over decisions of the row's log-ratio to the reference, nats per row."""
        return {"log_ratio": row_log_ratio(evaluation, decisions)[:, None].expand(decisions.mask.shape)}


@register(
    "copg",
    title="Contrastive policy gradient: aligning LLMs on sequence-level scores in a supervised-friendly fashion",
    paper="Flet-Berliac et al., preprint",
    year=2024,
    url="https://arxiv.org/abs/2406.19185",
    family="language",
)
def copg(
    beta: float = 0.06,
    form: Form = "product",
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
    warmup: int = 0,
) -> Method:
    """Contrastive policy gradient on scored groups of responses, on or off policy.

    Args:
        beta: weight of the KL to the reference, > 0; only R / beta matters for the optimum. 0.06 is the paper's best.
        form: "product", "squared" or "detached": three losses with one gradient.
        passes: walks over each collection, >= 1; the paper walks its data twice.
        minibatches: optimiser steps per pass, >= 1; groups are never cut.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the paper's 7B model uses 1e-6.
        warmup: first steps over which the rate rises, >= 0; the paper takes 10% of the run.
    """
    within("beta", beta, "(0, inf)", "Use 0.06 for rewards of scale 1; below 0.03 the paper reports collapse")
    one_of("form", form, ("product", "squared", "detached"))
    whole("passes", passes, 1, "Use 1 on fresh data")
    whole("minibatches", minibatches, 1, "Use 1 to take one step per batch")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    whole("warmup", warmup, 0, "Use 0 for none")
    return Method(
        slug="copg",
        losses={"contrast": Term(Contrast(beta, form), unit="row", reduction="seq-mean-token-sum")},
        plan=Plan(passes=passes, minibatches=minibatches, unit="group"),
        step=Adam(learning_rate=learning_rate, warmup=warmup),
    )
