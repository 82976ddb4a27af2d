"""Ensembles of uncertain critics: PPO's loop with K values on one trunk, or SAC's with 2 K networks."""

from __future__ import annotations

from ascent.core.method import Method
from ascent.systems import control, off_policy
from ascent.systems.assembly import Assembly
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.training.processes import Processes


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The assembly of the algorithm that the method was asked for."""
    if not isinstance(config, ControlConfig):
        raise BadConfig("ggtd learns in an environment; give --env, for example --env ascent/NoisyCartPole-v0.")
    if "critic" in method.companions:
        return off_policy.build(config, method, processes)
    if config.recurrent:
        raise BadConfig("recurrent must be off for ggtd: the recurrent policy has one value. Drop --recurrent.")
    return control.build(config, method, processes)
