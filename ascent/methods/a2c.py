"""A2C: REINFORCE with a learned baseline that also bootstraps the tail of the return.

    A_t = GAE(discount, trace);   loss = -(1/M) sum_t A_t log pi(a_t|s_t) + c_v 1/2 (V(s_t) - V_t^target)^2 - c_e H_t

Mnih et al. 2016, "Asynchronous methods for deep reinforcement learning", arXiv 1602.01783, Algorithm S3, without
the asynchrony. With trace = 1 the advantage is the paper's n-step return, n the rest of the row.
Departures: Adam instead of shared RMSProp; truncated episodes bootstrap from their final observation.
"""

from __future__ import annotations

from ascent.core.critics import ValueLoss
from ascent.core.divergences import Entropy
from ascent.core.method import Method
from ascent.core.plan import Adam, Linear, Plan
from ascent.core.ranges import within
from ascent.core.registry import register
from ascent.core.returns import GAE, LambdaReturn
from ascent.core.surrogates import LogProb
from ascent.core.term import Term


@register(
    "a2c",
    title="Asynchronous methods for deep reinforcement learning",
    paper="Mnih et al., ICML",
    year=2016,
    url="https://arxiv.org/abs/1602.01783",
    family="control",
    status="baseline",
)
def a2c(
    discount: float = 0.99,
    trace: float = 1.0,
    value_coefficient: float = 0.5,
    entropy_coefficient: float = 0.01,
    learning_rate: float | Linear = 7e-4,
    adam_eps: float = 1e-5,
    max_gradient_norm: float = 0.5,
) -> Method:
    """Advantage actor-critic: one step per short collection.

    Args:
        discount: gamma, in [0, 1].
        trace: lambda of GAE, in [0, 1]; 1 gives the paper's n-step returns.
        value_coefficient: c_v, weight of the critic's squared error, >= 0.
        entropy_coefficient: c_e, weight of the entropy bonus, >= 0.
        learning_rate: of Adam, > 0; a number or a Linear schedule.
        adam_eps: added to the root of Adam's second moment, > 0.
        max_gradient_norm: global norm to which the gradient is clipped, > 0.
    """
    within("discount", discount, "[0, 1]", "Use 0.99 for control")
    within("trace", trace, "[0, 1]", "Use 1 for n-step returns, 0.95 for less variance")
    within("value_coefficient", value_coefficient, "[0, inf)", "Use 0.5")
    within("entropy_coefficient", entropy_coefficient, "[0, inf)", "Use 0 for no bonus")
    within("learning_rate", learning_rate, "[0, inf)", "Use 7e-4")
    within("adam_eps", adam_eps, "(0, inf)", "Use 1e-5")
    within("max_gradient_norm", max_gradient_norm, "(0, inf]", "Use 0.5, or inf to switch clipping off")
    return Method(
        slug="a2c",
        advantage=GAE(discount, trace),
        value_target=LambdaReturn(discount, trace),
        losses={
            "policy": Term(LogProb()),
            "value": Term(ValueLoss(), value_coefficient),
            "entropy": Term(Entropy(), entropy_coefficient),
        },
        plan=Plan(),
        step=Adam(learning_rate, eps=adam_eps, max_gradient_norm=max_gradient_norm),
    )
