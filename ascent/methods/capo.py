"""CAPO: curvature-aware policy optimization, a policy gradient without the few tokens that would move too far.

Before each update a second-order model of the language-model head alone (`core/curvature.py`) predicts for every token
how far its own optimiser step would move the objective (m_H) and the policy (m_F ~ KL of the step):

    accept t  iff  -delta_H < m_H < delta_H (symmetric; asymmetric: 0 <= m_H < delta_H)  and  m_F < delta_F
    loss = the base method's on the accepted tokens; the counts of its denominators too

The step model mirrors the optimiser: SGD in closed form, or Adam with moments [K, d] of the head, fed once an update
with the mean gradient of the accepted tokens, at the learning rate of this update. Options: the same test of whole
responses or of the update by the step of its mean gradient (`level`), and lambda m_F or lambda m_H in the loss
(`penalty`). The model is `core/curvature.py`, who is accepted `core/trust_region.py`.

2025, arXiv 2510.00819; code luckeciano/stable-pg-llm. Departures: the hidden state is the one that made the logits (the
code's is a position late); the threshold inf, not 0, switches a test off; an emptied row leaves the mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ascent.core.centre import Centre
from ascent.core.curvature import AdamModel
from ascent.core.method import Credit, Method
from ascent.core.plan import SGD, Adam, Plan
from ascent.core.ranges import one_of, whole, within
from ascent.core.reductions import Reduction
from ascent.core.registry import register
from ascent.core.returns import Score
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term
from ascent.core.trust_region import PredictedShift, TrustRegion

THRESHOLDS: Mapping[str, tuple[float, float]] = {
    "grpo": (0.01, 1e-4),
    "dr_grpo": (5e-4, 1e-3),
    "reinforce": (0.1, 1e-5),
}
"""(delta_H, delta_F) of the released recipes; reinforce's are read off its recipe's name."""


def mirrored(method: Method, temperature: float) -> Method:
    """The method with a step model that mirrors its present optimiser and the policy's temperature."""
    step = method.step
    changes: dict[str, object] = {"learning_rate": step.learning_rate, "temperature": temperature}
    if isinstance(step, Adam):
        changes["warmup"] = step.warmup

    def changed(term: Term) -> Term:
        if not isinstance(term.keep, TrustRegion):
            return term
        own = dict(changes)
        if isinstance(step, Adam):
            own["adam"] = dataclasses.replace(term.keep.adam, betas=step.betas, eps=step.eps)
        return dataclasses.replace(term, keep=dataclasses.replace(term.keep, **own))  # type: ignore[arg-type]

    return method.replace(losses={name: changed(term) for name, term in method.losses.items()})


