"""MiniRL: the token objective is the first-order approximation of the sequence's, as long as two factors stay near 1.

    pi(y_t) / mu(y_t) = pi_old / mu  [two engines]  x  pi / pi_old  [staleness]
    J = E_{y ~ mu} sum_t M_t sg[min(pi(y_t) / mu(y_t), 5)] A(y) log pi(y_t),       A = R - mean of its group     (eq. 7)
    M_t = 0 where A > 0 and pi / pi_old > 1 + high, or A < 0 and pi / pi_old < 1 - low;  1 elsewhere

mu is the policy as the inference engine executes it (`behaviour_log_prob`), pi_old the same weights in the training
engine before the updates of the collection (`old_log_prob`): the mask asks pi_old, the weight asks mu. Tokens are
summed, not averaged, responses are averaged, and the advantage is not divided by a deviation.

For mixtures of experts the router makes both factors jump. Routing Replay keeps the set of experts of each token and
recomputes their gates, so the router still learns: R2 replays what the training engine chose under pi_old, R3 what the
inference engine chose when it sampled. Both optimise the policy under those routes, not the natural one.

Qwen team 2025, arXiv 2512.01374; no official code was found. The text does not say whether the
truncation is of pi / mu (the literal reading, `variant="whole"`) or only of pi_old / mu ("engines"): both are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Part
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.surrogates import ImportanceWeighted, MaskedLogProb
from ascent.core.term import Term, Value

ROUTES = frozenset({"routes", "prompt_routes"})
"""Recorded experts of the positions that predict the response's tokens [N, T, layers, k], and of the prompt's."""
PRECISIONS = ("float32", "bfloat16", "float8", "int8")
REPLAYS = ("off", "watch", "R2", "R3")


@dataclass(frozen=True)
class TwoEngines(Part):
    """A value, with what the two engines disagree about among the metrics.

    Attributes:
        of: the value.
        routed: whether routes were recorded; the policy then says how many of its layers choose otherwise now.
    """

    of: Value
    routed: bool = False

    @property
    def needs(self) -> frozenset[str]:
        routes = ROUTES | {"probe:routes_changed"} if self.routed else frozenset()
        return frozenset({"old_log_prob", "behaviour_log_prob"}) | routes

    @property
    def follows_advantage(self) -> bool:
        return isinstance(self.of, Part) and self.of.follows_advantage

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return self.of(evaluation, decisions)

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        """`engine_kl`: the k1 estimate of KL(mu, pi_old); of routes, the share of layers and of tokens that changed."""
        columns = {"engine_kl": decisions.behaviour_log_prob - decisions.old_log_prob}
        if not self.routed:
            return columns
        layers = evaluation.column("routes_changed", "routing replay").detach()
        return columns | {"routes_changed": layers, "tokens_rerouted": (layers > 0).to(layers.dtype)}

    def example(self, decisions: Decisions, generator: torch.Generator) -> Columns:
        if not self.routed:
            return {}
        rows, columns = decisions.mask.shape
        shapes = {"routes": (rows, columns, 2, 2), "prompt_routes": (rows, 3, 2, 2)}
        return {name: torch.randint(0, 4, shape, generator=generator).to(torch.int16) for name, shape in shapes.items()}


@register(
    "stabilizing_rl",
    title="Stabilizing reinforcement learning with LLMs: formulation and practices",
    paper="Qwen team, preprint",
    year=2025,
    url="https://arxiv.org/abs/2512.01374",
    family="language",
)
def stabilizing_rl(
    clip_low: float | None = 0.2,
    clip_high: float | None = 0.27,
    truncation: float | None = 5.0,
    variant: Literal["whole", "engines"] = "whole",
    engine_correction: bool = True,
    length_norm: bool = False,
    replay: Literal["off", "watch", "R2", "R3"] = "off",
    engine: Literal["float32", "bfloat16", "float8", "int8"] = "float8",
    engine_activations: bool = False,
    router_noise: float = 0.0,
    experts: int = 0,
    experts_per_token: int = 2,
    minibatches: int = 1,
    learning_rate: float = 1e-4,
) -> Method:
    """MiniRL with Routing Replay.

    Args:
        clip_low: eps_low, distance below 1 in [0, 1] at which negative tokens are masked; None does not mask them.
        clip_high: eps_high, distance above 1, >= 0, at which positive tokens are masked; None does not mask them.
        truncation: largest importance weight, > 0; None does not truncate.
        variant: what is truncated, the "whole" weight pi / mu, or the part of the two "engines", pi_old / mu.
        engine_correction: whether the weight is against mu; otherwise pi / pi_old, which is 1 on policy (ablation).
        length_norm: whether a response's sum is divided by its length (ablation).
        replay: routes "off"; "watch" records the sampler's and counts changes; "R2" and "R3" replay them. Not "off"
            needs a mixture of experts.
        engine: numbers that the sampler's copy of the weights is rounded to; "float32" is an exact engine.
        engine_activations: whether the sampler also rounds the inputs of its linear layers.
        router_noise: deviation of the noise on the sampler's router logits, >= 0: another engine's rounding.
        experts: of the embedded mixture of experts, >= 2; 0 takes the dense model.
        experts_per_token: experts that a token is sent to, >= 1 and fewer than `experts`.
        minibatches: N, optimiser steps per collection, >= 1; 1 is on policy.
        learning_rate: of Adam, > 0; 1e-4 suits the embedded model.
    """
    if clip_low is not None:
        within("clip_low", clip_low, "[0, 1]", "Use 0.2; None does not mask")
    if clip_high is not None:
        within("clip_high", clip_high, "[0, inf)", "Use 0.27; None does not mask")
    if truncation is not None:
        within("truncation", truncation, "(0, inf)", "Use 5; None does not truncate")
    one_of("variant", variant, ("whole", "engines"))
    one_of("engine_correction", engine_correction, (True, False))
    one_of("length_norm", length_norm, (True, False))
    one_of("replay", replay, REPLAYS)
    one_of("engine", engine, PRECISIONS)
    one_of("engine_activations", engine_activations, (True, False))
    within("router_noise", router_noise, "[0, inf)", "Use 0, or about 0.1")
    whole("experts", experts, 0, "Use 8, or 0 for the dense model")
    if experts == 1:
        raise ValueError("experts must be 0 (dense) or >= 2; got 1. Use 8.")
    whole("experts_per_token", experts_per_token, 1, "Use 2")
    if experts and experts_per_token >= experts:
        raise ValueError(f"experts_per_token must be < experts={experts}; got {experts_per_token}. Use 2.")
    whole("minibatches", minibatches, 1, "Use 1, on policy; 2, 4 and 8 are the paper's off-policy runs")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")

    masked = MaskedLogProb(clip_low, clip_high)
    value: Value
    if not engine_correction:
        value = ImportanceWeighted(masked, cap=truncation, denominator="old")
    elif variant == "whole":
        value = ImportanceWeighted(masked, cap=truncation)
    else:
        value = ImportanceWeighted(ImportanceWeighted(masked, denominator="old"), cap=truncation, numerator="old")
    reduction: Literal["seq-mean-token-mean", "seq-mean-token-sum"]
    reduction = "seq-mean-token-mean" if length_norm else "seq-mean-token-sum"
    return Method(
        slug="stabilizing_rl",
        advantage=Centre(by="group"),
        losses={"policy": Term(TwoEngines(value, routed=replay != "off"), reduction=reduction)},
        plan=Plan(minibatches=minibatches, unit="group"),
        step=Adam(learning_rate=learning_rate),
    )
