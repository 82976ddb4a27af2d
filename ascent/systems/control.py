"""A controller in a Gymnasium environment: Collect -> Learn, with the method's own plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from ascent.core.method import Method
from ascent.core.plan import AppendTree
from ascent.core.uncertainty import LAPLACE
from ascent.evaluation.returns import evaluate_returns
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import SPREAD, ActorCritic
from ascent.policies.recurrent import RecurrentActorCritic
from ascent.policies.trees.policy import TreeActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.systems.assembly import Assembly, refuse_small, refuse_unfed
from ascent.systems.config import BadConfig, ControlConfig
from ascent.systems.environments import copies
from ascent.systems.manifest import write
from ascent.training.learn import Learn
from ascent.training.loop import System
from ascent.training.memory import Fresh
from ascent.training.processes import Processes
from ascent.training.program import Collect, Phase
from ascent.worlds.gym import Environments
from ascent.worlds.normalisation import alone

Controller = ActorCritic | RecurrentActorCritic | TreeActorCritic


def build(config: ControlConfig, method: Method, processes: Processes) -> Assembly:
    """The assembly of any method that learns from one policy's fresh steps.

    Raises:
        BadConfig: the method needs what an environment does not give, or a size does not fit.
    """
    method = planned(config, method)
    refuse_unfed(config, method)
    environments, policy = world(config, method, processes)
    steps = horizon(config, environments)
    refuse_small(method.plan, config.environments, config.environments, config.environments * steps)
    options = sampling(config, environments, processes, normalise=not isinstance(policy, TreeActorCritic))
    sampler = VectorSampler(policy, environments, steps, elapsed="elapsed" in method.needs, **options)
    memory = Fresh()
    learn = Learn(
        "policy", policy, method, memory, seed=config.seed, micro_rows=config.micro_rows, monitor=frozenset({"entropy"})
    )
    collect = Collect("collect", sampler, memory, statistics=sampler.statistics, processes=processes)
    phase = Phase("train", (collect, learn), config.steps)
    system = System(
        {"policy": policy},
        {"fresh": memory},
        (phase,),
        evaluator(config, policy, sampler),
        consumed(sampler, processes),
    )
    return Assembly(system, method, "steps", "return", saver(config, policy, sampler))


def planned(config: ControlConfig, method: Method) -> Method:
    """The method; a recurrent policy learns from whole streams, trees are appended.

    Raises:
        BadConfig: the method's step is for trees, and the policy is to be a network.
    """
    grows = isinstance(method.step, AppendTree)
    if grows and (config.policy == "mlp" or config.recurrent or config.hidden is not None):
        raise BadConfig(
            f"policy must be trees for method {method.slug!r}, whose step appends a tree; drop --policy mlp, "
            "--recurrent and --hidden."
        )
    if config.policy == "trees" and not grows:
        if config.learning_rate is not None:
            return method.replace(step=AppendTree(config.learning_rate))
        return method.replace(step=AppendTree())
    if not config.recurrent:
        return method
    plan = dataclasses.replace(method.plan, unit="row", minibatches=min(method.plan.minibatches, config.environments))
    return method.replace(plan=plan)


def world(config: ControlConfig, method: Method, processes: Processes) -> tuple[Environments, Controller]:
    """The environment copies of this process and a fresh policy for them."""
    if config.environments % processes.count:
        raise BadConfig(
            f"environments must be a multiple of the {processes.count} processes; got {config.environments}."
        )
    grows = isinstance(method.step, AppendTree)
    environments = copies(config, config.environments // processes.count, codes=grows)
    head = Head.of(environments.actions)
    critic = bool({"value", "next_value"} & method.needs)
    size = environments.observation_size
    if isinstance(method.step, AppendTree):
        step = method.step
        weights = step.shape.feature_weights
        if weights is not None and len(weights) != size:
            raise BadConfig(f"feature_weights must be one number a feature, {size}; got {len(weights)}.")
        return environments, TreeActorCritic(size, head, step, critic, environments.categorical, seed=config.seed)
    if config.recurrent:
        return environments, RecurrentActorCritic(size, head, widths(config)[-1], critic, seed=config.seed)
    members = method.parameters.get("members")
    spread = LAPLACE if SPREAD in method.needs else None
    return environments, ActorCritic(
        size, head, widths(config), critic, seed=config.seed, members=members, spread=spread
    )


def widths(config: ControlConfig) -> tuple[int, ...]:
    """Of the hidden layers."""
    return (64, 64) if config.hidden is None else config.hidden


def horizon(config: ControlConfig, environments: Environments) -> int:
    """Steps of each copy per collection."""
    if config.horizon is not None:
        return config.horizon
    return max(2048 // config.environments, 1) if environments.actions.kind == "box" else 128


def sampling(
    config: ControlConfig, environments: Environments, processes: Processes, normalise: bool = True
) -> dict[str, Any]:
    """The sampler's options; continuous actions are normalised unless told otherwise.

    Trees see observations as they are (`normalise` False): old thresholds would refer to old statistics.
    """
    box = environments.actions.kind == "box"
    return {
        "seed": config.seed,
        "normalise_observation": box and normalise
        if config.normalise_observation is None
        else config.normalise_observation,
        "normalise_reward": box if config.normalise_reward is None else config.normalise_reward,
        "share": (processes.rank, processes.count),
        "exchange": alone if processes.count == 1 else lambda rows: np.concatenate(processes.everyone(rows)),
    }


def evaluator(
    config: ControlConfig, policy: Controller, sampler: VectorSampler
) -> Callable[[int], Mapping[str, float]]:
    """Returns over held-out episodes with deterministic actions."""

    def evaluate(step: int) -> Mapping[str, float]:
        held_out = copies(config, min(4, config.episodes), codes=isinstance(policy, TreeActorCritic))
        statistics = sampler.observation_statistics
        found = evaluate_returns(policy, held_out, config.episodes, observation_statistics=statistics)
        held_out.close()
        return {"return": found.mean, "deviation": found.deviation, "length": float(found.lengths.mean())}

    return evaluate


def consumed(sampler: VectorSampler, processes: Processes) -> Callable[[], int]:
    """Environment steps of all processes."""
    return lambda: sampler.consumed


def saver(config: ControlConfig, policy: Controller, sampler: VectorSampler) -> Callable[[Path], None]:
    """Writes policy.safetensors, policy.json and the observation statistics that the policy expects."""

    def save(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(policy, TreeActorCritic):
            policy.save(folder)
        else:
            weights = {name: tensor.contiguous() for name, tensor in policy.state_dict().items()}
            save_file(weights, folder / "policy.safetensors")
        statistics, trees = sampler.observation_statistics, isinstance(policy, TreeActorCritic)
        seen = None if statistics is None else {k: _plain(v) for k, v in statistics.state_dict().items()}
        description = {
            "env": config.env,
            "env_set": config.env_arguments,
            "hidden": None if trees else list(widths(config)),
            "policy": "trees" if trees else "mlp",
            "recurrent": config.recurrent,
        }
        write(folder / "policy.json", {**description, "observation_statistics": seen})

    return save


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
