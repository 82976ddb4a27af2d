"""P3O: a trajectory-wise PPO on pairs, which only ever sees differences of rewards within a prompt.

Two responses y_1, y_2 ~ pi_old of one prompt; log pi_i sums over response tokens, l_i = log pi_i - log pi_ref_i,
rho_i = pi(y_i) / pi_old(y_i), R_i = r_i - beta l_i, q = R_1 - R_2. The gradient is unbiased for that of E[R]:

    grad J = E_{y1, y2 ~ pi_old} [ q rho_1 rho_2 grad log(pi(y_1) / pi(y_2)) ] / 2

    V1  maximise sum_i min(L_i, L_i^clip) / 2,   L_i = sg[(R_i - R_j) rho_j] rho_i, in L_i^clip clip(rho_i, 1 -+ eps)
    V2  maximise min(q w d, q w clip(d, d_old -+ eps)) / 2,         w = sg[rho_1 rho_2],  d = log pi(y_1) - log pi(y_2)

A prompt-wise shift r(x, y) + delta(x), which Bradley-Terry comparisons leave open, cancels in q.

Wu et al. 2023, arXiv 2310.00212; V2 and the token-wise options as in the first author's code (thwu1/trlx), where w is
limited to [1/c, c]. V1's formula is reconstructed from the theorem and PPO's form; its typesetting is not verified.
With more than two responses a prompt has disjoint pairs (the paper leaves it open).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.pairs import on_last, partners, row_sum
from ascent.core.part import Part, State
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.surrogates import LIMIT
from ascent.core.term import Term

Clip = Literal["joint", "separate", "token"]


@dataclass(frozen=True)
class Pairwise(Part):
    """The loss of pairs [N, T], on the last decisions of their rows; with "token" on every decision.

    Attributes:
        beta: weight of the KL to the reference inside the reward, >= 0.
        clip: "separate" (V1) each ratio, "joint" (V2) the difference of log-ratios, "token" every log-prob.
        eps: distance of the clip, > 0.
        ratio_limit: c >= 1, w stays in [1/c, c]; V1's sg[rho_j] too.
        kl_at: whether l_i in R_i is of the policy that sampled ("collection") or of the present one ("current").
        reward_clip: scores are limited to +-this; None does not limit.
        reward_scale: "difference" divides scores by the running deviation of differences within pairs, over root 2;
            "running" by that of the scores themselves, as the code does, which breaks the exact invariance.

    State: count, mean and summed squared deviation of what the scale is made of.
    """

    beta: float = 0.05
    clip: Clip = "joint"
    eps: float = 0.2
    ratio_limit: float = 10.0
    kl_at: Literal["collection", "current"] = "collection"
    reward_clip: float | None = None
    reward_scale: Literal["none", "difference", "running"] = "none"

    keep_together = "group"

    @property
    def needs(self) -> frozenset[str]:
        reference = {"reference_log_prob"} if self.beta else set()
        return frozenset({"log_prob", "old_log_prob", "reward", "group"} | reference)

    def start(self) -> State:
        if self.reward_scale == "none":
            return {}
        return {name: torch.zeros((), dtype=torch.float64) for name in ("count", "mean", "squares")}

    def scores(self, decisions: Decisions) -> Tensor:
        """[N] r_i, limited to the clip."""
        score = row_sum(decisions.reward, decisions.mask)
        return score if self.reward_clip is None else score.clamp(-self.reward_clip, self.reward_clip)

    def annotate(self, decisions: Decisions, state: State) -> Columns:
        """`score_scale` [N]: what this and earlier collections say of the deviation; 1 before there is any."""
        if self.reward_scale == "none":
            return {}
        found = self._joined(decisions, state)
        variance = found["squares"] / (found["count"] - 1).clamp(min=1)
        root = variance.sqrt() / (2**0.5 if self.reward_scale == "difference" else 1.0)
        scale = torch.where(root > 0, root, 1.0).to(decisions.reward.dtype)
        return {"score_scale": scale.expand(len(decisions))}

    def _joined(self, decisions: Decisions, state: State) -> State:
        """The running statistics with those of these rows (Chan et al. 1979)."""
        score = self.scores(decisions).double()
        if self.reward_scale == "difference":
            partner, paired = partners(decisions)
            numbers = (score - score[partner])[paired]  # both signs of each, so that the mean is 0
        else:
            numbers = score[decisions.mask.any(1)]
        count = state["count"] + len(numbers)
        mean = numbers.mean() if len(numbers) else score.new_zeros(())
        gap = mean - state["mean"]
        squares = (numbers - mean).square().sum() + gap**2 * state["count"] * len(numbers) / count.clamp(min=1)
        moved = gap * len(numbers) / count.clamp(min=1)
        return {"count": count, "mean": state["mean"] + moved, "squares": state["squares"] + squares}

    def after(self, decisions: Decisions, totals: Columns, state: State) -> State:
        return state if self.reward_scale == "none" else self._joined(decisions, state)

    def pair(self, evaluation: Evaluation, decisions: Decisions) -> dict[str, Tensor]:
        """Of each row [N], seen from it as y_1: q (`gain`), d and d_old (`gap`s), log rho, the weights w and rho_j."""
        partner, paired = partners(decisions)
        now, old = (row_sum(x, decisions.mask) for x in (evaluation.log_prob, decisions.old_log_prob))
        frozen = row_sum(decisions.reference_log_prob, decisions.mask) if self.beta else torch.zeros_like(old)
        score = self.scores(decisions)
        score = score / decisions.column("score_scale", "Pairwise") if self.reward_scale != "none" else score
        regularised = score - self.beta * ((now if self.kl_at == "current" else old).detach() - frozen)
        log_rho = now - old
        limit = min(math.log(self.ratio_limit), LIMIT)
        gain = torch.where(paired, regularised - regularised[partner], 0.0)
        both = (log_rho + log_rho[partner]).detach()
        return {
            "score": score,
            "gain": gain,
            "log_ratio": now - frozen,
            "gap": now - now[partner],
            "old_gap": old - old[partner],
            "log_rho": log_rho.clamp(-LIMIT, LIMIT),
            "weight": both.clamp(-limit, limit).exp(),
            "other": log_rho[partner].detach().clamp(-limit, limit).exp(),
            "paired": paired,
        }

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        pair = self.pair(evaluation, decisions)
        if self.clip == "token":
            cost = (-pair["gain"] * pair["weight"])[:, None]
            log_prob, old = evaluation.log_prob, decisions.old_log_prob
            return torch.maximum(cost * log_prob, cost * torch.clamp(log_prob, old - self.eps, old + self.eps))
        if self.clip == "joint":
            cost, ratio, middle = -pair["gain"] * pair["weight"], pair["gap"], pair["old_gap"]
        else:
            cost, ratio, middle = -pair["gain"] * pair["other"], pair["log_rho"].exp(), torch.ones_like(pair["gap"])
        clipped = torch.clamp(ratio, middle - self.eps, middle + self.eps)
        loss = torch.maximum(cost * ratio, cost * clipped)
        # V2's loss of a pair is one number, which its two rows share; V1 has a term for each row.
        return on_last(torch.where(pair["paired"], loss / 2 if self.clip == "joint" else loss, 0.0), decisions)

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        """What is no mean over decisions, of the whole update; at hand where an update is one micro-batch."""
        scale = {} if "score_scale" in decisions else self.annotate(decisions, state)
        decisions = decisions.with_extras(scale)
        if evaluation is None or not bool(decisions.mask.any()):
            return scale
        pair = self.pair(evaluation, decisions)
        paired = pair["paired"]
        if not bool(paired.any()):
            return scale
        partner, _ = partners(decisions)
        score = pair["score"]
        difference = (score - score[partner])[paired]
        better = paired & (score > score[partner])
        ratio, gain = pair["log_rho"][paired].exp(), pair["gain"][paired]
        one = torch.ones_like(score)
        found = {
            "reward_difference": difference.abs().mean(),
            "reward_difference_std": difference.std(correction=0),
            "ratio_mean": ratio.mean(),
            "ratio_least": ratio.min(),
            "ratio_greatest": ratio.max(),
            "gain_abs": gain.abs().mean(),
            "gain_std": gain.std(correction=0),
        }
        if bool(better.any()):
            chosen, rejected = (pair["log_ratio"][rows].mean() for rows in (better, partner[better]))
            found |= {"log_ratio_chosen": chosen, "log_ratio_rejected": rejected, "log_ratio_gap": chosen - rejected}
        return {**scale, **{f"pairs/{name}": number * one for name, number in found.items()}}

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """`clip_fraction`: share of decisions whose gradient the clip removes; k3; the columns of `prepare`."""
        pair = self.pair(evaluation, decisions)
        difference = evaluation.log_prob - decisions.old_log_prob
        moved = {
            "joint": (pair["gap"] - pair["old_gap"])[:, None],
            "separate": (pair["log_rho"].exp() - 1.0)[:, None],
            "token": difference,
        }[self.clip]
        gain = pair["gain"][:, None]
        cut = ((gain > 0) & (moved > self.eps)) | ((gain < 0) & (moved < -self.eps))
        named = {name: decisions.column(name)[:, None] for name in decisions.extras if name.startswith("pairs/")}
        k3 = difference.clamp(-LIMIT, LIMIT).exp() - 1.0 - difference
        return {"clip_fraction": cut, "approximate_kl": k3, **named}


@register(
    "p3o",
    title="Pairwise proximal policy optimization: harnessing relative feedback for LLM alignment",
    paper="Wu et al., preprint",
    year=2023,
    url="https://arxiv.org/abs/2310.00212",
    family="language",
)
def p3o(
    variant: Literal["v1", "v2", "token"] = "v2",
    beta: float = 0.05,
    eps: float = 0.2,
    ratio_limit: float = 10.0,
    kl_at: Literal["collection", "current"] = "collection",
    average: Literal["pair", "token"] = "pair",
    reward_clip: float | None = None,
    reward_scale: Literal["none", "difference", "running"] = "none",
    passes: int = 4,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
) -> Method:
    """Pairwise proximal policy optimization.

    Args:
        variant: "v1" clips the two ratios apart, "v2" their difference jointly, "token" every token (code).
        beta: weight of the KL to the reference inside the reward, >= 0; 0 needs no reference model.
        eps: distance of the clip, > 0; for v1 of each ratio, for v2 of their log difference, for "token" of a token's.
        ratio_limit: c >= 1, the detached importance weight stays in [1/c, c].
        kl_at: the KL inside the reward is of the policy that sampled ("collection", the paper's box) or of the present
            one ("current", the code).
        average: losses are averaged over the pairs, or divided by all response tokens without the half (the code).
        reward_clip: scores are limited to +-this, > 0; None does not limit; the code has 10, which breaks invariance.
        reward_scale: "none"; "difference" divides by the running deviation of differences within pairs, which keeps
            the invariance; "running" by that of scores, as the code.
        passes: walks over each collection, >= 1.
        minibatches: optimiser steps per pass, >= 1; pairs are never cut.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model, the code's 6B model uses 8e-6.
    """
    one_of("variant", variant, ("v1", "v2", "token"))
    within("beta", beta, "[0, inf)", "Use 0.05, or 0 for no reference model")
    within("eps", eps, "(0, inf]", "Use 0.2; inf switches the clip off")
    within("ratio_limit", ratio_limit, "[1, inf]", "Use 10; inf switches the limit off")
    one_of("kl_at", kl_at, ("collection", "current"))
    one_of("average", average, ("pair", "token"))
    if reward_clip is not None:
        within("reward_clip", reward_clip, "(0, inf)", "Use 10 on scaled scores, or None")
    one_of("reward_scale", reward_scale, ("none", "difference", "running"))
    whole("passes", passes, 1, "Use 4 as the code does")
    whole("minibatches", minibatches, 1, "Use 1 to take one step per pass")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")
    clip: Clip = {"v1": "separate", "v2": "joint", "token": "token"}[variant]  # type: ignore[assignment]
    part = Pairwise(beta, clip, eps, ratio_limit, kl_at, reward_clip, reward_scale)
    if variant == "token" or average == "token":
        term = Term(part, reduction="token-mean")
    else:
        term = Term(part, unit="row", reduction="seq-mean-token-sum")
    return Method(
        slug="p3o",
        losses={"pairs": term},
        plan=Plan(passes=passes, minibatches=minibatches, unit="group"),
        step=Adam(learning_rate=learning_rate, betas=(0.9, 0.95)),
    )
