"""GBRL: the policy and the value are one additive ensemble of decision trees; each update appends a tree.

    F_0 = bias,   F_{k+1}(s) = F_k(s) - eps * h_k(s),   h_k a tree fitted to G_i = dL / dF(s_i), i in the minibatch
    F = (logits or means, V);   eps = learning_rate on the policy's columns, value_learning_rate on the value's

Fuhrer, Tessler and Dalal 2024, arXiv 2407.08250, ICML 2025; code NVlabs/gbrl and NVlabs/gbrl_sb3. L is any surrogate:
PPO's here, A2C's, or advantage-weighted regression's with weights min(exp(A / beta), 20). What is new is the step
`AppendTree`; trees are grown in `ascent/policies/trees`. Any other method takes them with `--policy trees`. With
`critic="network"` F is the policy alone, and V a network that Adam moves.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.part import Part
from ascent.core.plan import Adam, AppendTree, Linear, TreeAdam, TreeShape
from ascent.core.ranges import one_of, whole, within
from ascent.core.registry import register
from ascent.core.term import Term
from ascent.methods.a2c import a2c
from ascent.methods.ppo import ppo


@dataclass(frozen=True)
class WeightedLogProb(Part):
    """Advantage-weighted regression (Peng et al. 2019): `-min(exp(A / beta), most) log pi(a|s)` [N, T].

    Args:
        beta: temperature, > 0.
        most: largest weight.
    """

    beta: float = 0.05
    most: float = 20.0

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"log_prob", "advantage"})

    @property
    def recorded(self) -> frozenset[str]:
        return frozenset({"advantage"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return -(decisions.advantage / self.beta).exp().clamp(max=self.most) * evaluation.log_prob


@register(
    "gbrl",
    title="Gradient boosting reinforcement learning",
    paper="Fuhrer et al., ICML",
    year=2024,
    url="https://arxiv.org/abs/2407.08250",
    family="control",
)
def gbrl(
    algorithm: Literal["ppo", "a2c", "awr"] = "ppo",
    learning_rate: float | Linear = 0.05,
    value_learning_rate: float | Linear = 0.005,
    shared: bool = True,
    depth: int = 4,
    growth: Literal["oblivious", "greedy"] = "oblivious",
    score: Literal["cosine", "l2"] = "cosine",
    candidates: Literal["quantile", "uniform"] = "quantile",
    bins: int = 250,
    min_data: int = 0,
    feature_weights: tuple[float, ...] | None = None,
    max_policy_gradient: float | None = None,
    max_value_gradient: float | None = None,
    control_variates: float | None = None,
    limit: int | None = None,
    clip: float = 0.2,
    discount: float = 0.99,
    trace: float = 0.95,
    value_coefficient: float = 0.872,
    entropy_coefficient: float = 0.0,
    passes: int = 10,
    minibatches: int = 4,
    target_kl: float | None = None,
    temperature: float = 0.05,
    most_weight: float = 20.0,
    critic: Literal["trees", "network"] = "trees",
    critic_learning_rate: float | Linear = 3e-4,
    critic_gradient_norm: float = 0.5,
    optimiser: Literal["sgd", "adam"] = "sgd",
    betas: tuple[float, float] = (0.9, 0.999),
    adam_eps: float = 1e-8,
) -> Method:
    """PPO, A2C or advantage-weighted regression whose policy and value are trees.

    Args:
        algorithm: "ppo", "a2c" or "awr".
        learning_rate: of a tree in the policy's outputs, >= 0; a number or a Linear schedule.
        value_learning_rate: of a tree in the value, >= 0.
        shared: one tree an update for policy and value, or one each.
        depth: levels of splits, in [1, 12].
        growth: "oblivious", one split a level, or "greedy", one a node.
        score: of splits, "cosine" or "l2".
        candidates: thresholds, "quantile" or "uniform".
        bins: thresholds a feature, >= 1.
        min_data: least samples on either side of a split, >= 0.
        feature_weights: factor of each feature's scores, >= 0; None is 1 for all.
        max_policy_gradient: norm to which a decision's policy gradient is cut, > 0; None does not cut.
        max_value_gradient: size to which its value gradient is cut, > 0; None does not cut.
        control_variates: decay of the mean of earlier trees that calms the gradient, in (0, 1); None is off.
        limit: trees at which a quarter as many are taught to imitate them and take their place, >= 4; None never.
        clip: epsilon of the ratio, >= 0; ppo.
        discount: gamma, in [0, 1].
        trace: lambda of GAE, in [0, 1].
        value_coefficient: weight of the value's squared error, >= 0; it also says how much the value shapes a tree.
        entropy_coefficient: weight of the entropy bonus, >= 0.
        passes: walks over a collection, >= 1; ppo and awr.
        minibatches: trees per walk, >= 1; ppo and awr.
        target_kl: ends the walk, > 0; None never; ppo.
        temperature: beta of the weights exp(A / beta), > 0; awr.
        most_weight: at which they are cut, > 0; awr.
        critic: "trees", or "network": the value is an MLP 64-64 on the observation, and shares no tree.
        critic_learning_rate: of its Adam, >= 0; network.
        critic_gradient_norm: to which its gradient is cut, > 0; network.
        optimiser: of the trees' columns, "sgd" or "adam": moments of the leaves a sample reaches, tree after tree.
        betas: decay of the two moments, each in [0, 1); adam.
        adam_eps: added to the root of the second moment, > 0; adam.
    """
    one_of("algorithm", algorithm, ("ppo", "a2c", "awr"))
    within("learning_rate", learning_rate, "[0, inf)", "Use 0.05")
    within("value_learning_rate", value_learning_rate, "[0, inf)", "Use 0.005")
    whole("depth", depth, 1, "Use 4")
    within("depth", depth, "[1, 12]", "Use 4: a tree has 2^depth leaves")
    one_of("critic", critic, ("trees", "network"))
    within("critic_learning_rate", critic_learning_rate, "[0, inf)", "Use 3e-4")
    within("critic_gradient_norm", critic_gradient_norm, "(0, inf]", "Use 0.5, or inf to switch clipping off")
    one_of("optimiser", optimiser, ("sgd", "adam"))
    if len(betas) != 2:
        raise ValueError(f"betas must be two numbers; got {betas!r}. Use 0.9 and 0.999.")
    for number in betas:
        within("betas", number, "[0, 1)", "Use 0.9 and 0.999")
    within("adam_eps", adam_eps, "(0, inf)", "Use 1e-8")
    if critic == "network" and max_value_gradient is not None:
        raise ValueError(
            f"max_value_gradient cuts the gradient that trees of the value grow on, and critic is 'network'; got "
            f"{max_value_gradient!r}. Use None, and critic_gradient_norm."
        )
    one_of("growth", growth, ("oblivious", "greedy"))
    one_of("score", score, ("cosine", "l2"))
    one_of("candidates", candidates, ("quantile", "uniform"))
    whole("bins", bins, 1, "Use 250")
    whole("min_data", min_data, 0, "Use 0")
    for number in feature_weights or ():
        within("feature_weights", number, "[0, inf)", "Use 1 for a feature as good as the others")
    for name, limited in (("max_policy_gradient", max_policy_gradient), ("max_value_gradient", max_value_gradient)):
        if limited is not None:
            within(name, limited, "(0, inf)", "Use None to cut nothing")
    if control_variates is not None:
        within("control_variates", control_variates, "(0, 1)", "Use 0.9, or None to switch them off")
    if limit is not None:
        whole("limit", limit, 4, "Use thousands, or None for no limit")
    within("clip", clip, "[0, inf]", "Use 0.2")
    within("temperature", temperature, "(0, inf)", "Use 0.05")
    within("most_weight", most_weight, "(0, inf)", "Use 20")
    weights = None if feature_weights is None else tuple(feature_weights)
    shape = TreeShape(depth, growth, score, candidates, bins, min_data, weights)
    gradients = (max_policy_gradient, max_value_gradient)
    step = AppendTree(learning_rate, value_learning_rate, shape, shared, *gradients, control_variates, limit)
    if optimiser == "adam":
        step = dataclasses.replace(step, adam=TreeAdam((betas[0], betas[1]), adam_eps))
    if critic == "network":
        network = Adam(critic_learning_rate, eps=1e-5, max_gradient_norm=critic_gradient_norm)
        step = dataclasses.replace(step, critic=network)
    if algorithm == "a2c":
        method = a2c(discount, trace, value_coefficient, entropy_coefficient)
    else:
        method = ppo(
            clip,
            clip,
            discount,
            trace,
            value_coefficient,
            entropy_coefficient=entropy_coefficient,
            normalise=algorithm == "ppo",
            passes=passes,
            minibatches=minibatches,
            target_kl=target_kl if algorithm == "ppo" else None,
        )
        if algorithm == "awr":
            method = method.with_terms(policy=Term(WeightedLogProb(temperature, most_weight)))
    return method.replace(slug="gbrl", step=step)
