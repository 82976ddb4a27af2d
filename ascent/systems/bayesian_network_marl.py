"""A team in a PettingZoo environment: Collect -> Learn, with a policy over a graph of its agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save_file

from ascent.core.method import Method
from ascent.evaluation.team_returns import evaluate_team
from ascent.policies.bayesian_network import BayesianNetwork
from ascent.sampling.teams import TeamSampler
from ascent.systems.assembly import Assembly, refuse_small, refuse_unfed
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.systems.control import widths
from ascent.systems.manifest import write
from ascent.training.learn import Learn
from ascent.training.loop import System
from ascent.training.memory import Fresh
from ascent.training.popart import PopArt
from ascent.training.processes import Processes
from ascent.training.program import Collect, Phase
from ascent.worlds.teams.parallel import Teams

HORIZON = 25


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The assembly of a team.

    Raises:
        BadConfig: no environment is named, or a setting does not fit a team.
    """
    refuse_options(config, method)
    assert isinstance(config, ControlConfig)
    if config.environments % processes.count:
        raise BadConfig(
            f"environments must be a multiple of the {processes.count} processes; got {config.environments}."
        )
    steps = HORIZON if config.horizon is None else config.horizon
    teams = world(config, config.environments // processes.count)
    refuse_small(method.plan, config.environments, config.environments, config.environments * steps * teams.agents)
    policy = policy_of(config, method, teams)
    sampler = TeamSampler(policy, teams, steps, config.seed, (processes.rank, processes.count))
    memory = Fresh()
    learn = Learn(
        "policy",
        policy,
        method,
        memory,
        seed=config.seed,
        micro_rows=config.micro_rows,
        monitor=frozenset({"entropy"}),
        moved=PopArt(policy.value_layers, method) if method.parameters.get("popart") else None,
    )
    collect = Collect("collect", sampler, memory, statistics=sampler.statistics, processes=processes)
    system = System(
        {"policy": policy},
        {"fresh": memory},
        (Phase("train", (collect, learn), config.steps),),
        evaluator(config, policy),
        lambda: sampler.consumed,
    )
    return Assembly(system, method, "steps", "return", saver(config, method, policy, teams))


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where the world is no team game, or an option does not fit a team."""
    refuse_options(config, method)
    assert isinstance(config, ControlConfig)
    world(config, 1)


def refuse_options(config: Config, method: Method) -> None:
    """Raise BadConfig for what teams do not do."""
    if not isinstance(config, ControlConfig):
        raise BadConfig("bayesian_network_marl learns in a team game; give --env, for example --env ascent/Aloha-v0.")
    if config.normalise_observation or config.normalise_reward:
        raise BadConfig(
            "normalise_observation and normalise_reward must be off for teams: observations are learned from as they "
            "are, and values are scaled by the method."
        )
    if method.plan.unit != "row":
        raise BadConfig(f"a team learns from whole rows; got plan unit {method.plan.unit!r}. Use unit='row'.")
    refuse_unfed(config, method)


def world(config: ControlConfig, count: int) -> Teams:
    """Copies of the configured environment."""
    try:
        return Teams(config.env, count, config.env_arguments)
    except (TypeError, ValueError) as error:
        raise BadConfig(f"env {config.env} with {config.env_arguments}: {error}") from error


def policy_of(config: ControlConfig, method: Method, teams: Teams) -> BayesianNetwork:
    """A fresh policy over the graph that the method was asked for."""
    asked = method.parameters
    return BayesianNetwork(
        teams.agents,
        teams.observation_size,
        teams.actions,
        teams.state_size,
        graph=asked.get("graph", "learned"),
        density=asked.get("density", 0.5),
        hidden=widths(config),
        seed=config.seed,
        critic=asked.get("critic", "central"),
        recurrent=config.recurrent,
    )


def evaluator(config: ControlConfig, policy: BayesianNetwork) -> Callable[[int], Mapping[str, float]]:
    """Returns over held-out episodes with the likeliest graphs and actions, and the share of open edges."""

    def evaluate(step: int) -> Mapping[str, float]:
        held_out = world(config, min(4, config.episodes))
        found = evaluate_team(policy, held_out, config.episodes)
        held_out.close()
        return {
            "return": float(found.returns.mean()),
            "deviation": float(found.returns.std()),
            "length": float(found.lengths.mean()),
            "open_ratio": found.open_ratio,
        }

    return evaluate


def saver(config: ControlConfig, method: Method, policy: BayesianNetwork, teams: Teams) -> Callable[[Path], None]:
    """Writes policy.safetensors and policy.json."""

    def save(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in policy.state_dict().items()}
        save_file(weights, folder / "policy.safetensors")
        description = {
            "env": config.env,
            "env_set": config.env_arguments,
            "hidden": list(widths(config)),
            "graph": policy.graph.kind,
            "density": policy.graph.density,
            "critic": method.parameters.get("critic", "central"),
            "recurrent": config.recurrent,
            "agents": [str(name) for name in teams.names],
        }
        write(folder / "policy.json", description)

    return save
