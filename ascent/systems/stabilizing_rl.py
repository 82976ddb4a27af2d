"""MiniRL as a run: an engine of lower precision samples, the policy trains, and routes travel between the two.

Qwen team 2025, arXiv 2512.01374; the method file tells the equations.
"""

from __future__ import annotations

from ascent.core.method import Method
from ascent.policies.causal import CausalPolicy
from ascent.policies.engine import Engine, Precision
from ascent.policies.mixture import MixturePolicy, Replaying, embedded_mixture
from ascent.sampling.decode import DecoderFactory
from ascent.sampling.engine import EngineSampler
from ascent.sampling.text import TextSampler
from ascent.systems import language
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.systems.warm_up import DENSE, Start
from ascent.training.processes import Processes
from ascent.worlds.text.task import TextTask

REPLAYED = ("R2", "R3")


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The language assembly, with an engine that answers.

    Raises:
        BadConfig: before a model loads, where the run cannot feed the method; where a given model has no routers.
    """
    refuse(config, method)
    assert isinstance(config, LanguageConfig)
    chosen = method.parameters
    replay, noise = str(chosen["replay"]), float(chosen["router_noise"])
    precision: Precision = chosen["engine"]

    def respond(
        config: LanguageConfig, policy: CausalPolicy, task: TextTask, processes: Processes
    ) -> language.Responder:
        if config.scored is not None:
            return language.responder(config, policy, task, processes)

        def make(copy: CausalPolicy, decoder_of: DecoderFactory) -> TextSampler:
            return language.responder(config, copy, task, processes, decoder_of)

        engine = Engine(policy, precision, bool(chosen["engine_activations"]))
        return EngineSampler(engine, make, routes=replay in ("watch", "R3"), router_noise=noise)

    def assist(
        config: LanguageConfig, policy: CausalPolicy, task: TextTask, processes: Processes
    ) -> language.Assistance:
        return Replaying(policy) if replay in REPLAYED and isinstance(policy, MixturePolicy) else policy, {}

    try:
        return language.build(config, method, processes, respond, assist, start(method))
    except ValueError as error:
        if "no router that is known" in str(error):
            raise BadConfig(f"model {config.model!r}: {error}") from error
        raise


def start(method: Method) -> Start:
    """The embedded model of a run: dense, or a mixture of experts."""
    experts, per_token = int(method.parameters["experts"]), int(method.parameters["experts_per_token"])
    if not _mixed(method):
        return DENSE

    def make(alphabet: str, seed: int, context: int) -> CausalPolicy:
        return embedded_mixture(alphabet, seed, experts, per_token, context=context)

    return Start(MixturePolicy, make, ("mixture", experts, per_token))


def _mixed(method: Method) -> bool:
    chosen = method.parameters
    return bool(chosen["experts"] or chosen["router_noise"] or chosen["replay"] != "off")


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where there is no language model, no router to replay, or the world does not feed the method."""
    if not isinstance(config, LanguageConfig):
        raise BadConfig("stabilizing_rl has two engines of a language model; give --task or --data instead of --env.")
    chosen = method.parameters
    if config.model == "embedded" and _mixed(method) and not chosen["experts"]:
        named = f"replay={chosen['replay']!r}" if chosen["replay"] != "off" else "router_noise"
        raise BadConfig(f"{named} needs a mixture of experts; add --set experts=8, or give --model.")
    if config.scored is not None and (chosen["replay"] in ("watch", "R3") or chosen["router_noise"]):
        raise BadConfig("scored data hold no routes of an engine; take replay='off' or 'R2', and no router_noise.")
    refuse_unfed(config, method)
