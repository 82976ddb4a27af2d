"""Critics that predict the shape of their own TD error: a generalised Gaussian likelihood, inside PPO and SAC.

    delta_bk = Q_k(b) - y_bk,    beta_bk = softplus(second output of member k)
    L_GGD    = mean_b sum_k w_bk ( |delta_bk|^beta_bk - log beta_bk + log Gamma(1 / beta_bk) )
    L_BIEV   = mean_b p_b sum_k |delta_bk|,        w_bk = beta_bk / sum_j beta_bj
    p_b      ~ 1 / (v_b + xi),                     v_b  = Var_k(delta_bk) / (kappa_b / K + (K + 1) / (K - 1))
    L        = L_GGD + lambda L_BIEV

beta = 2 is a Gaussian of fixed variance, 1 a Laplace, less is heavier-tailed. The variants are the release's:

    base        squared errors                        gd, ggd      the Gaussian's, the generalised Gaussian's likelihood
    iv_gd       gd + lambda BIV, squared              iv_ggd       ggd + lambda BIV, absolute
                                                      iev_ggd      ggd + lambda BIEV, absolute: the method

Kim et al. 2024, arXiv 2408.02295; code ait-lab/ggtde, which computes |delta| beta, no power (`form="product"`).
In PPO K values stand on one trunk, each with its own advantages, whose mean moves the policy. In SAC two critics have K
networks each; a member's target is the smaller of its two means; the policy climbs the smaller of the two averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ascent.core.combinators import Normalised
from ascent.core.decisions import Decisions
from ascent.core.divergences import Entropy
from ascent.core.evaluation import Evaluation
from ascent.core.generalised_gaussian import Form
from ascent.core.method import Method
from ascent.core.plan import Adam, Plan
from ascent.core.ranges import one_of, replay_sizes, whole, within
from ascent.core.reductions import Reduction
from ascent.core.registry import register
from ascent.core.returns import MemberGAE, MemberReturn, OneStep
from ascent.core.surrogates import ClippedRatio, Outcome
from ascent.core.term import Term
from ascent.core.uncertainty import InverseVarianceLoss, Over, UncertainValueLoss, ensembles
from ascent.methods.sac import EntropyCost, SoftValue, TemperatureLoss

Variant = Literal["base", "gd", "iv_gd", "ggd", "iv_ggd", "iev_ggd"]
VARIANTS = ("base", "gd", "iv_gd", "ggd", "iv_ggd", "iev_ggd")
TWINS = 2


@dataclass(frozen=True)
class MemberSoftValue(SoftValue):
    """`min over the two critics of member k's mean - alpha log pi(a'|s')` for both of its networks [N, T, 2 K]."""

    pool: Literal["min", "mean", "none"] = "none"

    def __call__(self, decisions: Decisions) -> Tensor:
        value = super().__call__(decisions)
        smaller = ensembles(value, TWINS).amin(-2, keepdim=True)
        return smaller.expand(*smaller.shape[:-2], TWINS, -1).reshape(value.shape)

    @property
    def critics(self) -> int:
        return 4 * TWINS


@dataclass(frozen=True)
class AverageOutcome(Outcome):
    """Minus the smaller of the two critics' member averages [N, T]."""

    @property
    def critics(self) -> int:
        return 4 * TWINS

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        return -ensembles(evaluation.outcome, TWINS).mean(-1).amin(-1)


def critic_terms(
    variant: Variant,
    members: int,
    coefficient: float,
    least: int,
    discount: float,
    form: Form,
    over: Over,
    detach: bool,
    reduction: Reduction,
    extremes: bool,
    copies: int,
    scale: float,
) -> dict[str, Term]:
    """The critic's losses, each times `scale`."""
    spread = {"base": "none", "gd": "variance", "iv_gd": "variance"}.get(variant, "shape")
    value = UncertainValueLoss(spread, form, over, detach, copies, extremes)  # type: ignore[arg-type]
    found = {"value": Term(value, scale)}
    if coefficient and variant in ("iv_gd", "iv_ggd", "iev_ggd"):
        kind: Literal["biv", "biev"] = "biev" if variant == "iev_ggd" else "biv"
        loss: Literal["squared", "absolute"] = "squared" if variant == "iv_gd" else "absolute"
        regulariser = InverseVarianceLoss(kind, loss, least, discount, copies)
        found["epistemic"] = Term(regulariser, scale * coefficient, reduction=reduction)
    return found


