"""CAPO as an assembly: the language assembly, a policy that gives its logits, and the optimiser as the step model.

Beside the policy the run leaves `rejected_tokens.json`: the tokens that were left out, the most frequent first.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from ascent.core.method import Method
from ascent.methods.capo import mirrored
from ascent.policies.causal import CausalPolicy
from ascent.policies.with_logits import WithLogits
from ascent.systems import language
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.systems.manifest import write
from ascent.training.learn import Learn
from ascent.training.processes import Processes
from ascent.worlds.text.task import TextTask


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The language assembly; --learning-rate and --temperature of the run reach the step model."""
    refuse(config, method)

    def assist(
        config: LanguageConfig, policy: CausalPolicy, task: TextTask, processes: Processes
    ) -> language.Assistance:
        return WithLogits(policy), {}

    assembly = language.build(config, mirrored(method, config.temperature), processes, assist=assist)
    learn = next(stage for stage in assembly.system.program[-1].stages if isinstance(stage, Learn))
    policy = assembly.system.models["policy"]
    assert isinstance(policy, CausalPolicy)

    def save(folder: Path) -> None:
        assembly.save(folder)
        counts = [part["refused_by_action"] for part in learn.state.parts.values() if "refused_by_action" in part]
        write(folder.parent / "rejected_tokens.json", listed(counts[0], policy) if counts else [])

    return dataclasses.replace(assembly, save=save)


def listed(counts: Tensor, policy: CausalPolicy) -> list[dict[str, str | int]]:
    """Every rejected token with how often it was, the most frequent first."""
    order = counts.argsort(descending=True, stable=True)
    rejected = order[counts[order] > 0].tolist()
    words = policy.tokenizer.convert_ids_to_tokens(rejected)
    return [{"token": word, "rejected": int(counts[token])} for word, token in zip(words, rejected, strict=True)]


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where there is no language model, or the world does not feed the method."""
    if not isinstance(config, LanguageConfig):
        raise BadConfig("capo models the head of a language model; give --task or --data instead of --env.")
    refuse_unfed(config, method)
