"""PROPS: on-policy policy gradient without on-policy sampling.

A finite sample of pi_theta is not distributed like pi_theta. So a behaviour policy pi_phi, reset to pi_theta every m
steps, is fitted to make what the buffer already holds LESS likely, and the next m actions repair the buffer D:

    r = pi_phi(a|s) / pi_theta(a|s)                       over (s, a) in D, the last b batches of n steps
    minimise  mean[ max(r, clip(r, 1 - eps, 1 + eps)) ] + lambda * KL(pi_phi || pi_theta)
    stop when mean[(r - 1) - log r] > delta

It is PPO's loss with advantage -1 everywhere. At phi = theta its gradient is mean grad log pi_theta over D, which
vanishes exactly when the buffer holds every action in proportion to pi_theta. The target then learns from all of D by
PPO as if it were on-policy: log pi_old is recomputed under theta, and there are no importance weights.

ROS (Zhong et al. 2022) is one gradient step on mean log pi_phi, without clip or KL. AW-PROPS weighs by |A| / std(A).

Corrado and Hanna 2023, arXiv 2311.08290; code NicholasCorrado/PPOROS (P) and NicholasCorrado/PROPS (N). Departures: the
reference is recomputed after a target update (P reused the older one); the KL is exact for discrete actions too (P sums
over taken actions: `kl="taken"`); truncation bootstraps; AW-PROPS takes the deviation over the whole buffer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Part
from ascent.core.plan import SGD, Adam, Linear, Plan, Stop
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.shaping import Constant
from ascent.core.surrogates import ClippedRatio, LogProb
from ascent.core.term import Term
from ascent.methods.ppo import ppo

Penalty = Literal["behaviour", "target", "taken"]


@dataclass(frozen=True)
class BehaviourKL(Part):
    """Divergence between behaviour and target policy [N, T], mean over action numbers as in the official code.

    Attributes:
        kind: "behaviour" KL(phi || theta), "target" KL(theta || phi), both exact; "taken": pi_theta(a) times
            log(pi_theta(a) / pi_phi(a)) of the taken action, the discrete code's partial sum.
    """

    kind: Penalty = "behaviour"

    @property
    def needs(self) -> frozenset[str]:
        if self.kind == "taken":
            return frozenset({"log_prob", "old_log_prob"})
        probe = "probe:kl_reference" if self.kind == "behaviour" else "probe:reverse_kl_reference"
        return frozenset({probe, "reference_distribution", "action"})

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        if self.kind == "taken":
            return {}
        return {"reference_distribution": torch.randn(*decisions.mask.shape, 5, generator=generator)}

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        if self.kind == "taken":
            return decisions.old_log_prob.exp() * (decisions.old_log_prob - evaluation.log_prob)
        name = "kl_reference" if self.kind == "behaviour" else "reverse_kl_reference"
        return evaluation.column(name, "BehaviourKL") / decisions.action.shape[2:].numel()

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        return {"kl_target": self(evaluation, decisions)}


@dataclass(frozen=True)
class AdvantageWeight(Part):
    """-|A| / (std(A) + 1e-8) [N, T] of the target's advantage, a recorded column `target_advantage`, not centred."""

    needs = frozenset({"target_advantage"})

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        return {"target_advantage": torch.randn(decisions.mask.shape, generator=generator)}

    def __call__(self, decisions: Decisions) -> Tensor:
        advantage, mask = decisions.per_decision("target_advantage", "AdvantageWeight"), decisions.mask
        spread = advantage[mask].std() if int(mask.sum()) > 1 else advantage.new_ones(())
        return torch.where(mask, -advantage.abs() / (spread + 1e-8), 0.0)


def most_under_sampled(probability: Tensor, count: Tensor) -> Tensor:
    """The greedy ideal sampler: argmax_a pi(a) - count(a) / sum count, the lowest a of equals.

    Args:
        probability: [..., A] of the target policy.
        count: [..., A] times that each action was taken in this state, >= 0.

    Returns:
        [...] int64 action; its error |count / m - pi| falls like 1 / m instead of 1 / sqrt(m).
    """
    share = count / count.sum(-1, keepdim=True).clamp(min=1)
    return (probability - share).argmax(-1)


