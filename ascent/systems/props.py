"""PROPS as a program: a behaviour policy acts, the target learns from the buffer, the behaviour is fitted anew.

    round = Repeat(n / m: Collect m steps with pi_phi -> buffer of b n steps
                          Learn(target) every n steps on the whole buffer, as if it were on-policy
                          phi <- theta; Learn(behaviour) on the buffer without its oldest m steps)

Corrado and Hanna 2023, arXiv 2311.08290; the method file tells the equations. Log-probs, values and advantages of
the whole buffer are recomputed under the present target at each draw, and raw observations and rewards are normalised
again by the present statistics.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.policies.actor_critic import ActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, ControlConfig
from ascent.systems.control import consumed, evaluator, sampling, saver, world
from ascent.training.annotate import Scorer
from ascent.training.learn import Learn
from ascent.training.loop import System
from ascent.training.memory import Memory, Remaining, Window
from ascent.training.processes import Processes
from ascent.training.program import Collect, Phase, Repeat, Stage, copy_parameters


class Renormalised:
    """A view of a memory whose observations and rewards are normalised by the sampler's present statistics."""

    def __init__(self, memory: Memory, sampler: VectorSampler) -> None:
        self.memory, self.sampler = memory, sampler

    def put(self, collection: Decisions) -> None:
        self.memory.put(collection)

    def draw(self, round_: int) -> Decisions:
        drawn = self.memory.draw(round_)
        statistics, scale = self.sampler.observation_statistics, self.sampler.reward_scale
        if statistics is not None:
            context = {
                name: torch.from_numpy(statistics.normalise(drawn.column(f"raw_{name}").numpy()))
                for name in ("observation", "next_observation")
            }
            drawn = drawn.with_context({**drawn.context, **context})
        if scale is not None:
            drawn = drawn.replace(reward=torch.from_numpy(scale.statistics.scale(drawn.column("raw_reward").numpy())))
        return drawn

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The memory that is viewed carries the content."""


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where the behaviour batch does not divide over the environments, or the policy is recurrent."""
    if not isinstance(config, ControlConfig):
        raise BadConfig(f"method {method.slug!r} needs an environment, and {config.world!r} is a task; give --env ID.")
    refuse_unfed(config, method)
    behaviour_batch = int(method.parameters["behaviour_batch"])
    if config.recurrent:
        raise BadConfig(
            "recurrent must be off for props: its buffer joins collections of different memories. Drop --recurrent."
        )
    if config.horizon is not None:
        raise BadConfig("horizon is no choice of props runs; set the behaviour batch: --set behaviour_batch=256")
    if behaviour_batch % config.environments:
        raise BadConfig(
            f"environments must divide behaviour_batch={behaviour_batch}; got {config.environments}. "
            "Take environments=1."
        )


def build(config: ControlConfig, method: Method, processes: Processes) -> Assembly:
    """The assembly of `props`. A step of the run is one batch of n environment steps.

    Raises:
        BadConfig: the behaviour batch does not divide over the environments, or the policy is recurrent.
    """
    refuse(config, method)
    sizes = method.parameters
    batch, behaviour_batch = int(sizes["batch"]), int(sizes["behaviour_batch"])
    environments, target = world(config, method, processes)
    assert isinstance(target, ActorCritic)
    behaviour = copy.deepcopy(target)
    sampler = VectorSampler(
        behaviour, environments, behaviour_batch // config.environments, **sampling(config, environments, processes)
    )
    turns = batch // behaviour_batch
    window = Window(int(sizes["buffer_batches"]) * turns)
    collect = Collect("collect", sampler, window, statistics=sampler.statistics, processes=processes)
    learn = Learn(
        "policy",
        target,
        method,
        Renormalised(window, sampler),
        seed=config.seed,
        every=turns,
        monitor=frozenset({"entropy"}),
        micro_rows=config.micro_rows,
    )
    stages: list[Stage] = [collect, learn]
    if "behaviour" in method.companions:
        kept: Memory = Remaining(window) if sizes["skip_oldest"] else window
        stages.append(
            Learn(
                "behaviour",
                behaviour,
                method.companions["behaviour"],
                Renormalised(kept, sampler),
                seed=config.seed + 1,
                before=(copy_parameters(target, behaviour),),
                scorers=scorers(method, target, behaviour),
            )
        )
    else:
        stages.append(Synchronise("behaviour", target, behaviour))
    phase = Phase("train", (Repeat("batch", turns, stages),), config.steps)
    models = {"policy": target, "behaviour": behaviour}
    system = System(
        models, {"buffer": window}, (phase,), evaluator(config, target, sampler), consumed(sampler, processes)
    )
    return Assembly(system, method, "steps", "return", saver(config, target, sampler))


def scorers(method: Method, target: ActorCritic, behaviour: ActorCritic) -> dict[str, Scorer]:
    """What the behaviour's method may ask for: the target's distribution, and its advantage (AW-PROPS)."""

    def advantage(decisions: Decisions) -> torch.Tensor:
        needed = frozenset({"value", "next_value", "old_log_prob"})
        return method.credit(target.annotate(decisions, needed)).advantage

    return {"reference_distribution": target.distribution_parameters, "target_advantage": advantage}


class Synchronise:
    """A stage that only copies the target into the behaviour policy: PPO with a buffer."""

    def __init__(self, name: str, target: ActorCritic, behaviour: ActorCritic) -> None:
        self.name, self.copy = name, copy_parameters(target, behaviour)

    def run(self, loop: object, round_: int) -> None:
        self.copy()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""
