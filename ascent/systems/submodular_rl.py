"""SubPO in an environment that pays marginal gains: ordinary control, with whole episodes as rows."""

from __future__ import annotations

import dataclasses

from ascent.core.method import Method
from ascent.systems import control
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.systems.environments import copies
from ascent.training.processes import Processes
from ascent.worlds.submodular.grid import SubmodularGrid


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The control assembly; a collection is one episode a copy where an environment says how long its episodes are.

    Gains to go of an episode that is cut by the end of a collection would lack what follows. A critic bootstraps there.
    """
    refuse(config, method)
    assert isinstance(config, ControlConfig)
    if config.horizon is None and not {"value", "next_value"} & method.needs:
        config = dataclasses.replace(config, horizon=episode(config))
    return control.build(dataclasses.replace(config, normalise_reward=False), method, processes)


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where there is no environment, or gains would be scaled."""
    if not isinstance(config, ControlConfig):
        raise BadConfig("submodular_rl collects on a map; give --env, for example --env ascent/Coverage-v0.")
    if config.normalise_reward:
        raise BadConfig("normalise_reward must be off for submodular_rl: scaled gains no longer add up to F.")
    refuse_unfed(config, method)


def episode(config: ControlConfig) -> int:
    """Steps of an episode: the map's, or the environment's registered limit."""
    environments = copies(config, 1)
    environment = environments.vector.envs[0]
    limit = environment.spec.max_episode_steps if environment.spec is not None else None
    environments.close()
    if isinstance(environment.unwrapped, SubmodularGrid):
        return environment.unwrapped.ground.horizon
    if limit is None:
        raise BadConfig(f"horizon must be given: {config.env} does not say how long its episodes are.")
    return limit
