"""TD3: deterministic policy gradient with twin critics, delayed updates and a smoothed target.

From replayed transitions (s, a, r, s'), with primes for target networks:

    next action  a' = clip(pi'(s') + clip(deviation * noise, -limit, limit), -1, 1)
    critics      y = r + gamma min_k Q'_k(s', a')                   J = sum_k E[(Q_k(s, a) - y)^2]
    policy       J(pi) = -E[Q_1(s, pi(s))]                          every d-th update
    targets      Q' <- Q' + rate (Q - Q'), pi' alike                after the policy

Fujimoto, van Hoof and Meger 2018, "Addressing function approximation error in actor-critic methods", arXiv 1802.09477,
Algorithm 1. The three additions to DDPG are `critics`, `policy_every` and `smoothing`; with 1, 1 and 0 it is DDPG.
"""

from __future__ import annotations

from torch import Tensor

from ascent.core.critics import ValueLoss
from ascent.core.method import Method
from ascent.core.plan import Adam
from ascent.core.ranges import replay_sizes, whole, within
from ascent.core.registry import register
from ascent.core.returns import OneStep
from ascent.core.surrogates import Outcome
from ascent.core.term import Term


def smoothed(action: Tensor, noise: Tensor, deviation: float, limit: float) -> Tensor:
    """Target-policy smoothing: the action with clipped noise, in [-1, 1].

    Args:
        action: [..., A] of the target policy, in [-1, 1].
        noise: [..., A] standard normal draws.
        deviation: >= 0, of the noise in units of half the action range.
        limit: >= 0, the noise is clipped to [-limit, limit].
    """
    return (action + (deviation * noise).clamp(-limit, limit)).clamp(-1.0, 1.0)


def deterministic(
    slug: str,
    discount: float,
    coefficient: float,
    learning_rate: float,
    critic_learning_rate: float,
    weight_decay: float,
) -> Method:
    """The deterministic policy gradient with critics on one-step targets, which DDPG and TD3 share.

    The critics' loss is the squared error, so the half of `ValueLoss` is doubled by `coefficient` 2.
    """
    critic = Method(
        slug=f"{slug}_critic",
        value_target=OneStep(discount),
        losses={"value": Term(ValueLoss(), coefficient)},
        step=Adam(critic_learning_rate, weight_decay=weight_decay, max_gradient_norm=None),
    )
    return Method(
        slug=slug,
        losses={"policy": Term(Outcome())},
        step=Adam(learning_rate, max_gradient_norm=None),
        companions={"critic": critic},
    )


@register(
    "td3",
    title="Addressing function approximation error in actor-critic methods",
    paper="Fujimoto et al., ICML",
    year=2018,
    url="https://arxiv.org/abs/1802.09477",
    family="control",
    status="baseline",
)
def td3(
    discount: float = 0.99,
    critics: int = 2,
    policy_every: int = 2,
    smoothing: float = 0.2,
    smoothing_clip: float = 0.5,
    exploration: float = 0.1,
    target_rate: float = 0.005,
    batch: int = 100,
    capacity: int = 1_000_000,
    start: int = 1000,
    updates: int = 1,
    learning_rate: float = 1e-3,
    critic_learning_rate: float = 1e-3,
) -> Method:
    """Twin delayed deep deterministic policy gradient.

    Args:
        discount: gamma, in [0, 1].
        critics: K networks, of which the smallest target counts; the policy follows the first, >= 1.
        policy_every: d, updates of the critics for one of the policy and the targets, >= 1.
        smoothing: deviation of the noise on the target's action, in half action ranges, >= 0.
        smoothing_clip: the largest such noise, >= 0.
        exploration: deviation of the normal noise on the taken action, in half action ranges, >= 0.
        target_rate: share of the way that the targets move, in (0, 1].
        batch: transitions per update, >= 1.
        capacity: transitions that the replay memory holds, >= batch.
        start: environment steps of uniform actions before the first update, >= batch.
        updates: of the critics per environment step, >= 1.
        learning_rate: of the policy's Adam, > 0.
        critic_learning_rate: of the critics' Adam, > 0.
    """
    within("discount", discount, "[0, 1]", "Use 0.99")
    whole("critics", critics, 1, "Use 2")
    whole("policy_every", policy_every, 1, "Use 2")
    for name, deviation in (("smoothing", smoothing), ("smoothing_clip", smoothing_clip), ("exploration", exploration)):
        within(name, deviation, "[0, inf)", "Actions range from -1 to 1; use 0.1 to 0.5, or 0 for none")
    within("target_rate", target_rate, "(0, 1]", "Use 0.005; 1 copies")
    replay_sizes(batch, capacity, start, updates)
    within("learning_rate", learning_rate, "(0, inf)", "Use 1e-3")
    within("critic_learning_rate", critic_learning_rate, "(0, inf)", "Use 1e-3")
    return deterministic("td3", discount, 2.0, learning_rate, critic_learning_rate, 0.0)
