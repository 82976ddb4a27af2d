"""Learning from demonstrations as a run: the same loop, progress, checkpoints and held-out evaluation.

Demonstrations are a task's written solutions, or those of own data: a row's `completion`, `solution` or `answer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.utils.logging import disable_progress_bar

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.methods.otr import OneToken
from ascent.policies.causal import CausalPolicy
from ascent.policies.one_token import OneTokenPolicy
from ascent.policies.policy import Policy
from ascent.sampling.demonstrations import demonstrations
from ascent.systems.assembly import Assembly, refuse_small, refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.systems.language import HeldOut, load_policy, own_rewards, world
from ascent.training.learn import Learn
from ascent.training.loop import System
from ascent.training.memory import Fresh
from ascent.training.processes import Processes
from ascent.training.program import Collect, Phase
from ascent.worlds.text.data import Data
from ascent.worlds.text.score import TextScore
from ascent.worlds.text.task import TextTask

GIVEN = frozenset({"mask", "action", "log_prob", "entropy", "features", "key", "index", "group", "terminated"})
GIVEN |= {"truncated", "advantage", "probe:one_token", "probe:one_token_hits"}


class Solutions:
    """A sampler whose decisions are a task's correct written solutions, `batch` problems an act."""

    def __init__(self, task: TextTask, policy: CausalPolicy, batch: int, seed: int) -> None:
        self.task, self.policy, self.batch, self.seed, self.consumed = task, policy, batch, seed, 0

    def act(self, step: int) -> Decisions:
        self.consumed += self.batch
        return demonstrations(self.task, self.policy, step, self.batch, self.seed, corrupted=0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"consumed": self.consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.consumed = int(state["consumed"])


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The assembly of methods that learn from demonstrations (sft, otr).

    Raises:
        BadConfig: before a model loads, where there are no demonstrations, or the method needs more than they hold.
    """
    if not isinstance(config, LanguageConfig):
        refuse_unfed(config, method)
        raise BadConfig(f"method {method.slug!r} learns from demonstrations of a text task; give --task.")
    missing = sorted(method.needs - GIVEN)
    if missing:
        raise BadConfig(f"method {method.slug!r} needs {', '.join(missing)}, which demonstrations do not give.")
    if config.scored is not None:
        raise BadConfig(
            f"method {method.slug!r} learns from demonstrations, not from scores; drop --scored and give --data FILE: "
            "JSONL of prompt and completion."
        )
    refuse_small(method.plan, config.batch, config.batch, config.batch)
    disable_progress_bar()
    rewards = own_rewards(config)
    task = world(config, rewards)
    if isinstance(task, Data):
        refuse_silent(task)
    policy = load_policy(config, task, method, processes)
    sampler, memory = Solutions(task, policy, config.batch, config.seed), Fresh()
    # Every process writes down the same demonstrations; the learning stage shares them out.
    demonstrate = Collect("demonstrate", sampler, memory)
    learn = Learn(
        "policy",
        evaluated(policy, method),
        method,
        memory,
        seed=config.seed,
        micro_rows=config.micro_rows,
        monitor=frozenset({"entropy"}),
    )
    score = TextScore(task, policy.tokenizer, rewards, config.reward_timeout)
    budget = config.max_new_tokens or task.max_new_tokens
    evaluate = HeldOut(config, policy, task, score, budget) if config.evaluate_every else None
    phase = Phase("train", (demonstrate, learn), config.steps)
    system = System({"policy": policy}, {"memory": memory}, (phase,), evaluate, lambda: sampler.consumed)
    return Assembly(system, method, "tokens", "pass@1" if config.data is None else "reward", policy.save)


def refuse_silent(task: Data) -> None:
    """Raise BadConfig, which names the prompt, where a row of own data demonstrates nothing."""
    try:
        for index in range(len(task.train)):
            task.demonstration(index)
    except ValueError as error:
        raise BadConfig(f"data: {error}") from error


def evaluated(policy: CausalPolicy, method: Method) -> Policy:
    """The policy as the method must see it: with the probes of one-token rollouts where there are any."""
    rollouts = [part for part in method.parts.values() if isinstance(part, OneToken)]
    if len(rollouts) > 1:
        raise BadConfig(
            f"method {method.slug!r} has {len(rollouts)} one-token rollouts; a policy serves one."
        )
    return OneTokenPolicy(policy, rollouts[0].bandit) if rollouts else policy
