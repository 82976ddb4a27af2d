"""PROPS out of Ascent's own stages, with any target learner or none: fixed targets need no update of theta."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.greedy import GreedyTabular
from ascent.sampling.vector import VectorSampler
from ascent.systems.props import Synchronise, scorers
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Remaining, Window, along_time
from ascent.training.program import Collect, Phase, Repeat, Stage, copy_parameters
from ascent.worlds.gym import Environments


class Growing(Window):
    """Everything that was collected since the last `clear`, joined as it comes."""

    def put(self, collection: Decisions) -> None:
        self.parts = [along_time([*self.parts, collection])]

    def clear(self) -> None:
        """Forget all."""
        self.parts = []


class Call:
    """A stage that calls a function of the round, every so many rounds: measurements, recounts."""

    def __init__(self, name: str, function: Callable[[int], Any], every: int = 1) -> None:
        self.name, self.function, self.every = name, function, every

    def run(self, loop: Loop, round_: int) -> None:
        if (round_ + 1) % self.every == 0:
            self.function(round_)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""


class Unless:
    """A stage that gives way to another one where the buffer is empty."""

    def __init__(self, memory: Window, full: Stage, empty: Stage) -> None:
        self.name, self.memory, self.full, self.empty = full.name, memory, full, empty

    def run(self, loop: Loop, round_: int) -> None:
        (self.full if self.memory.parts else self.empty).run(loop, round_)

    def state_dict(self) -> dict[str, Any]:
        return self.full.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.full.load_state_dict(state)


@dataclass
class Buffer:
    """Sizes in environment steps: n between two target updates, m between two fits, b batches kept.

    `fresh` empties the buffer after each target update (then b = 1), so that everything in it is of the present target.
    """

    batch: int
    behaviour_batch: int
    batches: int = 1
    fresh: bool = True


def play(
    environments: Environments,
    target: ActorCritic,
    buffer: Buffer,
    rounds: int,
    seed: int,
    *,
    behaviour: Method | str = "target",
    learner: Method | None = None,
    look: Callable[[Decisions, int], Any] | None = None,
    look_every: int | None = None,
    **sampling: Any,
) -> VectorSampler:
    """`rounds` target batches. `behaviour` is a method that fits pi_phi, "target" (pi_phi = theta) or "greedy".

    `look(buffer, behaviour batches so far)` is called after a collection, before the target learns from it.
    """
    turns = buffer.batch // buffer.behaviour_batch
    window: Window = Growing(1) if buffer.fresh else Window(buffer.batches * turns)
    acting: Any = (
        GreedyTabular(target, environments.observation_size) if behaviour == "greedy" else copy.deepcopy(target)
    )
    steps = buffer.behaviour_batch // environments.count
    sampler = VectorSampler(acting, environments, steps, seed, **sampling)
    stages: list[Stage] = [Collect("collect", sampler, window)]
    if look is not None:
        stages.append(Call("look", lambda round_: look(window.draw(0), round_ + 1), look_every or turns))
    if learner is not None:
        stages.append(Learn("policy", target, learner, window, seed=seed, every=turns))
        if isinstance(window, Growing):
            stages.append(Call("empty", lambda round_: window.clear(), turns))
    if behaviour == "greedy":
        stages.append(Call("recount", lambda round_: recount(acting, window)))
    elif isinstance(behaviour, Method):
        kept = window if buffer.fresh else Remaining(window)
        before = (copy_parameters(target, acting),)
        fit = Learn(
            "behaviour",
            acting,
            behaviour,
            kept,
            seed=seed + 1,
            before=before,
            scorers=scorers(behaviour, target, acting),
        )
        stages.append(Unless(window, fit, Synchronise("copy", target, acting)))
    else:
        stages.append(Synchronise("behaviour", target, acting))
    phase = Phase("train", (Repeat("batch", turns, stages),), rounds)
    Loop(System({"policy": target}, {}, (phase,))).run()
    return sampler


def recount(greedy: GreedyTabular, window: Window) -> None:
    """Count the buffer anew, which may be empty."""
    if window.parts:
        greedy.recount(window.draw(0))
    else:
        greedy.count.zero_()
