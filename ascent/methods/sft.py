"""Supervised fine-tuning: imitate demonstrations. A policy gradient whose every advantage is 1.

    minimise  -(1/M) sum_t log pi(a_t | s_t)        over the M decisions of recorded demonstrations

With `weight="probability"` it is dynamic fine-tuning (DFT, Wu et al. 2025, arXiv 2508.05629): each token is weighted by
its own probability, without gradient, -sg[pi(a_t)] log pi(a_t). A baseline of one-token rollouts.

It is here so that a cold start is a phase of the same loop. Source: maximum likelihood; as the start of
reinforcement learning from human feedback in Ouyang et al. 2022, arXiv 2203.02155, section 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Part
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.reductions import REDUCTIONS, Reduction
from ascent.core.registry import register
from ascent.core.shaping import Constant
from ascent.core.surrogates import LogProb
from ascent.core.term import Term


@dataclass(frozen=True)
class OwnProbability(Part):
    """-sg[pi(a)] log pi(a) [N, T]: DFT's loss."""

    needs = frozenset({"log_prob"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return -evaluation.log_prob.detach().exp() * evaluation.log_prob


@register(
    "sft",
    title="Supervised fine-tuning",
    paper="Ouyang et al., NeurIPS",
    year=2022,
    url="https://arxiv.org/abs/2203.02155",
    family="supervised",
    status="baseline",
)
def sft(
    reduction: Reduction = "token-mean",
    weight: Literal["one", "probability"] = "one",
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
) -> Method:
    """Maximum likelihood of demonstrations.

    Args:
        reduction: how token losses add up, a name of `core/reductions.py`.
        weight: of a token's loss: "one", or its own "probability" (dynamic fine-tuning).
        passes: walks over each batch of demonstrations, >= 1.
        minibatches: optimiser steps per pass, >= 1.
        learning_rate: of Adam, > 0; 1e-3 suits the embedded one-million-parameter model, 1e-5 large ones.
        weight_decay: decoupled decay, >= 0.
    """
    one_of("reduction", reduction, REDUCTIONS)
    one_of("weight", weight, ("one", "probability"))
    whole("passes", passes, 1, "One pass over fresh demonstrations is usual")
    whole("minibatches", minibatches, 1, "Use 1 to take one step per batch")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-3 for a small model")
    within("weight_decay", weight_decay, "[0, inf)", "Use 0 for none")
    return Method(
        slug="sft",
        advantage=Constant(1.0),
        losses={"policy": Term(LogProb() if weight == "one" else OwnProbability(), reduction=reduction)},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate, weight_decay=weight_decay),
    )
