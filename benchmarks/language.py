"""One GRPO step of the embedded default: Ascent beside trl's GRPOTrainer, on equal work.

    pip install -c constraints.txt -e '.[bench]'
    OMP_NUM_THREADS=1 python benchmarks/language.py

Equal: initial weights, tokenizer, prompts and their order, group size, temperature 1, reward function, loss
(seq-mean-token-mean, clip 0.2, no KL), Adam (AdamW without decay), learning rate, gradient clip, float32, threads,
attention, no gradient checkpointing, no logging, and the length of every response (fixed; in a third workload the
warmed-up model ends its responses itself, and both arms keep drawing from the same distribution).

First the gate: on recorded batches, on-policy and off-policy, loss and every gradient must agree to 1e-6, or nothing
is timed. Then each arm runs in a process of its own and the two take their steps in turns (A B B A ...). A step is
everything from one optimiser step to the next: prompts, generation, rewards, advantages, loss, gradient, update.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import IO, Any

from report import machine, write

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Work:
    """What both arms do.

    Attributes:
        prompts: of one step; group_size: responses of each; new_tokens: of each response.
        hidden, layers: of the embedded decoder.
        natural: the warmed-up model ends its responses itself (learning rate 0 in effect, so both arms keep drawing
            from the same distribution); otherwise every response has `new_tokens`.
        steps: measured, after `warm_up` steps that do not count.
    """

    prompts: int = 32
    group_size: int = 8
    new_tokens: int = 48
    hidden: int = 128
    layers: int = 4
    steps: int = 30
    warm_up: int = 3
    learning_rate: float = 1e-4
    natural: bool = False

    @property
    def rows(self) -> int:
        return self.prompts * self.group_size


def reward(completions: list[str], **columns: Any) -> list[float]:
    """Cheap and never constant in a group for long: the share of distinct characters."""
    return [len(set(text)) / max(len(text), 1) for text in completions]


def policy_of(work: Work) -> Any:
    """The embedded policy, equal in both arms."""
    from rich.console import Console

    from ascent.policies.embedded import embedded
    from ascent.systems.warm_up import warmed_up
    from ascent.training.processes import Processes
    from ascent.worlds.text.registry import task

    if work.natural:
        console = Console(stderr=True)
        return warmed_up(task("arithmetic"), 500, 0, 1.0, False, console, Processes())
    return embedded(task("arithmetic").alphabet, seed=0, hidden=work.hidden, layers=work.layers)


def method_of(work: Work) -> Any:
    """GRPO as trl's `loss_type="grpo"` without KL; trl adds 1e-4 to the group's deviation."""
    import ascent

    return ascent.method("grpo", kl_coefficient=0.0, eps=1e-4, learning_rate=work.learning_rate)


def trainer_of(work: Work, policy: Any, callbacks: Sequence[Any] = ()) -> Any:
    """trl's trainer on the same model, tokenizer and prompts."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from ascent.worlds.text.registry import task

    steps = work.steps + work.warm_up + 1
    prompts = [task("arithmetic").example(index).prompt for index in range(work.prompts * steps)]
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=work.rows,
        gradient_accumulation_steps=1,
        num_generations=work.group_size,
        max_completion_length=work.new_tokens,
        generation_kwargs={} if work.natural else {"min_new_tokens": work.new_tokens},
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        loss_type="grpo",
        scale_rewards="group",
        beta=0.0,
        epsilon=0.2,
        num_iterations=1,
        shuffle_dataset=False,
        learning_rate=work.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.0,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        max_grad_norm=1.0,
        bf16=False,
        gradient_checkpointing=False,
        max_steps=steps,
        use_cpu=True,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
    )
    return GRPOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=policy.tokenizer,
        callbacks=list(callbacks),
    )