@register(
    "capo",
    title="Stabilizing policy gradients for sample-efficient reinforcement learning in LLM reasoning",
    paper="ICLR",
    year=2025,
    url="https://arxiv.org/abs/2510.00819",
    family="language",
)
def capo(
    base: Literal["grpo", "dr_grpo", "reinforce"] = "grpo",
    model: Literal["adam", "sgd"] = "adam",
    level: Literal["token", "sentence", "global", "sequential"] = "token",
    objective_threshold: float | None = None,
    policy_threshold: float | None = None,
    symmetric: bool = True,
    objective_floor: float | None = None,
    penalty: Literal["none", "objective", "policy"] = "none",
    penalty_coefficient: float = 1.0,
    fisher: Literal["sampled", "expected"] = "sampled",
    top_k: int = 0,
    control: bool = False,
    diagnostics: bool = False,
    variant: Literal["paper", "reference"] = "paper",
    clip: float = 0.2,
    optimiser: Literal["adam", "sgd"] = "adam",
    beta1: float = 0.9,
    beta2: float = 0.999,
    adam_eps: float = 1e-8,
    warmup: int = 0,
    max_gradient_norm: float | None = 1.0,
    ddof: int = 1,
    eps: float = 1e-4,
    learning_rate: float = 1e-4,
) -> Method:
    """Curvature-aware rejection of tokens around a policy gradient.

    Args:
        base: "grpo" (CAPO), "dr_grpo" (Dr.CAPO: no division by the deviation), "reinforce" (ReinCAPO: A = R).
        model: of a token's own step: "adam" with moments of the head, or "sgd" in closed form.
        level: what is judged: a token, a response ("sentence"), the update ("global"), or all in turn ("sequential").
        objective_threshold: delta_H of m_H, > 0; inf switches the test off; None takes the base's recipe.
        policy_threshold: delta_F of m_F, > 0; inf switches the test off; None takes the base's recipe.
        symmetric: accept -delta_H < m_H < delta_H; otherwise 0 <= m_H < delta_H.
        objective_floor: lower bound of m_H instead, below objective_threshold; None leaves it to `symmetric`.
        penalty: adds lambda m_H ("objective") or lambda m_F ("policy") of every token to the loss.
        penalty_coefficient: lambda, >= 0.
        fisher: m_F of the "sampled" action, or "expected" over all actions.
        top_k: actions of the head's softmax, >= 0; 0 takes all, the released recipes take 50.
        control: reject as many tokens at random instead, the arm that would expose a sham.
        diagnostics: whether shifts of responses and of the update are logged too.
        variant: "paper", or "reference": before the first update Adam's step is the raw gradient, as in the code.
        clip: of the ratio on both sides, >= 0; inactive with one update a collection.
        optimiser: of the update; "adam", or plain "sgd".
        beta1: of Adam and its model, in [0, 1).
        beta2: of Adam and its model, in [0, 1).
        adam_eps: of Adam and its model, > 0.
        warmup: first updates over which the learning rate rises, >= 0.
        max_gradient_norm: clip of the update's gradient, > 0; None does not clip. The step model does not know it.
        ddof: 1 for the sample deviation of a group's scores, 0 for the population's.
        eps: added to the deviation, >= 0.
        learning_rate: of the optimiser, > 0; 1e-4 suits the embedded model, the paper's 7B model uses 1.5e-5.
    """
    one_of("base", base, THRESHOLDS)
    one_of("model", model, ("adam", "sgd"))
    for name, number in (("objective_threshold", objective_threshold), ("policy_threshold", policy_threshold)):
        if number is not None:
            within(name, number, "(0, inf]", "Calibrate it on a stable run; inf switches the test off")
    one_of("level", level, ("token", "sentence", "global", "sequential"))
    one_of("symmetric", symmetric, (True, False))
    one_of("penalty", penalty, ("none", "objective", "policy"))
    within("penalty_coefficient", penalty_coefficient, "[0, inf)", "Use penalty='none' to switch it off")
    one_of("fisher", fisher, ("sampled", "expected"))
    whole("top_k", top_k, 0, "Use 0 for the whole vocabulary")
    one_of("control", control, (True, False))
    if control and level == "global":
        raise ValueError(
            "control must be False with level='global', which leaves nothing to choose at random; got True."
        )
    one_of("diagnostics", diagnostics, (True, False))
    one_of("variant", variant, ("paper", "reference"))
    within("clip", clip, "[0, inf]", "Use 0.2; inf switches the bound off")
    one_of("optimiser", optimiser, ("adam", "sgd"))
    within("beta1", beta1, "[0, 1)", "Use 0.9")
    within("beta2", beta2, "[0, 1)", "Use 0.999")
    within("adam_eps", adam_eps, "(0, inf)", "Use 1e-8")
    whole("warmup", warmup, 0, "Use 0 for none")
    if max_gradient_norm is not None:
        within("max_gradient_norm", max_gradient_norm, "(0, inf]", "Use 1, or None for no clip")
    one_of("ddof", ddof, (0, 1))
    within("eps", eps, "[0, inf)", "Use 1e-4")
    within("learning_rate", learning_rate, "(0, inf)", "Try 1e-4 for a small model")

    default_objective, default_policy = THRESHOLDS[base]
    objective = default_objective if objective_threshold is None else objective_threshold
    if objective_floor is not None and not objective_floor < objective:  # also what is not a number
        raise ValueError(
            f"objective_floor must be < objective_threshold={objective!r}; got {objective_floor!r}. "
            "Use None for -delta_H, or a small number for steps that must promise a gain."
        )
    region = TrustRegion(
        model=model,
        level=level,
        objective=objective,
        policy=default_policy if policy_threshold is None else policy_threshold,
        symmetric=symmetric,
        floor=objective_floor,
        fisher=fisher,
        top_k=top_k,
        control=control,
        diagnostics=diagnostics,
        bends=penalty != "none",
        learning_rate=learning_rate,
        warmup=warmup if optimiser == "adam" else 0,
        adam=AdamModel((beta1, beta2), adam_eps, raw_start=variant == "reference"),
    )
    advantages: dict[str, Credit] = {
        "grpo": Centre(by="group", scale="group", ddof=ddof, eps=eps),
        "dr_grpo": Centre(by="group", scale=None),
        "reinforce": Score(),
    }
    reduction: Reduction = "seq-mean-token-sum-norm" if base == "dr_grpo" else "seq-mean-token-mean"
    adam = Adam(learning_rate, (beta1, beta2), adam_eps, max_gradient_norm=max_gradient_norm, warmup=warmup)
    losses = {"policy": Term(ClippedRatio(clip, clip), keep=region, reduction=reduction, count="kept")}
    if penalty != "none":
        losses["penalty"] = Term(PredictedShift(penalty, fisher, top_k), penalty_coefficient, reduction=reduction)
    return Method(
        slug="capo",
        advantage=advantages[base],
        losses=losses,
        plan=Plan(),
        step=adam if optimiser == "adam" else SGD(learning_rate, max_gradient_norm=max_gradient_norm),
    )
