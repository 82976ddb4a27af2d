"""A language model on a text task: Collect(text) -> Learn, evaluated on held-out prompts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ascent.core.method import Method
from ascent.evaluation.pass_at_k import pass_at_k
from ascent.policies.causal import CausalPolicy
from ascent.policies.mixture import Replaying
from ascent.policies.with_logits import WithLogits
from ascent.sampling.choose import decoder_for
from ascent.sampling.decode import DecoderFactory
from ascent.sampling.sampler import Sampler
from ascent.sampling.text import Distribution, TextSampler, decoded, entropies, generated
from ascent.systems.assembly import Assembly, refuse_small, refuse_unfed
from ascent.systems.config import BadConfig, LanguageConfig
from ascent.systems.offline import dataset
from ascent.systems.warm_up import DENSE, Start, warmed_up
from ascent.training.annotate import Scorer, log_prob_of
from ascent.training.learn import Learn
from ascent.training.loop import System
from ascent.training.memory import Fresh, Memory
from ascent.training.processes import Processes
from ascent.training.program import Collect, Phase, Stage
from ascent.worlds.text.data import Data, read
from ascent.worlds.text.registry import task as build_task
from ascent.worlds.text.rewards import Rewards, load, total
from ascent.worlds.text.score import TextScore
from ascent.worlds.text.task import TextTask

SUCCESS = 1.0  # a reward of at least this counts as a pass
SHOWN = 4  # completions kept per evaluation


Assistance = tuple[CausalPolicy | WithLogits | Replaying, Mapping[str, Scorer]]
"""A policy with what a method asks of it besides, and what writes further columns."""


class Responder(Sampler, Protocol):
    """A sampler of responses.

    Attributes:
        exact: its log-probs are the policy's own.
        max_new_tokens: budget of a response.
    """

    max_new_tokens: int

    @property
    def exact(self) -> bool: ...


def build(
    config: LanguageConfig,
    method: Method,
    processes: Processes,
    respond: Callable[[LanguageConfig, CausalPolicy, TextTask, Processes], Responder] | None = None,
    assist: Callable[[LanguageConfig, CausalPolicy, TextTask, Processes], Assistance] | None = None,
    start: Start = DENSE,
) -> Assembly:
    """The assembly of any method that learns from groups of fresh responses.

    Args:
        config, method, processes: of the run.
        respond: makes another sampler than `responder`.
        assist: gives the policy as the method sees it (with probes), and scorers of further columns.
        start: the embedded model, and the class of policy of any other.

    Raises:
        BadConfig: before a model loads, where the method cannot be fed or the task or data are wrong.
    """
    method = planned(method)
    refuse_unfed(config, method)
    refuse_small(method.plan, config.batch, config.batch // config.group_size, config.batch)
    disable_progress_bar()  # our own bar is the one to watch
    rewards = own_rewards(config)
    task = world(config, rewards)
    if config.batch // config.group_size < processes.count:
        raise BadConfig(
            f"batch must hold at least one prompt per process; got {config.batch // config.group_size} prompts for "
            f"{processes.count} processes. Take batch >= {processes.count * config.group_size}."
        )
    policy = load_policy(config, task, method, processes, start)
    sampler = (respond or responder)(config, policy, task, processes)
    score = TextScore(task, policy.tokenizer, rewards, config.reward_timeout)
    reference: CausalPolicy | None = None
    if "reference_log_prob" in method.needs:
        reference = load_policy(config, task, method, processes, start).requires_grad_(False)
    memory, stages, consumed = source(config, method, policy, reference, sampler, score, processes)
    seen, scorers = (policy, {}) if assist is None else assist(config, policy, task, processes)
    own = {} if reference is None else {"reference_log_prob": log_prob_of(reference)}
    learn = Learn(
        "policy",
        seen,
        method,
        memory,
        scorers={**own, **scorers},
        seed=config.seed,
        micro_rows=config.micro_rows,
        exact_behaviour=sampler.exact,
        monitor=frozenset({"entropy"}),
    )
    evaluate = HeldOut(config, policy, task, score, sampler.max_new_tokens) if config.evaluate_every else None
    phase = Phase("train", (*stages, learn), config.steps)
    system = System({"policy": policy}, {"memory": memory}, (phase,), evaluate, lambda: consumed(learn))
    return Assembly(system, method, "tokens", "pass@1" if config.data is None else "reward", policy.save)


def responder(
    config: LanguageConfig,
    policy: CausalPolicy,
    task: TextTask,
    processes: Processes,
    decoder_of: DecoderFactory = decoder_for,
) -> TextSampler:
    """The sampler. Prompts of a person's own data are measured at once, so that no run ends at a late long one."""
    sampler = TextSampler(
        policy,
        task,
        config.batch // config.group_size,
        config.group_size,
        config.max_new_tokens or task.max_new_tokens,
        config.temperature,
        config.top_p,
        config.top_k,
        config.stop,
        config.seed,
        (processes.rank, processes.count),
        decoder_of=decoder_of,
    )
    if isinstance(task, Data):
        for index in range(len(task.train)):
            sampler.encode(index)
    return sampler


