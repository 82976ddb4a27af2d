"""One arm on one map with one seed: train, then say what the policy's own walks and its most likely walk are worth."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

import ascent
from ascent.evaluation.returns import evaluate_returns
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.systems.trial import Record
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.gym import Environments
from ascent.worlds.submodular.grid import SubmodularGrid
from ascent.worlds.submodular.maps import MAPS

WALKS, STEPS, LAST, FRESH = 32, 120, 12, 100

# What differs between the arms: the estimator, what is paid, what the policy sees.
ARMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "ModPO": ({}, "additive", "place"),
    "to go": ({}, "gain", "place"),
    "greedy": ({"credit": "greedy"}, "gain", "place"),
    "released": ({"credit": "official", "baseline": "none"}, "gain", "place"),
    "released, baseline": ({"credit": "official"}, "gain", "place"),
    "whole": ({"credit": "trajectory"}, "gain", "place"),
    "whole, no baseline": ({"credit": "trajectory", "baseline": "none"}, "gain", "place"),
    "to go, no baseline": ({"baseline": "none"}, "gain", "place"),
    "ModPO, history": ({}, "additive", "visited"),
    "to go, history": ({}, "gain", "visited"),
}


def walk(name: str, arm: str, rate: float, seed: int) -> dict[str, Any]:
    """Train `arm` on the map and measure F of its walks, which is not always what it was paid.

    Returns:
        curve, entropy: mean F and nats a move of the walks of every collection; mean, median, max: F of fresh walks of
        the last policy; path, likely: the cells and F of its most likely walk.
    """
    parameters, pay, observe = ARMS[arm]
    ground = MAPS[name]()
    if parameters.get("credit") == "official":
        alone = ground.worth([ground.first])
        parameters = {**parameters, "start_value": alone, "scale": 2.0 * (ground.horizon + 1)}
    method = ascent.method("submodular_rl", learning_rate=rate, **parameters)
    environments = Environments(lambda: SubmodularGrid(ground, observe, pay), WALKS)  # type: ignore[arg-type]
    policy = ActorCritic(environments.observation_size, Head.of(environments.actions), critic=False, seed=seed)
    # The baseline asks for the time since the start of a walk.
    sampler = VectorSampler(policy, environments, ground.horizon, seed=seed, elapsed=True)
    memory = Fresh()
    collect = Collect("collect", sampler, memory, statistics=lambda: {"F": worths(environments)})
    learn = Learn("policy", policy, method, memory, seed=seed, monitor=frozenset({"entropy"}))
    record = Record()
    Loop(System({"policy": policy}, {"fresh": memory}, (Phase("train", (collect, learn), STEPS),)), (record,)).run()
    entropy = [round(number, 4) for number in record.curve("entropy")]
    curve = [round(number, 4) for number in record.curve("F")]
    return {"curve": curve, "entropy": entropy, **fresh(policy, environments, seed)}


def ended(environments: Environments) -> list[SubmodularGrid]:
    """The copies behind their wrappers."""
    return [cast("SubmodularGrid", copy.unwrapped) for copy in environments.vector.envs]


def worths(environments: Environments) -> float:
    """Mean F of the walks that just ended. The copies have begun their next walk, so each says the last one's."""
    return float(np.mean(last(environments)))


def last(environments: Environments) -> list[float]:
    """F of the walk that each copy ended last."""
    return [copy.ground.worth(copy.walked) for copy in ended(environments)]


def fresh(policy: ActorCritic, environments: Environments, seed: int) -> dict[str, Any]:
    """Walks that the last policy draws, and the walk that it finds most likely."""
    ground = ended(environments)[0].ground
    sampler = VectorSampler(policy, environments, ground.horizon, seed=10_000 + seed)
    found: list[float] = []
    while len(found) < FRESH:
        sampler.act()
        found += last(environments)
    evaluate_returns(policy, environments, 1)
    path = ended(environments)[0].walked
    summary = {"mean": float(np.mean(found)), "median": float(np.median(found)), "max": float(np.max(found))}
    return {**summary, "path": path, "likely": ground.worth(path)}