def gate(work: Work) -> list[dict[str, Any]]:
    """Largest differences of loss, advantage and gradients on batches that trl recorded."""
    import torch

    from ascent.core.decisions import Decisions
    from ascent.core.reductions import last

    # Fresh weights, whose gradients are large, and responses that end by themselves.
    policy = policy_of(work)
    model, method = policy.model, method_of(work)
    trainer = trainer_of(replace(work, natural=True), policy)
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    rows = [item for item in list(trainer.train_dataset)[: work.prompts] for _ in range(work.group_size)]
    batch = trainer._generate_and_score_completions(rows)
    mask = batch["completion_mask"].bool()
    completions = policy.tokenizer.batch_decode(
        [ids[keep].tolist() for ids, keep in zip(batch["completion_ids"], mask, strict=True)], skip_special_tokens=True
    )
    bare = Decisions(
        mask=mask,
        action=batch["completion_ids"],
        context={"prompt": batch["prompt_ids"], "prompt_mask": batch["prompt_mask"].bool()},
        group=torch.arange(work.rows) // work.group_size,
    )
    scores = torch.tensor(reward(completions))[:, None]
    bare = bare.replace(reward=torch.where(last(bare, "row"), scores, 0.0))

    found = []
    drift = 0.3 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    for name, shift in (("on-policy", None), ("off-policy, clipping active", drift)):
        decisions = bare
        if shift is not None:
            old = policy.annotate(bare, frozenset({"old_log_prob"})).old_log_prob + shift * mask
            decisions, batch = bare.replace(old_log_prob=old), {**batch, "old_per_token_logps": old}
        model.zero_grad()
        theirs = trainer._compute_loss(model, batch)
        theirs.backward()
        expected = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
        model.zero_grad()
        decisions = method.credit(decisions)
        ours, metrics = method.loss(policy.evaluate(decisions, method.evaluates), decisions)
        ours.backward()
        advantage = decisions.advantage[last(decisions, "row")]
        found.append(
            {
                "batch": name,
                "response lengths": f"{int(mask.sum(1).min())} to {int(mask.sum(1).max())}",
                "clipped": round(float(metrics["clip_fraction"]), 3),
                "advantage": float((advantage - batch["advantages"]).abs().max()),
                "loss": abs(float(ours.detach()) - float(theirs.detach())),
                "gradient": max(float((p.grad - expected[key]).abs().max()) for key, p in model.named_parameters()),
                "largest gradient": max(float(each.abs().max()) for each in expected.values()),
            }
        )
    for row in found:
        for quantity in ("advantage", "loss", "gradient"):
            if not row[quantity] <= TOLERANCE:
                raise SystemExit(f"the gate is shut: {quantity} differs by {row[quantity]:.3g}, {row['batch']}.")
    return found


class Clock:
    """Waits for the turn of this arm, times the step, answers: the worker's side of the protocol."""

    def __init__(self, channel: IO[str]) -> None:
        self.channel = channel
        self.since = (0.0, 0.0)

    def wait(self) -> None:
        """Until the other side asks for a step; at the end of its input the worker leaves."""
        if not sys.stdin.readline():
            os._exit(0)
        self.since = (time.perf_counter(), time.process_time())

    def answer(self, tokens: float) -> None:
        """The step is over; it drew so many response tokens."""
        wall, cpu = time.perf_counter() - self.since[0], time.process_time() - self.since[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak, "tokens": tokens}), file=self.channel, flush=True)


