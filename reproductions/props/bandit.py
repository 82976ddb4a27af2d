"""A: sampling error of a fixed 10-armed softmax target, N(0, 1) logits, in batches of 16 actions up to 1024."""

from __future__ import annotations

import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.random import generator
from ascent.evaluation.sampling_error import tabular_sampling_error
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.worlds.gym import Environments

from .sampling import Buffer, play

ARMS, BATCH, TOTAL, SEEDS = 10, 16, 1024, 12
SIZES = tuple(BATCH * 2**power for power in range(7))
SETTINGS = {
    "clip": 0.3,
    "kl_coefficient": 0.1,
    "behaviour_target_kl": 0.1,
    "behaviour_passes": 16,
    "behaviour_minibatches": 4,
    "behaviour_learning_rate": 0.02,
}
ROS_RATE = 10.0
CHANGES: dict[str, dict[str, float]] = {
    "PROPS": {},
    "PROPS, no clip": {"clip": float("inf")},
    "PROPS, no KL": {"kl_coefficient": 0.0},
}
SAMPLERS = ("on-policy", "ROS, m = 1", "ROS, m = 16", *CHANGES, "greedy")


def bandit(name: str, seed: int) -> list[float]:
    """Sampling error (nats) at each of `SIZES` actions."""
    environments = Environments("ascent/Bandit-v0")
    target = ActorCritic(1, Head.of(environments.actions), hidden=(), critic=False)
    with torch.no_grad():
        target.actor.layers[0].weight.copy_(torch.randn(ARMS, 1, generator=generator("target", seed)))
    found: list[float] = []

    def look(buffer: Decisions, turn: int) -> None:
        if buffer.mask.numel() in SIZES:
            found.append(tabular_sampling_error(target, buffer))

    behaviour: Method | str = "target" if name == "on-policy" else "greedy"
    if name.startswith("ROS"):
        ros = ascent.method("props", objective="ros", behaviour_learning_rate=ROS_RATE)
        behaviour = ros.companions["behaviour"]
    elif name in CHANGES:
        behaviour = ascent.method("props", **{**SETTINGS, **CHANGES[name]}).companions["behaviour"]
    size = 1 if name == "ROS, m = 1" else BATCH
    play(environments, target, Buffer(TOTAL, size), 1, seed, behaviour=behaviour, look=look, look_every=1)
    return found
