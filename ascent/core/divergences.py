"""How far the policy is from another one, per decision, and the entropy bonus.

With `d = log pi - log q` of the taken action (Schulman, joschu.net/blog/kl-approx.html):

| kind | value | expectation under pi | expected gradient under pi as a loss |
|---|---|---|---|
| k1 | d | KL(pi, q) | 0: only noise; use it inside the reward (`shaping.Penalised`) |
| k2 | d^2 / 2 | biased, second order | that of KL(pi, q), the reverse KL |
| k3 | exp(-d) - 1 + d | KL(pi, q), never negative | that of KL(q, pi), the forward KL |
| abs | abs(d) | total-variation-like, no KL | that of E_pi[sign(d)] |
| exact | sum over all actions | KL(pi, q) | that of KL(pi, q) at this context |

"Gradient under pi" takes the actions as given: what differentiating the sampled value yields. k1, k2, k3 and abs need
actions drawn from the present policy; after several updates on one collection they are off by the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Part
from ascent.core.surrogates import LIMIT

Kind = Literal["k1", "k2", "k3", "abs", "exact"]
KINDS: tuple[str, ...] = ("k1", "k2", "k3", "abs", "exact")


def estimate(log_prob: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"], kind: str) -> Float[Tensor, "*shape"]:
    """The estimator `kind` of KL(pi, other), any shape, nats. The exponent of k3 is limited to 20 nats."""
    difference = log_prob - other
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * difference.square()
    if kind == "k3":
        return (-difference).clamp(-LIMIT, LIMIT).exp() - 1.0 + difference
    if kind == "abs":
        return difference.abs()
    raise ValueError(f"kind must be one of {', '.join(KINDS[:-1])}; got {kind!r}.")


@dataclass(frozen=True)
class Divergence(Part):
    """Divergence of the policy from another per decision [N, T], as a term to minimise; see the module's table.

    Attributes:
        kind: the estimator; "exact" reads the probe `kl_<against>` that sums over all actions.
        against: whose `<against>_log_prob` is recorded: "reference", "old", "behaviour" or any scorer.
        limit: log-ratios of an estimator are limited to +-limit nats, without gradient beyond; None does not limit.
    """

    kind: Kind = "k3"
    against: str = "reference"
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"limit must be > 0 nats or None; got {self.limit!r}.")

    @property
    def needs(self) -> frozenset[str]:
        if self.kind == "exact":
            return frozenset({f"probe:kl_{self.against}"})
        return frozenset({"log_prob", f"{self.against}_log_prob"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        if self.kind == "exact":
            return evaluation.column(f"kl_{self.against}", "Divergence")
        other = decisions.column(f"{self.against}_log_prob", "Divergence")
        if self.limit is None:
            return estimate(evaluation.log_prob, other, self.kind)
        difference = (evaluation.log_prob - other).clamp(-self.limit, self.limit)
        return estimate(difference, torch.zeros_like(difference), self.kind)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        return {f"kl_{self.against}": self(evaluation, decisions)}


@dataclass(frozen=True)
class WholeDivergence(Part):
    """KL(pi, other) [N, T] summed over actions, with its gradient; for vocabularies whose [N, T, V] fits in memory.

    Reads the policy's `outputs` [N, T, V], logits of every action, and the recorded `<against>_distribution` [N, T, V],
    the other's log-probs of them.

    Attributes:
        against: the other policy.
        top: sum only over the policy's `top` likeliest actions, as they are, not renormalised: biased, and it can be
            lowered by moving probability out of them. None sums over all.
    """

    against: str = "reference"
    top: int | None = None

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise ValueError(f"top must be >= 1 actions or None; got {self.top!r}.")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"outputs", f"{self.against}_distribution"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        log_probs = evaluation.outputs.log_softmax(-1)
        other = decisions.column(f"{self.against}_distribution", "WholeDivergence")
        summands = log_probs.exp() * (log_probs - other)
        if self.top is None or self.top >= log_probs.shape[-1]:
            return summands.sum(-1)
        return summands.gather(-1, log_probs.detach().topk(self.top, -1).indices).sum(-1)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        return {f"kl_{self.against}": self(evaluation, decisions)}

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        draws = torch.randn(*decisions.mask.shape, 3, generator=generator, dtype=torch.float64)
        dtype = decisions.reward.dtype if "reward" in decisions else torch.float64
        return {f"{self.against}_distribution": draws.log_softmax(-1).to(dtype)}


@dataclass(frozen=True)
class Entropy(Part):
    """`-entropy` [N, T]: with a coefficient > 0 the term is a bonus for entropy."""

    needs = frozenset({"entropy"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return -evaluation.entropy

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        return {"entropy": evaluation.entropy}
