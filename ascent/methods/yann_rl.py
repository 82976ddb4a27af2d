"""YANN-RL: reinforcement learning that starts at linear optimal control, and not at random.

Linear predictive control is solved once for all states. Its law is affine on polytopes, and is the policy; the cost of
the linear-quadratic problem is the critic; what both learn is added by networks that are 0 at first:

    policy   u(s) = K_i s + r_i + N_i(s)                     in the critical region i of s;  K_i, r_i constant
    critic   Q(s, u) = s'Q1 s + s'Q2 u + u'Q3 u + net([s, u])
             Q1 = Q + g A'PA,  Q2 = 2 g A'PB,  Q3 = R + g B'PB     P of the Riccati equation
    target   y = cost + g Q'(s', pi'(s'))                    J(Q) = E[(y - Q(s, u))^2]
    policy   J(pi) = E[Q(s, pi(s))], to be minimised         acting: u = pi(s), no noise

That is DDPG with other networks, another start and no exploration. "Y-wise affine neural networks" (YANN) are the
paper's name for the exact layers. Reinforcement Learning-based Control via Y-wise Affine Neural Networks (YANNs), 2025,
arXiv 2508.16474. Learning rates, target rates, batch, buffer and discount are not published.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.method import Method
from ascent.core.ranges import one_of, replay_sizes, whole, within
from ascent.core.registry import register
from ascent.methods.td3 import deterministic

Outside = Literal["zero", "nearest"]
ZeroLayer = Literal["first", "second"]
CriticStart = Literal["quadratic", "random"]
Riccati = Literal["undiscounted", "discounted"]
Search = Literal["auto", "enumeration", "neighbours"]


@register(
    "yann_rl",
    title="Reinforcement learning-based control via Y-wise affine neural networks (YANNs)",
    paper="Computers & Chemical Engineering",
    year=2026,
    url="https://arxiv.org/abs/2508.16474",
    family="control",
)
def yann_rl(
    horizon: int = 2,
    discount: float = 0.99,
    width: int = 16,
    critic_width: int = 64,
    initial: float = 0.01,
    zero: ZeroLayer = "first",
    outside: Outside = "zero",
    riccati: Riccati = "undiscounted",
    critic: CriticStart = "quadratic",
    exploration: float = 0.0,
    target_rate: float = 0.001,
    policy_target_rate: float = 0.001,
    batch: int = 64,
    capacity: int = 100_000,
    start: int = 64,
    updates: int = 1,
    learning_rate: float = 1e-5,
    critic_learning_rate: float = 1e-4,
    search: Search = "auto",
) -> Method:
    """DDPG from linear predictive control on.

    Args:
        horizon: N, steps that the predictive controller looks ahead, >= 1.
        discount: gamma, in (0, 1].
        width: of both layers of each region's network, >= 1.
        critic_width: of both layers of the critic's network, >= 1.
        initial: bound of the random initial weights, > 0.
        zero: layer of those networks that begins with zeros, "first" or "second".
        outside: of the feasible states the law says "zero", or the law of the "nearest" region.
        riccati: P of the "undiscounted" problem, or of the "discounted" one, which fits the targets.
        critic: begins as the "quadratic" cost, or "random", two layers of 64 units (a control).
        exploration: deviation of normal noise on the actions, in half action ranges, >= 0.
        target_rate: share of the way that the target critic moves, in (0, 1].
        policy_target_rate: share of the way that the target policy moves, in (0, 1].
        batch: transitions per update, >= 1.
        capacity: transitions that the replay memory holds, >= batch.
        start: environment steps of the policy's own actions before the first update, >= batch.
        updates: per environment step, >= 1.
        learning_rate: of the policy's Adam, > 0.
        critic_learning_rate: of the critic's Adam, > 0.
        search: for critical regions, "enumeration" of active sets, "neighbours" across facets, or "auto": the first up
            to 100,000 candidates, the second above.
    """
    whole("horizon", horizon, 1, "Use 2; the number of regions grows fast with it")
    within("discount", discount, "(0, 1]", "Use 0.99")
    whole("width", width, 1, "Use 16")
    whole("critic_width", critic_width, 1, "Use 64")
    within("initial", initial, "(0, inf)", "Use 0.01")
    one_of("zero", zero, ("first", "second"))
    one_of("outside", outside, ("zero", "nearest"))
    one_of("riccati", riccati, ("undiscounted", "discounted"))
    one_of("critic", critic, ("quadratic", "random"))
    one_of("search", search, ("auto", "enumeration", "neighbours"))
    within("exploration", exploration, "[0, inf)", "Use 0: noise undoes what the start is for")
    within("target_rate", target_rate, "(0, 1]", "Use 0.001; 1 copies")
    within("policy_target_rate", policy_target_rate, "(0, 1]", "Use 0.001; 1 copies")
    replay_sizes(batch, capacity, start, updates)
    within("learning_rate", learning_rate, "(0, inf)", "Use 1e-5")
    within("critic_learning_rate", critic_learning_rate, "(0, inf)", "Use 1e-4")
    return deterministic("yann_rl", discount, 2.0, learning_rate, critic_learning_rate, 0.0)