def sampling_error(probability: Tensor, count: Tensor) -> Tensor:
    """Mean over the buffer of log pi_D(a|s) - log pi(a|s), nats, with pi_D(a|s) = count(s, a) / count(s); 0 if empty.

    Args:
        probability: [S, A] of the target policy, > 0 where `count` is.
        count: [S, A] times that each action was taken in each state.
    """
    empirical = count / count.sum(-1, keepdim=True).clamp(min=1)
    gap = torch.where(count > 0, empirical.log() - probability.log(), torch.zeros_like(probability))
    return (count * gap).sum() / count.sum().clamp(min=1)


def behaviour(
    objective: Literal["props", "ros"],
    clip: float,
    kl: Penalty,
    kl_coefficient: float,
    target_kl: float | None,
    stop_when: Literal["before", "after"],
    advantage_weighted: bool,
    passes: int,
    minibatches: int,
    learning_rate: float,
    max_gradient_norm: float,
) -> Method:
    """The method of the behaviour policy; its model must equal the target's when its collection is annotated."""
    credit = AdvantageWeight() if advantage_weighted else Constant(-1.0)
    if objective == "ros":
        step = SGD(learning_rate=learning_rate)
        return Method(
            slug="ros", advantage=credit, losses={"policy": Term(LogProb())}, plan=Plan(unit="decision"), step=step
        )
    # Only the low bound can bind, because every advantage is negative.
    losses = {"policy": Term(ClippedRatio(low=clip, high=clip))}
    if kl_coefficient:
        losses["kl"] = Term(BehaviourKL(kl), kl_coefficient)
    stop = None if target_kl is None else Stop("approximate_kl", above=target_kl, when=stop_when)
    return Method(
        slug="props_behaviour",
        advantage=credit,
        losses=losses,
        plan=Plan(passes=passes, minibatches=minibatches, unit="decision", stop=stop),
        step=Adam(learning_rate, eps=1e-5, max_gradient_norm=max_gradient_norm),
    )


