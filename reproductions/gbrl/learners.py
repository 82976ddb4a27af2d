"""One arm with one seed: train on fresh steps, and say how often its episodes succeeded, step by step."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import ascent
from ascent.core.method import Method
from ascent.core.plan import AppendTree
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.trees.policy import TreeActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.gym import Environments

# Trees (their further parameters) or a network, and how the room is written down for it.
ROOM: dict[str, tuple[dict[str, Any] | None, str]] = {
    "trees": ({}, "category"),
    "trees, separate": ({"shared": False}, "category"),
    "trees, one rate": ({"one_rate": True}, "category"),
    "trees, codes as numbers": ({}, "integer"),
    "network, codes as numbers": (None, "integer"),
    "network, one-hot": (None, "one_hot"),
}
RATES = {"trees": (0.05, 0.15, 0.5), "network": (3e-4, 1e-3, 3e-3)}
ROOM_COPIES, ROOM_HORIZON, ROOM_STEPS, RECENT = 16, 128, 40, 100
POLE_STEPS = 60


def room(arm: str, rate: float, seed: int) -> dict[str, Any]:
    """PPO in a DoorKey room of 4 x 4 cells: 4 walks of 8 minibatches over 2048 steps for every arm."""
    trees, observation = ROOM[arm]
    plan = {"passes": 4, "minibatches": 8, "entropy_coefficient": 0.01}
    if trees is None:
        method = ascent.method("ppo", learning_rate=rate, **plan)
    else:
        own = dict(trees)
        value_rate = rate if own.pop("one_rate", False) else rate / 10
        method = ascent.method("gbrl", learning_rate=rate, value_learning_rate=value_rate, **{**plan, **own})
    arguments = {"observation": observation, "size": 4, "steps": 60}
    environments = Environments("ascent/DoorKey-v0", ROOM_COPIES, arguments=arguments, codes=trees is not None)
    return learned(method, environments, ROOM_HORIZON, ROOM_STEPS, seed)


def pole(arm: str, rate: float, seed: int) -> dict[str, Any]:
    """CartPole-v1, 1024 steps a collection: trees in the paper's setting, a network with four walks a collection."""
    plan = {"discount": 0.98, "trace": 0.8, "minibatches": 16}
    if arm == "trees":
        own: dict[str, Any] = {"value_learning_rate": 0.015, "max_policy_gradient": 100.0, "max_value_gradient": 10.0}
        method = ascent.method("gbrl", learning_rate=rate, passes=1, **own, **plan)
    else:
        method = ascent.method("ppo", learning_rate=rate, passes=4, **plan)
    return learned(method, Environments("CartPole-v1", 8), 128, POLE_STEPS, seed)


def learned(method: Method, environments: Environments, horizon: int, steps: int, seed: int) -> dict[str, Any]:
    """Train.

    Returns:
        success, score: share of the last 100 episodes with a positive return, and their mean return, after each
        collection; final: their mean return in the end; seconds; bytes of the model.
    """
    head = Head.of(environments.actions)
    size = environments.observation_size
    policy: ActorCritic | TreeActorCritic
    if isinstance(method.step, AppendTree):
        policy = TreeActorCritic(size, head, method.step, categorical=environments.categorical)
    else:
        policy = ActorCritic(size, head, seed=seed)
    sampler = VectorSampler(policy, environments, horizon, seed=seed)
    memory = Fresh()
    success: list[float] = []
    score: list[float] = []

    class Watch:
        """Notes the running means after every collection."""

        def updated(self, loop: Loop) -> None:
            """Single updates are not kept."""

        def stepped(self, loop: Loop, metrics: Any) -> None:
            returns = [total for total, _ in sampler.recent]
            full = len(returns) == RECENT
            success.append(float(np.mean(np.array(returns) > 0)) if full else 0.0)
            score.append(float(np.mean(returns)) if returns else 0.0)

        def evaluated(self, loop: Loop, scores: Any) -> None:
            """Nothing is held out: what is reported are the training episodes, as in the paper."""

    stages = (Collect("collect", sampler, memory), Learn("policy", policy, method, memory, seed=seed))
    began = time.process_time()
    Loop(System({"policy": policy}, {"fresh": memory}, (Phase("train", stages, steps),)), [Watch()]).run()
    seconds = time.process_time() - began
    environments.close()
    return {"success": success, "score": score, "final": score[-1], "seconds": seconds, "bytes": weight(policy)}


def weight(policy: ActorCritic | TreeActorCritic) -> int:
    """Bytes of what a policy is saved as."""
    if isinstance(policy, TreeActorCritic):
        return sum(array.nbytes for ensemble in policy.ensembles for array in ensemble.state().values())
    return sum(tensor.numel() * tensor.element_size() for tensor in policy.parameters())
