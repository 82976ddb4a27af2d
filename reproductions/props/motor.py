"""C: continuous actions, Pendulum-v1: sampling error of fixed targets (rate 0), then PPO with and without PROPS.

The reference of every number is on-policy: fresh samples of the same target policies, the same buffer size and fit.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import ascent
from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.evaluation.returns import evaluate_returns
from ascent.evaluation.sampling_error import fitted_sampling_error
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.training.memory import along_time
from ascent.worlds.gym import Environments

from .sampling import Buffer, play

ENVIRONMENT, SEEDS, BATCH, BEHAVIOUR_BATCH = "Pendulum-v1", 5, 1024, 256
FIXED_BATCHES, TRAINED_BATCHES, LEARNING_BATCHES = (1, 2, 4, 8), 40, 12
MEASURED_EVERY = 3  # batches
FIT: dict[str, Any] = {"steps": 300, "learning_rate": 1e-2}
SETTINGS: dict[str, Any] = {
    "batch": BATCH,
    "behaviour_batch": BEHAVIOUR_BATCH,
    "behaviour_target_kl": 0.05,
    "kl_coefficient": 0.1,
    "behaviour_passes": 8,
    "behaviour_minibatches": 8,
    "behaviour_learning_rate": 2e-3,
    "discount": 0.9,
    "passes": 10,
    "minibatches": 8,
    "anneal": False,
}
FIXED = (("trained", "on-policy"), ("trained", "PROPS"), ("random", "on-policy"), ("random", "PROPS"))
# Learning: who collects, how many batches the buffer holds, how many times the steps.
LEARNING: dict[str, tuple[str, int, int]] = {
    "PPO-Buffer, b = 2": ("target", 2, 1),
    "PROPS, b = 2": ("props", 2, 1),
}


def fresh_policy(seed: int) -> ActorCritic:
    """64-64 tanh actor and critic for the pendulum's 3 observations and 1 action; tanh on the mean, as the paper."""
    return ActorCritic(3, Head("gaussian", (), 1, tanh_mean=True), seed=seed)


@functools.lru_cache(maxsize=1)
def trained_policy(seed: int) -> ActorCritic:
    """A target that PPO trained on fresh batches."""
    target = fresh_policy(seed)
    method = ascent.method("props", objective="none", **SETTINGS)
    play(
        Environments(ENVIRONMENT),
        target,
        Buffer(BATCH, BATCH),
        TRAINED_BATCHES,
        seed,
        learner=method,
        normalise_reward=True,
    )
    return target


def fixed(kind: str, name: str, seed: int) -> list[float]:
    """Sampling error of a growing buffer of one fixed target, after each of `FIXED_BATCHES`."""
    target = copy.deepcopy(trained_policy(1000) if kind == "trained" else fresh_policy(seed))
    behaviour: Method | str = "target"
    if name == "PROPS":
        behaviour = ascent.method("props", **SETTINGS).companions["behaviour"]
    found: list[float] = []

    def look(buffer: Decisions, turn: int) -> None:
        if buffer.mask.numel() in [BATCH * batches for batches in FIXED_BATCHES]:
            found.append(fitted_sampling_error(target, buffer, **FIT))

    total = BATCH * FIXED_BATCHES[-1]
    play(
        Environments(ENVIRONMENT),
        target,
        Buffer(total, BEHAVIOUR_BATCH),
        1,
        seed,
        behaviour=behaviour,
        look=look,
        look_every=1,
    )
    return found


def learning(name: str, seed: int) -> dict[str, Any]:
    """One run: sampling error of the buffer before each update, of its on-policy reference, and the final return."""
    kind, batches, times = LEARNING[name]
    target = fresh_policy(seed)
    method = ascent.method("props", objective="none" if kind == "target" else "props", **SETTINGS)
    behaviour: Method | str = method.companions["behaviour"] if kind == "props" else "target"
    reference = VectorSampler(target, Environments(ENVIRONMENT), BATCH * times, seed + 10_000)
    drawn: list[Decisions] = []
    errors: list[float] = []
    references: list[float] = []

    def look(buffer: Decisions, turn: int) -> None:
        # The same target policies as the buffer's, each sampled anew from itself.
        drawn[:] = [*drawn, reference.act()][-batches:]
        if turn // (BATCH // BEHAVIOUR_BATCH) % MEASURED_EVERY == 0:
            errors.append(fitted_sampling_error(target, buffer, **FIT))
            references.append(fitted_sampling_error(target, along_time(drawn), **FIT))

    play(
        Environments(ENVIRONMENT),
        target,
        Buffer(BATCH * times, BEHAVIOUR_BATCH * times, batches, fresh=batches == 1),
        LEARNING_BATCHES,
        seed,
        behaviour=behaviour,
        learner=method,
        look=look,
        normalise_reward=True,
    )
    return {"errors": errors, "references": references, "return": evaluate_returns(target, ENVIRONMENT, 20, seed).mean}
