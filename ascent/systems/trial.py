"""A short training in memory: a task, a policy, a method, and the numbers of every step. No run folder.

Experiments take it for their arms: equal prompts by seed, held-out scores on the way, nothing written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.evaluation.pass_at_k import pass_at_k
from ascent.policies.causal import CausalPolicy
from ascent.policies.mixture import Replaying
from ascent.policies.with_logits import WithLogits
from ascent.sampling.engine import EngineSampler
from ascent.sampling.partial import PartialSampler
from ascent.sampling.text import TextSampler, generate
from ascent.training.annotate import Scorer
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase, Stage
from ascent.worlds.text.score import TextScore
from ascent.worlds.text.task import Example, TextTask


@dataclass
class Record:
    """What a trial left: the metrics of each step, and the held-out scores by step."""

    steps: list[dict[str, float]] = field(default_factory=list)
    held_out: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def updated(self, loop: Loop) -> None:
        """Single updates are not kept."""

    def stepped(self, loop: Loop, metrics: Mapping[str, float]) -> None:
        self.steps.append({name: float(number) for name, number in metrics.items()})

    def evaluated(self, loop: Loop, scores: Mapping[str, float]) -> None:
        self.held_out.append((loop.step, dict(scores)))

    def curve(self, name: str) -> list[float]:
        """A metric by step; steps without it are left out."""
        return [step[name] for step in self.steps if name in step]


def trial(
    task: TextTask,
    policy: CausalPolicy,
    method: Method,
    *,
    steps: int,
    prompts: int,
    group_size: int,
    seed: int,
    scorers: Mapping[str, Scorer] | None = None,
    seen: WithLogits | Replaying | None = None,
    teacher: CausalPolicy | None = None,
    respond: Callable[[CausalPolicy], PartialSampler | EngineSampler] | None = None,
    accept: Callable[[Decisions], Any] | None = None,
    refill: int = 4,
    evaluate_every: int = 0,
    held_out: Sequence[Example] = (),
    samples: int = 4,
    watch: Callable[[Decisions], Mapping[str, float]] | None = None,
) -> Record:
    """Train `policy` in place.

    Args:
        task: prompts and verifier.
        policy: that learns, and answers unless `teacher` does.
        method: how it learns.
        steps: rounds of acting and learning.
        prompts, group_size: of one round.
        seed: of prompts, draws and dealing; equal seeds see equal prompts.
        scorers: as in `Learn`.
        seen: the policy as the method sees it (`WithLogits(policy)`); the policy itself when not given.
        teacher: who answers instead of the policy (supervised learning on a teacher's text).
        respond: makes the sampler of who answers (partial rollouts, a second engine); whole responses of the policy
            itself when not given.
        accept: rows that may stay, in place of the method's own.
        refill: further acts of a round where rows are refused.
        evaluate_every: rounds between two held-out evaluations; 0 is never.
        held_out: problems of the evaluation.
        samples: answers to each of them.
        watch: further numbers out of each collection, recorded under their names.
    """
    answering = policy if teacher is None else teacher
    sampler: TextSampler | PartialSampler | EngineSampler
    if respond is None:
        sampler = TextSampler(answering, task, prompts, group_size, task.max_new_tokens, seed=seed)
    else:
        sampler = respond(answering)
    sampler.consumed = seed * steps * prompts * (refill + 1)
    score = TextScore(task, policy.tokenizer)
    memory = Fresh()
    record = Record()
    collect = Collect(
        "collect", sampler, memory, score=score, accept=method.accept if accept is None else accept, refill=refill
    )
    stages: list[Stage] = [collect]
    learn = Learn(
        "policy",
        policy if seen is None else seen,
        method,
        memory,
        scorers=scorers,
        seed=seed,
        exact_behaviour=sampler.exact and teacher is None,
        monitor=frozenset({"entropy"}),
    )
    if watch is not None:
        stages.append(Watch(memory, watch))
    system = System(
        {"policy": policy},
        {"fresh": memory},
        (Phase("train", (*stages, learn), steps),),
        lambda step: scores(task, policy, score, held_out, samples, seed),
    )
    Loop(system, [record], evaluate_every=evaluate_every if held_out else 0).run()
    return record


class Watch:
    """A stage that reads the collection that is about to be learnt from."""

    def __init__(self, memory: Fresh, watch: Callable[[Decisions], Mapping[str, float]]) -> None:
        self.name, self.memory, self.watch = "watch", memory, watch

    def run(self, loop: Loop, round_: int) -> None:
        for part in self.memory.parts:
            loop.record({name: torch.tensor(float(number)) for name, number in self.watch(part).items()})

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to restore."""


def scores(
    task: TextTask, policy: CausalPolicy, score: TextScore, examples: Sequence[Example], samples: int, seed: int
) -> dict[str, float]:
    """Held-out pass@1, pass@`samples` and mean length in characters, sampled at the policy's temperature."""
    answers = generate(
        policy,
        [example.prompt for example in examples],
        samples,
        task.max_new_tokens,
        policy.temperature,
        seed=seed,
    )
    texts = [text for group in answers for text in group]
    rows = [example for example in examples for _ in range(samples)]
    right = [reward is not None and reward >= 1.0 for reward in score.score(rows, texts)[0]]
    passes = [sum(right[start : start + samples]) for start in range(0, len(right), samples)]
    found = {f"pass@{k}": float(pass_at_k(passes, samples, k).mean()) for k in sorted({1, samples})}
    return found | {"characters": sum(map(len, texts)) / max(len(texts), 1)}
