"""One-token rollout: at every supervised position, REINFORCE on tokens that the policy itself would have written.

Each position of a demonstration is an episode of one step: the state is the true prefix, the action a next token.

    a_k ~ pi'(. | s_t) = softmax(z_t / kappa),   k = 1..K, with replacement
    R(a) = 1 if a is the true token, else beta
    L = -(1/T) sum_t (1/K) sum_k sg[R(a_k)] log pi(a_k | s_t)                                                 (eq. 8)
      = -(1/T) sum_t sum_v sg[c_v R_v] log pi(v | s_t),       c_v = how often v was drawn, over K

    exact twin, K to infinity:    c_v = pi'(v);    at kappa = 1 its gradient is (1 - beta) times that of DFT,
                                  -sg[pi(x_t)] log pi(x_t), for any beta

Only the sampler is tempered; no importance correction, no baseline. No second forward pass: the logits are there.

Ming et al. 2025, arXiv 2509.26313. No official code was found and the full text was not read: loss, reward, K, the
tempered sampler, 1/T and the stop-gradient are confirmed by public reviews; beta = -0.1 and kappa are not verified. The
exact twin and its relation to DFT are derived here and tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Part, State
from ascent.core.plan import Adam, Plan
from ascent.core.random import key, mix, uniform
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.term import Term

PURPOSE = key("one-token rollout")


def draw_shares(logits: Tensor, keys: Tensor, samples: int, kappa: float) -> Tensor:
    """c [M, V]: the share of `samples` draws, with replacement, that fell on each token; no gradient.

    Args:
        logits: [M, V].
        keys: [M] int64, what names the draws of a position.
        samples: K >= 1.
        kappa: > 0, temperature of the sampler.
    """
    cumulative = (logits.detach().double() / kappa).softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    goal = uniform(keys[:, None].cpu(), torch.arange(samples)).to(logits.device) * total
    token = torch.searchsorted(cumulative, torch.minimum(goal, total.nextafter(torch.zeros_like(total))), right=True)
    shares = torch.zeros_like(cumulative).scatter_add_(1, token, torch.ones_like(goal))
    return (shares / samples).to(logits.dtype)


@dataclass(frozen=True)
class OneToken(Part):
    """The loss of one-token rollouts per decision [N, T], which the policy computes where its logits are.

    The policy calls `bandit` on the logits of each chunk of decisions and gives what it returns as probes.

    Attributes:
        samples: K, draws per position.
        beta: reward of a token that is not the true one.
        kappa: temperature of the sampler.
        estimator: "sampled", or "exact": the expectation over all draws.
        seed: of the draws.

    State: how many updates were taken, so that a demonstration that comes again is drawn for anew.
    """

    samples: int = 256
    beta: float = -0.1
    kappa: float = 1.3
    estimator: Literal["sampled", "exact"] = "sampled"
    seed: int = 0

    needs = frozenset({"log_prob", "action", "probe:one_token", "probe:one_token_hits"})

    def start(self) -> State:
        return {"updates": torch.zeros((), dtype=torch.int64)}

    def annotate(self, decisions: Decisions, state: State) -> Columns:
        """`one_token_key` [N, T]: what names the draws of each position, whatever rows stand beside it."""
        place = decisions.mask.cumsum(1)
        row = decisions.per_decision("key") if "key" in decisions else torch.arange(len(place))[:, None]
        words = (place.cpu(), state["updates"].cpu(), self.seed, PURPOSE)
        return {"one_token_key": mix(row.cpu().expand(place.shape), *words).to(place.device)}

    def after(self, decisions: Decisions, totals: Columns, state: State) -> State:
        return {"updates": state["updates"] + 1}

    def bandit(self, logits: Tensor, target: Tensor, keys: Tensor) -> Columns:
        """The probes at M positions: `one_token` the loss, `one_token_hits` the share of draws on the true token.

        Args:
            logits: [M, V], at least float32, with gradient.
            target: [M] the demonstration's tokens.
            keys: [M] `one_token_key`.
        """
        if self.estimator == "exact":
            shares = (logits.detach() / self.kappa).softmax(-1)
        else:
            shares = draw_shares(logits, keys, self.samples, self.kappa)
        return {"one_token": self.loss(logits, target, shares), "one_token_hits": _at(shares, target)}

    def loss(self, logits: Tensor, target: Tensor, shares: Tensor) -> Tensor:
        """[M] -sum_v c_v R_v log pi(v); with all shares on the true token it is supervised fine-tuning."""
        right = torch.zeros_like(shares, dtype=torch.bool).scatter_(1, target[:, None], True)
        weight = torch.where(right, shares, self.beta * shares).detach()
        # A token that was not drawn adds nothing, also where its log-probability is -infinity.
        log_prob = logits.log_softmax(-1)
        return -torch.where(weight != 0, weight * log_prob, 0.0).sum(-1)

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return evaluation.column("one_token", "OneToken")

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """`hit_positions`: share of positions whose draws hold the true token; mean `hits`; its `probability`."""
        hits = evaluation.column("one_token_hits", "OneToken")
        return {"hit_positions": hits > 0, "hits": hits, "probability": evaluation.log_prob.exp()}


def _at(shares: Tensor, target: Tensor) -> Tensor:
    return shares.gather(1, target[:, None])[:, 0]


@register(
    "otr",
    title="One-token rollout: guiding supervised fine-tuning of LLMs with policy gradient",
    paper="Ming et al., preprint",
    year=2025,
    url="https://arxiv.org/abs/2509.26313",
    family="supervised",
)
def otr(
    samples: int = 256,
    beta: float = -0.1,
    kappa: float = 1.3,
    estimator: Literal["sampled", "exact"] = "sampled",
    reduction: Literal["seq-mean-token-mean", "token-mean"] = "seq-mean-token-mean",
    seed: int = 0,
    passes: int = 1,
    minibatches: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
) -> Method:
    """One-token rollouts over demonstrations.

    Args:
        samples: K, tokens drawn per position, >= 1.
        beta: reward of a wrong token, <= 1; slightly negative pushes sampled wrong tokens down, at 1 nothing is learnt.
        kappa: temperature of the sampler, > 0; above 1 it explores, 1 is on policy. The loss is never tempered.
        estimator: "sampled" as the paper, or "exact", its expectation without noise.
        reduction: "seq-mean-token-mean" averages within each demonstration first (paper); "token-mean" does not.
        seed: of the draws, >= 0.
        passes: walks over each batch of demonstrations, >= 1; later ones repeat the draws of the first.
        minibatches: optimiser steps per pass, >= 1.
        learning_rate: of Adam, > 0; as for sft.
        weight_decay: decoupled decay, >= 0.
    """
    whole("samples", samples, 1, "Use 256 as the paper does")
    within("beta", beta, "(-inf, 1]", "Use -0.1, or 0 for no push on wrong tokens")
    within("kappa", kappa, "(0, inf)", "Use 1.3, or 1 to sample from the policy itself")
    one_of("estimator", estimator, ("sampled", "exact"))
    one_of("reduction", reduction, ("seq-mean-token-mean", "token-mean"))
    whole("seed", seed, 0, "Use 0")
    whole("passes", passes, 1, "One pass over fresh demonstrations is usual")
    whole("minibatches", minibatches, 1, "Use 1 to take one step per batch")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-3 for a small model")
    within("weight_decay", weight_decay, "[0, inf)", "Use 0 for none")
    rollout = OneToken(samples, beta, kappa, estimator, seed)
    return Method(
        slug="otr",
        losses={"policy": Term(rollout, reduction=reduction)},
        plan=Plan(passes=passes, minibatches=minibatches),
        step=Adam(learning_rate=learning_rate, weight_decay=weight_decay),
    )
