"""CAPO as an assembly: the language assembly, a policy that gives its logits, and the optimiser as the step model."""

from __future__ import annotations

from ascent.core.method import Method
from ascent.methods.capo import mirrored
from ascent.policies.causal import CausalPolicy
from ascent.policies.with_logits import WithLogits
from ascent.systems import language
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.training.processes import Processes
from ascent.worlds.text.task import TextTask


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The language assembly; --learning-rate and --temperature of the run reach the step model."""
    refuse(config, method)

    def assist(
        config: LanguageConfig, policy: CausalPolicy, task: TextTask, processes: Processes
    ) -> language.Assistance:
        return WithLogits(policy), {}

    return language.build(config, mirrored(method, config.temperature), processes, assist=assist)


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where there is no language model, or the world does not feed the method."""
    if not isinstance(config, LanguageConfig):
        raise BadConfig("capo models the head of a language model; give --task or --data instead of --env.")
    refuse_unfed(config, method)