@register(
    "props",
    title="On-policy policy gradient reinforcement learning without on-policy sampling",
    paper="Corrado and Hanna, preprint",
    year=2023,
    url="https://arxiv.org/abs/2311.08290",
    family="control",
)
def props(
    objective: Literal["props", "ros", "none"] = "props",
    batch: int = 2048,
    buffer_batches: int = 2,
    behaviour_batch: int = 256,
    skip_oldest: bool = True,
    clip: float = 0.3,
    kl: Penalty = "behaviour",
    kl_coefficient: float = 0.3,
    behaviour_target_kl: float | None = 0.05,
    stop_when: Literal["before", "after"] = "before",
    advantage_weighted: bool = False,
    behaviour_passes: int = 16,
    behaviour_minibatches: int = 16,
    behaviour_learning_rate: float = 1e-3,
    target_clip: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.95,
    value_coefficient: float = 0.5,
    value_clip: float | None = 0.2,
    entropy_coefficient: float = 0.01,
    passes: int = 10,
    minibatches: int = 32,
    target_kl: float | None = 0.03,
    learning_rate: float = 1e-3,
    anneal: bool = True,
    max_gradient_norm: float = 0.5,
) -> Method:
    """PPO on a buffer that a fitted behaviour policy keeps on-policy.

    Args:
        objective: of the behaviour policy: "props"; "ros", its predecessor (with behaviour_batch=1 and
            behaviour_learning_rate=1e-5); or "none", which samples from the target: PPO with a buffer.
        batch: n, environment steps between two updates of the target, >= 1.
        buffer_batches: b, batches that the buffer holds, >= 1.
        behaviour_batch: m, steps between two resets and fits of the behaviour policy; divides batch.
        skip_oldest: whether the fit leaves out the m oldest transitions, which the next steps evict (code P does).
        clip: epsilon of the behaviour ratio, > 0; a sample stops counting once its ratio is below 1 - clip; inf: never.
        kl: "behaviour" KL(phi || theta), "target" KL(theta || phi), or "taken", the discrete code's partial sum.
        kl_coefficient: lambda, >= 0; 0 needs no distribution of the target.
        behaviour_target_kl: delta of the early stop, >= 0; None never stops.
        stop_when: "before" drops the update that exceeds delta (code P), "after" takes it and stops (code N).
        advantage_weighted: AW-PROPS, samples weigh |A| / std(A) of the target's advantage.
        behaviour_passes: walks over the buffer in one fit, >= 1.
        behaviour_minibatches: updates per walk, >= 1; 32 for Walker2d and Humanoid.
        behaviour_learning_rate: of the behaviour policy's Adam (SGD for "ros"), >= 0; 0 is PPO with a buffer.
        target_clip: epsilon of the target's PPO, >= 0.
        discount: gamma, in [0, 1].
        trace: lambda of GAE, in [0, 1].
        value_coefficient: weight of the critic's squared error, >= 0.
        value_clip: range in which the critic may leave its old value, > 0; None does not clip.
        entropy_coefficient: weight of the target's entropy bonus, >= 0.
        passes: walks of the target over the buffer, >= 1.
        minibatches: updates of the target per walk, >= 1.
        target_kl: the target's walk ends after an update whose estimated KL exceeds it, > 0; None never stops.
        learning_rate: of the target's Adam, > 0; the paper tunes 1e-3 or 1e-4 by environment.
        anneal: whether the target's rate falls linearly to 0 over the run.
        max_gradient_norm: global norm to which the gradients of both policies are clipped, > 0.
    """
    one_of("objective", objective, ("props", "ros", "none"))
    one_of("kl", kl, ("behaviour", "target", "taken"))
    one_of("stop_when", stop_when, ("before", "after"))
    for name, number in (("batch", batch), ("buffer_batches", buffer_batches), ("behaviour_batch", behaviour_batch)):
        whole(name, number, 1, "Use 2048, 2 and 256 for batch, buffer_batches and behaviour_batch")
    if batch % behaviour_batch:
        raise ValueError(f"behaviour_batch must divide batch={batch}; got {behaviour_batch!r}. Use 256 with 2048.")
    within("clip", clip, "(0, inf]", "Use 0.3; inf switches the clip off")
    within("target_clip", target_clip, "[0, inf]", "Use 0.2")
    within("kl_coefficient", kl_coefficient, "[0, inf)", "Use 0.1 or 0.3; 0 for no penalty")
    if behaviour_target_kl is not None:
        within("behaviour_target_kl", behaviour_target_kl, "[0, inf)", "Use 0.03 to 0.1, or None for no early stop")
    within("behaviour_learning_rate", behaviour_learning_rate, "[0, inf)", "Use 1e-3 to 1e-5")
    whole("behaviour_passes", behaviour_passes, 1, "Use 16")
    whole("behaviour_minibatches", behaviour_minibatches, 1, "Use 16")
    within("learning_rate", learning_rate, "(0, inf)", "Use 1e-3 or 1e-4")
    target = ppo(
        clip_low=target_clip,
        clip_high=target_clip,
        discount=discount,
        trace=trace,
        value_coefficient=value_coefficient,
        value_clip=value_clip,
        entropy_coefficient=entropy_coefficient,
        passes=passes,
        minibatches=minibatches,
        target_kl=target_kl,
        learning_rate=Linear(learning_rate) if anneal else learning_rate,
        max_gradient_norm=max_gradient_norm,
    )
    if objective == "none":
        return target.replace(slug="props")
    fit = behaviour(
        objective,
        clip,
        kl,
        kl_coefficient,
        behaviour_target_kl,
        stop_when,
        advantage_weighted,
        behaviour_passes,
        behaviour_minibatches,
        behaviour_learning_rate,
        max_gradient_norm,
    )
    return target.replace(slug="props", companions={"behaviour": fit})
