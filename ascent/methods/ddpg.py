"""DDPG: a deterministic policy follows the gradient of its critic, off-policy.

From replayed transitions (s, a, r, s'), with primes for target networks:

    critic   y = r + gamma Q'(s', pi'(s'))                  J(Q) = E[(Q(s, a) - y)^2]
    policy   J(pi) = -E[Q(s, pi(s))]
    targets  Q' <- Q' + rate (Q - Q'), pi' alike
    acting   a = clip(pi(s) + n, -1, 1)                     n: an Ornstein-Uhlenbeck process

Lillicrap et al. 2015, "Continuous control with deep reinforcement learning", arXiv 1509.02971, Algorithm 1. Departures:
no batch normalisation; the critic sees the action in its first layer, not its second; weight decay is decoupled
(AdamW); the noise is stationary and goes on across episodes; the first steps are uniform; truncated episodes bootstrap.
"""

from __future__ import annotations

from typing import Literal

from ascent.core.method import Method
from ascent.core.ranges import one_of, replay_sizes, within
from ascent.core.registry import register
from ascent.methods.td3 import deterministic

Noise = Literal["ornstein_uhlenbeck", "normal"]


@register(
    "ddpg",
    title="Continuous control with deep reinforcement learning",
    paper="Lillicrap et al., ICLR",
    year=2016,
    url="https://arxiv.org/abs/1509.02971",
    family="control",
    status="baseline",
)
def ddpg(
    discount: float = 0.99,
    exploration: float = 0.2,
    noise: Noise = "ornstein_uhlenbeck",
    noise_pull: float = 0.15,
    target_rate: float = 0.001,
    batch: int = 64,
    capacity: int = 1_000_000,
    start: int = 1000,
    updates: int = 1,
    learning_rate: float = 1e-4,
    critic_learning_rate: float = 1e-3,
    critic_weight_decay: float = 0.01,
) -> Method:
    """Deep deterministic policy gradient.

    Args:
        discount: gamma, in [0, 1].
        exploration: sigma, deviation of the noise's increments in half action ranges, >= 0; 0 explores by nothing.
        noise: "ornstein_uhlenbeck", n <- (1 - noise_pull) n + sigma N(0, 1), or independent "normal" draws.
        noise_pull: theta of the Ornstein-Uhlenbeck process per step, in (0, 1].
        target_rate: tau, share of the way that the targets move, in (0, 1].
        batch: transitions per update, >= 1.
        capacity: transitions that the replay memory holds, >= batch.
        start: environment steps of uniform actions before the first update, >= batch.
        updates: per environment step, >= 1.
        learning_rate: of the policy's Adam, > 0.
        critic_learning_rate: of the critic's Adam, > 0.
        critic_weight_decay: of the critic, decoupled, >= 0.
    """
    within("discount", discount, "[0, 1]", "Use 0.99")
    within("exploration", exploration, "[0, inf)", "Actions range from -1 to 1; use 0.2, or 0 for none")
    one_of("noise", noise, ("ornstein_uhlenbeck", "normal"))
    within("noise_pull", noise_pull, "(0, 1]", "Use 0.15; 1 makes the draws independent")
    within("target_rate", target_rate, "(0, 1]", "Use 0.001; 1 copies")
    replay_sizes(batch, capacity, start, updates)
    within("learning_rate", learning_rate, "(0, inf)", "Use 1e-4")
    within("critic_learning_rate", critic_learning_rate, "(0, inf)", "Use 1e-3")
    within("critic_weight_decay", critic_weight_decay, "[0, inf)", "Use 0.01, or 0 for none")
    return deterministic("ddpg", discount, 2.0, learning_rate, critic_learning_rate, critic_weight_decay)