@register(
    "ggtd",
    title="Generalized Gaussian temporal difference error for uncertainty-aware reinforcement learning",
    paper="Kim et al., preprint",
    year=2024,
    url="https://arxiv.org/abs/2408.02295",
    family="control",
)
def ggtd(
    algorithm: Literal["ppo", "sac"] = "ppo",
    variant: Variant = "iev_ggd",
    members: int = 5,
    coefficient: float = 0.1,
    least: int = 16,
    form: Form = "power",
    over: Over = "ensemble",
    detach: bool = False,
    reduction: Literal["token-mean", "token-sum"] = "token-mean",
    discount: float = 0.99,
    trace: float = 0.95,
    clip: float = 0.2,
    value_coefficient: float = 0.5,
    entropy_coefficient: float = 0.0,
    passes: int = 10,
    minibatches: int = 32,
    max_gradient_norm: float = 0.5,
    critics: int = 2,
    target_rate: float = 0.005,
    temperature: float = 1.0,
    batch: int = 256,
    capacity: int = 1_000_000,
    start: int = 256,
    updates: int = 1,
    learning_rate: float = 3e-4,
    extremes: bool = False,
) -> Method:
    """PPO or SAC whose critics say how wide their own errors are.

    Args:
        algorithm: "ppo" or "sac".
        variant: "base", "gd", "iv_gd", "ggd", "iv_ggd" or "iev_ggd", the method.
        members: K of the ensemble, >= 2.
        coefficient: lambda of the inverse-variance regulariser, >= 0.
        least: m, the effective batch that its weights keep, >= 1; cut to the update's size minus 1.
        form: of the likelihood, "power" or the released code's "product".
        over: what the weights beta are normalised over, "ensemble", "batch", or "none".
        detach: whether those weights are constants.
        reduction: of the regulariser, whose weights add up to 1: averaging again makes it 1 / B smaller.
        discount: gamma, in [0, 1].
        trace: lambda of GAE, in [0, 1]; ppo.
        clip: epsilon of the ratio, >= 0; ppo.
        value_coefficient: weight of the critic's loss, >= 0; ppo.
        entropy_coefficient: weight of the entropy bonus, >= 0; ppo.
        passes: walks over a collection, >= 1; ppo.
        minibatches: updates per walk, >= 1; ppo.
        max_gradient_norm: global norm to which the gradient is clipped, > 0; ppo.
        critics: of K networks each; the formula has 2; sac.
        target_rate: share of the way that the targets move, in (0, 1]; sac.
        temperature: alpha at the start, > 0; it is learned; sac.
        batch: transitions per update, >= 1; sac.
        capacity: transitions that the replay memory holds, >= batch; sac.
        start: environment steps of uniform actions before the first update, >= batch; sac.
        updates: per environment step, >= 1; sac.
        learning_rate: of every Adam, > 0.
        extremes: whether a run logs the least and greatest width said in every update; not of "base". It costs a
            forward pass where an update is taken in micro-batches.
    """
    one_of("algorithm", algorithm, ("ppo", "sac"))
    one_of("variant", variant, VARIANTS)
    whole("members", members, 2, "Use 5; kurtosis needs 4")
    within("coefficient", coefficient, "[0, inf)", "Use 0.1")
    whole("least", least, 1, "Use 16")
    one_of("form", form, ("power", "product"))
    one_of("over", over, ("ensemble", "batch", "none"))
    one_of("reduction", reduction, ("token-mean", "token-sum"))
    within("discount", discount, "[0, 1]", "Use 0.99")
    within("learning_rate", learning_rate, "(0, inf)", "Use 3e-4")
    within("trace", trace, "[0, 1]", "Use 0.95")
    within("clip", clip, "[0, inf]", "Use 0.2")
    within("value_coefficient", value_coefficient, "[0, inf)", "Use 0.5")
    within("entropy_coefficient", entropy_coefficient, "[0, inf)", "Use 0 for no bonus")
    whole("passes", passes, 1, "Use 10")
    whole("minibatches", minibatches, 1, "Use 32")
    within("max_gradient_norm", max_gradient_norm, "(0, inf]", "Use 0.5")
    one_of("critics", critics, (TWINS,))
    within("target_rate", target_rate, "(0, 1]", "Use 0.005")
    within("temperature", temperature, "(0, inf)", "Use 1")
    replay_sizes(batch, capacity, start, updates)
    one_of("extremes", extremes, (False, True))
    if extremes and variant == "base":
        raise ValueError("extremes must be False with variant='base', which says no width. Use another variant.")
    options = (variant, members, coefficient, least, discount, form, over, detach, reduction, extremes)
    if algorithm == "sac":
        step = Adam(learning_rate, max_gradient_norm=None)
        critic = Method(
            slug="ggtd_critic",
            value_target=OneStep(discount, MemberSoftValue(), pool="none"),
            losses=critic_terms(*options, copies=TWINS, scale=0.5),
            step=step,
        )
        heat = Method(slug="ggtd_temperature", losses={"temperature": Term(TemperatureLoss(None, "log"))}, step=step)
        return Method(
            slug="ggtd",
            losses={"policy": Term(AverageOutcome()), "entropy": Term(EntropyCost())},
            step=step,
            companions={"critic": critic, "temperature": heat},
        )
    losses = {"policy": Term(ClippedRatio(low=clip, high=clip))}
    losses |= critic_terms(*options, copies=1, scale=value_coefficient)
    if entropy_coefficient:
        losses["entropy"] = Term(Entropy(), entropy_coefficient)
    return Method(
        slug="ggtd",
        advantage=MemberGAE(discount, trace),
        value_target=MemberReturn(discount, trace),
        normalise=Normalised(),
        losses=losses,
        plan=Plan(passes=passes, minibatches=minibatches, unit="decision"),
        step=Adam(learning_rate, eps=1e-5, max_gradient_norm=max_gradient_norm),
    )