def source(
    config: LanguageConfig,
    method: Method,
    policy: CausalPolicy,
    reference: CausalPolicy | None,
    sampler: Responder,
    score: TextScore,
    processes: Processes,
) -> tuple[Memory, Sequence[Stage], Callable[[Learn], int]]:
    """What is learnt from: fresh responses, or a file of scored ones; with the count of prompts used so far."""
    groups = config.batch // config.group_size
    if config.scored is None:
        memory = Fresh()
        collect = Collect(
            "collect", sampler, memory, score=score, accept=method.accept, refill=config.refill, processes=processes
        )
        return memory, (collect,), lambda learn: sampler.consumed
    if processes.count > 1:
        raise BadConfig(f"scored data is for one process; got {processes.count}. Launch without accelerate.")
    recorded = dataset(config.scored, policy, reference, groups, config.seed, config.micro_rows)
    return recorded, (), lambda learn: learn.rounds * groups


def planned(method: Method) -> Method:
    """The method; a response is dealt whole, because its prompt is forwarded once."""
    if method.plan.unit != "decision":
        return method
    return method.replace(plan=dataclasses.replace(method.plan, unit="row"))


def world(config: LanguageConfig, rewards: Rewards | None) -> TextTask:
    """The task by name, or the user's own prompts."""
    try:
        if config.data is None:
            return build_task(config.task, seed=0)
        budget = {} if config.max_new_tokens is None else {"max_new_tokens": config.max_new_tokens}
        return Data(read(config.data), rewards, seed=config.seed, name=config.world, **budget)
    except (ValueError, OSError) as error:
        raise BadConfig(f"{'data' if config.data else 'task'}: {error}") from error


def own_rewards(config: LanguageConfig) -> Rewards | None:
    """The user's reward functions; None leaves the task's verifier."""
    if not config.reward:
        return None
    try:
        functions = tuple(load(location) for location in config.reward)
        return Rewards(functions, config.reward_weights, timeout=config.reward_timeout)
    except (ValueError, OSError) as error:
        raise BadConfig(f"reward: {error}") from error


def load_policy(
    config: LanguageConfig, task: TextTask, method: Method, processes: Processes, start: Start = DENSE
) -> CausalPolicy:
    """The embedded model, warmed up, or any Hugging Face causal language model."""
    critic = bool({"value", "next_value"} & method.needs)
    if config.model == "embedded":
        console = Console(quiet=config.quiet or not processes.main)
        policy = warmed_up(task, config.warm_up_steps, 0, config.temperature, critic, console, processes, start)
        return policy.to(processes.device)
    lora = {"r": config.lora_rank, "lora_alpha": 2 * config.lora_rank} if config.lora_rank else None
    try:
        policy = start.kind.load(
            config.model, dtype=config.dtype, lora=lora, temperature=config.temperature, value_head=critic
        )
    except OSError as error:
        raise BadConfig(f"model {config.model!r} cannot be loaded: {error}") from error
    return policy.to(processes.device)


class HeldOut:
    """Samples held-out prompts and scores them; keeps a few completions per evaluation in completions.jsonl.

    `entropy` is the policy's own, over the tokens of these answers: the same measure for every method, whatever rows it
    learns from.
    """

    def __init__(
        self, config: LanguageConfig, policy: CausalPolicy, task: TextTask, score: TextScore, budget: int
    ) -> None:
        self.config, self.policy, self.score, self.budget = config, policy, score, budget
        self.examples = task.held_out(config.held_out)

    def __call__(self, step: int) -> Mapping[str, float]:
        config, count = self.config, self.config.samples
        distribution = Distribution(config.temperature, config.top_p, config.top_k, config.stop)
        prompts = [example.prompt for example in self.examples]
        answers: list[list[str]] = []
        nats, tokens = 0.0, 0
        for ids, found in generated(self.policy, prompts, count, self.budget, distribution, config.seed):
            lines = decoded(self.policy, found.action, found.mask)
            answers += [lines[row : row + count] for row in range(0, len(lines), count)]
            nats += float(torch.where(found.mask, entropies(self.policy, ids, found), 0.0).sum())
            tokens += int(found.mask.sum())
        rows = [example for example in self.examples for _ in range(count)]
        each = self.score.score(rows, [text for texts in answers for text in texts])
        rewards = total(each, self.score.rewards.weights)
        self._keep(step, answers, rewards)
        given = [reward for reward in rewards if reward is not None]
        groups = [rewards[start : start + count] for start in range(0, len(rewards), count)]
        passes = [sum(reward is not None and reward >= SUCCESS for reward in group) for group in groups]
        right = {f"pass@{k}": float(pass_at_k(passes, count, k).mean()) for k in sorted({1, count})}
        entropy = {"entropy": nats / max(tokens, 1)}
        return {"reward": math.fsum(given) / max(len(given), 1)} | right | entropy

    def _keep(self, step: int, answers: list[list[str]], rewards: list[float | None]) -> None:
        path = self.config.folder / "completions.jsonl"
        before = path.read_text().splitlines(keepends=True) if path.exists() else []
        with path.open("w") as file:
            # A resumed run comes by an evaluation again; a line that a crash cut short is left out.
            file.writelines(line for line in before if line.endswith("\n") and json.loads(line)["step"] < step)
            for place, (example, texts) in enumerate(zip(self.examples[:SHOWN], answers, strict=False)):
                line = {"step": step, "prompt": example.prompt, "completion": texts[0], "answer": example.answer}
                reward = rewards[place * self.config.samples]
                file.write(json.dumps({**line, "reward": reward}) + "\n")
