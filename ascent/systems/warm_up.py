"""The embedded model's cold start: phase `sft` of the same loop on partly wrong solutions, cached."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ascent.core.decisions import Decisions
from ascent.core.plan import Adam, Linear
from ascent.core.random import key
from ascent.core.registry import method as build_method
from ascent.policies.causal import CausalPolicy
from ascent.policies.compiled import cache_folder
from ascent.policies.embedded import embedded
from ascent.sampling.demonstrations import demonstrations
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.processes import Processes
from ascent.training.program import Collect, Phase
from ascent.training.progress import ProgressBar
from ascent.worlds.text.task import TextTask

BATCH, LEARNING_RATE, CORRUPTED = 48, 3e-3, 0.5
RECIPE = 2  # raised when weights of an older recipe must not be reused


class Demonstrator:
    """A sampler whose decisions are a task's written solutions."""

    def __init__(self, task: TextTask, policy: CausalPolicy, seed: int, corrupted: float = CORRUPTED) -> None:
        self.task, self.policy, self.seed, self.consumed = task, policy, seed, 0
        self.corrupted = corrupted

    def act(self, step: int) -> Decisions:
        self.consumed += BATCH
        return demonstrations(self.task, self.policy, step, BATCH, self.seed, self.corrupted)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.consumed = state["consumed"]


@dataclass(frozen=True)
class Start:
    """What is warmed up.

    Attributes:
        kind: the class of policy.
        make: (alphabet, seed, context) -> a policy with fresh weights.
        words: tell it from other models in the cache.
    """

    kind: type[CausalPolicy] = CausalPolicy
    make: Callable[[str, int, int], CausalPolicy] = lambda alphabet, seed, context: embedded(
        alphabet, seed, context=context
    )
    words: tuple[object, ...] = ()


DENSE = Start()


def warmed_up(
    task: TextTask,
    steps: int,
    seed: int,
    temperature: float,
    value_head: bool,
    console: Console,
    processes: Processes,
    start: Start = DENSE,
) -> CausalPolicy:
    """The embedded policy after `steps` supervised updates; from the cache where it was made before.

    A run's seed changes the reinforcement learning; the warm-up has its own seed, the same for all runs of a
    comparison.
    """
    disable_progress_bar()  # of loading and writing weights: our own bar is the one to watch
    words = (RECIPE, task.name, repr(task), steps, seed, BATCH, LEARNING_RATE, CORRUPTED, *map(str, start.words))
    folder = cache_folder() / f"embedded-{task.name.replace('/', '-')}-{key(*words) & 0xFFFF_FFFF_FFFF:012x}"
    if not folder.exists() and processes.main:
        policy = start.make(task.alphabet, seed, _context(task))
        supervised(policy, task, steps, seed, console)
        aside = folder.with_name(f".writing-{folder.name}-{os.getpid()}")
        policy.save(aside)
        (aside / "warm_up.json").write_text(json.dumps({"recipe": [str(word) for word in words]}))
        try:
            aside.rename(folder)
        except OSError:  # another run finished the same model first
            shutil.rmtree(aside)
    processes.wait()
    return start.kind.load(folder, temperature=temperature, value_head=value_head)


def _context(task: TextTask) -> int:
    """Room for the longest prompt among the first problems, twice over, and an answer."""
    longest = max(len(str(task.example(index).prompt)) for index in range(64))
    return 2 * longest + task.max_new_tokens + 8


def supervised(
    policy: CausalPolicy,
    task: TextTask,
    steps: int,
    seed: int,
    console: Console,
    corrupted: float = CORRUPTED,
    title: str | None = None,
) -> None:
    """`steps` updates on written solutions, of which the share `corrupted` is wrong; the policy learns in place.

    `title` stands left of the progress bar; "warm-up <task>" when not given.
    """
    step = Adam(Linear(LEARNING_RATE, 0.05 * LEARNING_RATE), betas=(0.9, 0.99), warmup=20)
    memory = Fresh()
    learn = Learn("policy", policy, build_method("sft").replace(step=step), memory, seed=seed)
    demonstrate = Collect("demonstrate", Demonstrator(task, policy, seed, corrupted), memory)
    phase = Phase("sft", (demonstrate, learn), steps)
    with ProgressBar(console, title or f"warm-up {task.name}", "tokens") as bar:
        Loop(System({"policy": policy}, {"fresh": memory}, (phase,)), [bar]).run()
