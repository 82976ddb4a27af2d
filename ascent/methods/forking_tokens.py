"""Forking tokens: DAPO whose policy gradient acts on the tokens of highest entropy only.

In a chain of thought most tokens are nearly determined; a few, where the policy hesitates, decide where it goes:

    H_t = -sum_j p_tj log p_tj,    p_t = softmax(z_t / T) of the policy that is trained            no gradient through H
    tau = the k-th largest H among the n tokens of the update, k = max(1, ceil(rho n))
    loss = 1 / D  sum_t [H_t >= tau] max(-A_t r_t, -A_t clip(r_t, 1 - low, 1 + high))                          (eq. 6)

D counts the selected tokens ("selected", version 2 of the paper) or all of them ("all", version 1 and TRL): the two
losses differ by the factor n_selected / n. A is the group-normalised score with DAPO's overlong shaping; groups of
equal scores are refused before the threshold is computed; there is no KL and no entropy bonus.

Wang et al. 2025, arXiv 2506.01939. Departures: one threshold for each optimiser step, however it is cut into
micro-batches (paper: each micro-batch); the buffer of the overlong shaping is a share of the budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.filters import Informative, Overlong
from ascent.core.method import Method
from ascent.core.part import Part, State
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.returns import Score
from ascent.core.selectors import Not, Top
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Selector, Term


@dataclass(frozen=True)
class Forks(Part):
    """The decisions that `of` selects [N, T]; logs the threshold tau and the entropy on both of its sides.

    Logged: `entropy_threshold`, the lowest entropy among the `top` decisions of an update; `entropy_selected` and
    `entropy_rest`, mean entropies.

    Attributes:
        of: the selection that the gradient follows.
        top: the decisions of highest entropy, which set the threshold.
    """

    of: Selector
    top: Top = field(default_factory=Top)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"entropy"})

    @property
    def prepares(self) -> frozenset[str]:
        return frozenset({"entropy"})

    def __call__(self, evaluation: Evaluation | None, decisions: Decisions) -> Tensor:
        return self.of(evaluation, decisions)

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        if evaluation is None:
            return {}
        entropy, mask = evaluation.entropy, decisions.mask
        chosen = self(evaluation, decisions)

        def mean(where: Tensor) -> Tensor:
            return torch.where(where, entropy, 0.0).sum() / where.sum().clamp(min=1)

        top = self.top(evaluation, decisions)
        threshold = torch.where(top, entropy, torch.inf).amin() if bool(top.any()) else entropy.new_zeros(())
        numbers = torch.stack([threshold, mean(chosen), mean(mask & ~chosen)])
        return {"forks": numbers.expand(len(decisions), -1)}

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        numbers = decisions.column("forks", "Forks")
        names = ("entropy_threshold", "entropy_selected", "entropy_rest")
        return {name: numbers[:, place, None] for place, name in enumerate(names)}


@register(
    "forking_tokens",
    title="Beyond the 80/20 rule: high-entropy minority tokens drive effective RL for LLM reasoning",
    paper="Wang et al., NeurIPS",
    year=2025,
    url="https://arxiv.org/abs/2506.01939",
    family="language",
)
def forking_tokens(
    rho: float = 0.2,
    select: Literal["top", "bottom", "random", "all"] = "top",
    normalise_by: Literal["selected", "all"] = "selected",
    ties: Literal["keep", "break"] = "keep",
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dynamic_sampling: bool = True,
    overlong_buffer: float = 0.2,
    overlong_limit: int | None = None,
    overlong_penalty: float = 1.0,
    ddof: int = 1,
    eps: float = 1e-6,
    passes: int = 1,
    minibatches: int = 16,
    learning_rate: float = 1e-4,
) -> Method:
    """Policy gradient on the high-entropy minority of tokens.

    Args:
        rho: share of the update's tokens that fork, those KEPT, in [0, 1]; 0 keeps the greatest entropy only.
        select: "top" the forks, "bottom" all others (the paper's 80%), "random" as many by hash, "all" is DAPO.
        normalise_by: "selected" divides by the tokens that are kept (version 2), "all" by all tokens (version 1, TRL).
        ties: "keep" takes every token with H >= tau, "break" exactly k of them by hash.
        clip_low: epsilon below 1, >= 0; inf switches the bound off.
        clip_high: epsilon above 1, >= 0; clip-higher.
        dynamic_sampling: whether groups of equal scores are refused before any forward pass.
        overlong_buffer: share of the budget over which the length punishment rises, in [0, 1]; 0 switches it off.
        overlong_limit: budget in tokens, >= 1; None reads the budget that the sampler recorded.
        overlong_penalty: greatest deduction, > 0.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; the paper takes 16 per collection.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the paper's models use 1e-6.
    """
    within("rho", rho, "[0, 1]", "Use 0.2; it is the share that is kept, not the one dropped")
    one_of("select", select, ("top", "bottom", "random", "all"))
    if select == "bottom" and rho == 1:
        raise ValueError("rho must be < 1 with select='bottom', which keeps the other tokens; got 1. Use 0.2.")
    one_of("normalise_by", normalise_by, ("selected", "all"))
    one_of("ties", ties, ("keep", "break"))
    within("clip_low", clip_low, "[0, inf]", "Use 0.2; inf switches the bound off")
    within("clip_high", clip_high, "[0, inf]", "Use 0.28; inf switches the bound off")
    within("overlong_buffer", overlong_buffer, "[0, 1]", "Use 0.2, or 0 for no length shaping")
    if overlong_limit is not None:
        whole("overlong_limit", overlong_limit, 1, "Use the response budget in tokens, or None to read it")
    within("overlong_penalty", overlong_penalty, "(0, inf)", "Use 1, the reward of a correct response")
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-6")
    whole("passes", passes, 1, "Use 1")
    whole("minibatches", minibatches, 1, "Use 16 as the paper does")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")

    top = Top("entropy", float(rho), least=1, ties=ties)
    chosen: dict[str, Selector] = {
        "top": top,
        "bottom": Not(top),
        "random": Top("entropy", float(rho), order="random", least=1),
        "all": Top("entropy", 1.0),
    }
    score = Score()
    if overlong_buffer:
        score = Score(Overlong(limit=overlong_limit, buffer=float(overlong_buffer), penalty=overlong_penalty))
    policy = Term(
        ClippedRatio(low=clip_low, high=clip_high),
        keep=Forks(chosen[select], top),
        count="kept" if normalise_by == "selected" else "all",
    )
    return Method(
        slug="forking_tokens",
        advantage=Centre(of=score, by="group", scale="group", ddof=ddof, eps=eps),
        accept=Informative() if dynamic_sampling else None,
        losses={"policy": policy},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate),
    )
