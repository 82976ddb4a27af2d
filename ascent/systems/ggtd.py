"""Ensembles of uncertain critics: PPO's loop with K values on one trunk, or SAC's with 2 K networks."""

from __future__ import annotations

from ascent.core.method import Method
from ascent.systems import control, off_policy
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.training.processes import Processes


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The assembly of the algorithm that the method was asked for."""
    refuse(config, method)
    assert isinstance(config, ControlConfig)
    if "critic" in method.companions:
        return off_policy.build(config, method, processes)
    return control.build(config, method, processes)


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where the world or an option does not fit the algorithm that was asked for."""
    if not isinstance(config, ControlConfig):
        raise BadConfig("ggtd learns in an environment; give --env, for example --env ascent/NoisyCartPole-v0.")
    if "critic" in method.companions:
        off_policy.refuse(config, method)
        return
    if config.recurrent:
        raise BadConfig("recurrent must be off for ggtd: the recurrent policy has one value. Drop --recurrent.")
    refuse_unfed(config, method)
