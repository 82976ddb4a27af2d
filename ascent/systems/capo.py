"""CAPO as an assembly: the language assembly, a policy that gives its logits, and the optimiser as the step model."""

from __future__ import annotations

from ascent.core.method import Method
from ascent.methods.capo import mirrored
from ascent.policies.causal import CausalPolicy
from ascent.policies.with_logits import WithLogits
from ascent.systems import language
from ascent.systems.assembly import Assembly
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.training.processes import Processes
from ascent.worlds.text.task import TextTask


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The language assembly; --learning-rate and --temperature of the run reach the step model."""
    if not isinstance(config, LanguageConfig):
        raise BadConfig("capo models the head of a language model; give --task or --data instead of --env.")

    def assist(
        config: LanguageConfig, policy: CausalPolicy, task: TextTask, processes: Processes
    ) -> language.Assistance:
        return WithLogits(policy), {}

    return language.build(config, mirrored(method, config.temperature), processes, assist=assist)
