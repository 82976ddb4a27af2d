"""BAPO as a system: any language run, and with `segment_tokens` one of partial rollouts.

Xi et al. 2025, arXiv 2510.18927; the method file tells the equations.
"""

from __future__ import annotations

from ascent.core.method import Method
from ascent.policies.causal import CausalPolicy
from ascent.sampling.partial import PartialSampler
from ascent.sampling.text import Distribution
from ascent.systems import language
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.training.processes import Processes
from ascent.worlds.text.task import TextTask


def build(config: LanguageConfig, method: Method, processes: Processes) -> Assembly:
    """The assembly of `bapo`.

    Raises:
        BadConfig: before a model loads, where the run cannot feed the method.
    """
    refuse(config, method)
    segment = method.parameters.get("segment_tokens")
    if segment is None or not isinstance(config, LanguageConfig):
        return language.build(config, method, processes)

    def respond(
        config: LanguageConfig, policy: CausalPolicy, task: TextTask, processes: Processes
    ) -> language.Responder:
        return PartialSampler(
            policy,
            task,
            config.batch // config.group_size,
            config.group_size,
            config.max_new_tokens or task.max_new_tokens,
            int(segment),
            int(method.parameters["in_flight"]),
            Distribution(config.temperature, config.top_p, config.top_k),
            config.seed,
            (processes.rank, processes.count),
        )

    return language.build(config, method, processes, respond)


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where partial rollouts cannot be made so, or the world does not feed the method."""
    partial = method.parameters.get("segment_tokens") is not None
    if partial and isinstance(config, LanguageConfig) and (config.stop or config.scored is not None):
        named = "stop" if config.stop else "scored"
        raise BadConfig(f"{named} is no choice of partial rollouts; drop --{named}, or segment_tokens.")
    refuse_unfed(config, method)