def work_trl(work: Work, clock: Clock) -> None:
    """trl's arm: its own `train()`, stopped between optimiser steps."""
    from transformers import TrainerCallback

    class Turns(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.answer(work.rows * trainer._metrics["train"]["completions/mean_length"][-1])
            clock.wait()

    trainer = trainer_of(work, policy_of(work), [Turns()])
    trainer.train()


def work_ascent(work: Work, clock: Clock) -> None:
    """Ascent's arm: its own loop, stopped between steps."""
    from ascent.sampling.text import TextSampler
    from ascent.training.learn import Learn
    from ascent.training.loop import Loop, System
    from ascent.training.memory import Fresh
    from ascent.training.program import Collect, Phase
    from ascent.worlds.text.registry import task
    from ascent.worlds.text.rewards import Rewards
    from ascent.worlds.text.score import TextScore

    class Turns:
        def updated(self, loop: Loop) -> None: ...
        def evaluated(self, loop: Loop, scores: Any) -> None: ...

        def stepped(self, loop: Loop, metrics: Any) -> None:
            clock.answer(work.rows * metrics["length"])
            clock.wait()

    policy, memory, world = policy_of(work), Fresh(), task("arithmetic")
    if not work.natural:
        # No token ends a response: every one has the full length, as in the other arm.
        policy.eos = (-1,)
    sampler = TextSampler(policy, world, work.prompts, work.group_size, work.new_tokens)
    collect = Collect("collect", sampler, memory, score=TextScore(world, policy.tokenizer, Rewards((reward,))))
    learn = Learn(
        "policy", policy, method_of(work), memory, exact_behaviour=sampler.exact, monitor=frozenset({"entropy"})
    )
    program = [Phase("learn", [collect, learn], work.steps + work.warm_up + 1)]
    clock.wait()
    Loop(System({"policy": policy}, {"fresh": memory}, program), [Turns()]).run()


ARMS = {"ascent": work_ascent, "trl": work_trl}


def turns(work: Work, arms: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """The measured steps of each arm, taken in turns."""
    command = [sys.executable, __file__, "--work", json.dumps(asdict(work)), "--arm"]
    workers = {
        arm: subprocess.Popen([*command, arm], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for arm in arms
    }
    measured: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
    try:
        for step in range(work.steps + work.warm_up):
            for arm in arms if step % 2 else reversed(arms):
                worker = workers[arm]
                assert worker.stdin is not None and worker.stdout is not None
                print("step", file=worker.stdin, flush=True)
                line = worker.stdout.readline()
                if not line:
                    raise SystemExit(f"the {arm} arm ended early; its messages are above.")
                measured[arm].append(json.loads(line))
    finally:
        for worker in workers.values():
            assert worker.stdin is not None
            worker.stdin.close()
            worker.wait()
    return {arm: found[work.warm_up :] for arm, found in measured.items()}


def name_of(work: Work) -> str:
    """Rows and length."""
    return f"{work.rows} responses, {'natural lengths' if work.natural else f'{work.new_tokens} tokens'}"


def summary(work: Work, arm: str, measured: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Median and quartiles of the step, tokens per second, peak memory."""
    walls = [each["wall"] for each in measured]
    low, middle, high = statistics.quantiles(walls, n=4)
    return {
        "arm": arm,
        "work": name_of(work),
        "step, median (s)": round(middle, 3),
        "quartiles (s)": f"{low:.3f} to {high:.3f}",
        "processor time, median (s)": round(statistics.median(each["cpu"] for each in measured), 3),
        "response tokens/s": round(statistics.median(each["tokens"] / each["wall"] for each in measured)),
        "tokens per step": round(statistics.fmean(each["tokens"] for each in measured)),
        "peak memory (MB)": round(max(each["peak"] for each in measured)),
        "steps": len(walls),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=Work.steps, help="measured steps of each arm")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.arm:
        # Libraries print; the answers go over a channel of their own.
        channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        ARMS[chosen.arm](Work(**chosen.work), Clock(channel))
        return

    checked = gate(Work(prompts=8, new_tokens=32))
    print("gate:", json.dumps(checked, indent=1), flush=True)
    rows: list[dict[str, Any]] = []
    ratios = []
    fixed = Work(steps=chosen.steps)
    natural = replace(fixed, natural=True, new_tokens=26, learning_rate=1e-12)
    for work in (fixed, replace(fixed, prompts=8, new_tokens=128), natural):
        if work.natural:
            policy_of(work)  # warmed up once, before the arms read it from the cache
        measured = turns(work, tuple(ARMS))
        rows += [summary(work, arm, measured[arm]) for arm in ARMS]
        pairs = list(zip(measured["trl"], measured["ascent"], strict=True))
        wall, cpu = (statistics.median(theirs[key] / ours[key] for theirs, ours in pairs) for key in ("wall", "cpu"))
        ratios.append(f"{name_of(work)}: {wall:.2f} in wall time, {cpu:.2f} in processor time")
    worst = {name: max(row[name] for row in checked) for name in ("loss", "gradient", "advantage")}
    notes = (
        "Embedded decoder (4 layers, width 128), float32, the two arms in turns. trl's step takes this many "
        f"times Ascent's (median of the pairs): {'; '.join(ratios)}.\n\n"
        "Gate, on recorded batches of uneven lengths, on-policy and off-policy with clipping: largest difference of "
        f"the loss {worst['loss']:.1e}, of any gradient entry {worst['gradient']:.1e} (largest entry "
        f"{max(row['largest gradient'] for row in checked):.2g}), of an advantage {worst['advantage']:.1e}."
    )
    write("language", "A GRPO step beside trl's GRPOTrainer", rows, machine("torch", "transformers", "trl"), notes)


if __name__ == "__main__":
    main()
