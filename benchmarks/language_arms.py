"""The two arms of the language benchmark, each in a process of its own: Ascent's loop, trl's `train()`.

Phases are measured by wrapping the same places from outside: generation, rewards, forward and loss, backward,
and clipping with the optimiser.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from language_phases import Channel, Stopwatch
from language_work import Ends, Prompts, Work, method_of, policy_of, reward

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "static cache": {"cache_implementation": "static"},
    "2 micro-batches": {"parts": 2},
    "4 micro-batches": {"parts": 4},
    "static cache, 2 micro-batches": {"cache_implementation": "static", "parts": 2},
}
"""Settings of trl that change no result. `parts` divides per_device_train_batch_size and raises
gradient_accumulation_steps and steps_per_generation alike: one generation a step, as before. Continuous batching is
none of them: on a CPU it takes the machine's memory at its own settings, and with small ones (page_size 32, 512
blocks, 512 tokens) a generation of the 1M model took 6.2 s instead of 0.33 s."""


def trainer_of(work: Work, policy: Any, callbacks: Sequence[Any] = (), variant: Mapping[str, Any] | None = None) -> Any:
    """trl's trainer on the same model, tokenizer and prompts; responses have the workload's lengths."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    chosen = dict(variant or {})
    parts = chosen.pop("parts", 1)
    steps = work.steps + work.warm_up + 1
    task = Prompts(work.vocabulary, work.new_tokens, work.prompt)
    settings: dict[str, Any] = dict(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=work.rows // parts,
        gradient_accumulation_steps=parts,
        steps_per_generation=parts,
        num_generations=work.group_size,
        max_completion_length=work.new_tokens,
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
        use_cpu=work.device == "cpu",
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
    )
    trainer = GRPOTrainer(
        model=policy.model,
        reward_funcs=reward,
        args=GRPOConfig(**settings, **chosen),
        train_dataset=Dataset.from_dict({"prompt": [task.example(i).prompt for i in range(work.prompts * steps)]}),
        processing_class=policy.tokenizer,
        callbacks=list(callbacks),
    )
    _lengths_of_trl(work, trainer)
    return trainer


def _lengths_of_trl(work: Work, trainer: Any) -> None:
    """No token ends a fixed response; a logits processor ends ragged ones."""
    model = trainer.model
    if not work.ragged:
        never = [work.vocabulary]
        trainer.eos_token_ids = trainer.generation_config.eos_token_id = never
        trainer.generation_kwargs["eos_token_id"] = never
        return
    generate, calls = model.generate, iter(range(10**9))

    def guided(**inputs: Any) -> Any:
        ends = Ends(work.lengths(next(calls)), work.new_tokens, trainer.eos_token_ids[0])
        width = inputs["input_ids"].shape[1]

        def processor(ids: Any, scores: Any) -> Any:
            position = ids.shape[1] - width
            return ends.edited(scores, ends.ending.get(position, []))

        return generate(**inputs, logits_processor=[processor])

    model.generate = guided


class Guided:
    """A decoder of Ascent whose rows end where `ends` says.

    It also keeps what the edit took away, so that the recorded log-probs are the policy's own and the ratio begins at
    1, as in trl, which never records them.

    Attributes:
        taken: [N, T] the policy's log-prob of a token minus that of the edited distribution.
    """

    def __init__(self, inner: Any, ends: Ends, device: Any) -> None:
        import torch

        self.inner, self.ends, self.position = inner, ends, 0
        self.rows = torch.arange(len(ends.lengths), device=device)
        self.taken = torch.zeros(len(ends.lengths), ends.budget, device=device)

    def start(self, *arguments: Any) -> Any:
        return self._edited(self.inner.start(*arguments))

    def step(self, tokens: Any) -> Any:
        self.position += 1
        return self._edited(self.inner.step(tokens))

    def keep(self, rows: Any) -> None:
        self.rows = self.rows[rows]
        self.inner.keep(rows)

    def _edited(self, logits: Any) -> Any:
        end = logits.log_softmax(-1)[:, self.ends.eos]
        self.taken[self.rows, self.position] = (-end.exp()).log1p()
        ending = self.ends.ending.get(self.position, [])
        places = [self.rows.tolist().index(row) for row in ending]
        self.taken[ending, self.position] = end[places]
        return self.ends.edited(logits, places)


def wrap_trl(trainer: Any, watch: Stopwatch) -> None:
    """Count the phases of trl's trainer."""
    for name, phase in (
        ("_generate", "sample"),
        ("_calculate_rewards", "score"),
        ("_compute_loss", "evaluate"),
        ("_clip_grad_norm", "step"),
    ):
        setattr(trainer, name, watch.timed(phase, getattr(trainer, name)))
    trainer.accelerator.backward = watch.timed("backward", trainer.accelerator.backward)
    trainer.model.zero_grad = watch.timed("step", trainer.model.zero_grad)


def wrap_optimiser(trainer: Any, watch: Stopwatch) -> None:
    """The optimiser is made when training begins."""
    trainer.optimizer.step = watch.timed("step", trainer.optimizer.step)


def wrap_ascent(watch: Stopwatch, policy: Any, sampler: Any, learn: Any) -> None:
    """Count the phases of Ascent's loop; the score is wrapped where it is handed to Collect."""
    import torch

    from ascent.core.method import Method

    sampler.act = watch.timed("sample", sampler.act)
    for name in ("evaluate", "annotate"):
        setattr(policy, name, watch.timed("evaluate", getattr(policy, name)))
    for name in ("prepare", "loss"):
        setattr(Method, name, watch.timed("evaluate", getattr(Method, name)))
    torch.Tensor.backward = watch.timed("backward", torch.Tensor.backward)  # type: ignore[method-assign]
    learn.stepper.step = watch.timed("step", learn.stepper.step)


def work_trl(work: Work, channel: Channel, variant: str) -> None:
    """trl's arm: its own `train()`, stopped between optimiser steps."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    import torch
    import trl.trainer.grpo_trainer  # noqa: F401
    from transformers import TrainerCallback

    import ascent.policies.embedded  # noqa: F401

    torch.set_num_threads(work.threads)
    channel.loaded()

    class Turns(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            wrap_optimiser(trainer, channel.watch)
            channel.ready()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            channel.answer(work.rows * trainer._metrics["train"]["completions/mean_length"][-1])

    trainer = trainer_of(work, policy_of(work), [Turns()], VARIANTS[variant])
    wrap_trl(trainer, channel.watch)
    trainer.train()


def work_ascent(work: Work, channel: Channel, variant: str) -> None:
    """Ascent's arm: its own loop, stopped between steps."""
    import torch

    import ascent.policies.embedded
    import ascent.sampling.text
    import ascent.systems.language  # noqa: F401
    from ascent.training.loop import Loop

    torch.set_num_threads(work.threads)
    channel.loaded()

    class Turns:
        def updated(self, loop: Loop) -> None: ...
        def evaluated(self, loop: Loop, scores: Any) -> None: ...

        def stepped(self, loop: Loop, metrics: Any) -> None:
            channel.answer(work.rows * metrics["length"])

    loop = loop_of(work, [Turns()], channel.watch)
    channel.ready()
    loop.run()


def loop_of(
    work: Work,
    watchers: Sequence[Any],
    watch: Stopwatch,
    make: Callable[[Work], Any] = policy_of,
    decoder: Callable[[Any], Any] | None = None,
) -> Any:
    """Ascent's loop on the workload, with a policy and a decoder of its own where they are given."""
    from ascent.sampling.text import TextSampler, decoder_for
    from ascent.training.learn import Learn
    from ascent.training.loop import Loop, System
    from ascent.training.memory import Fresh
    from ascent.training.program import Collect, Phase
    from ascent.worlds.text.rewards import Rewards
    from ascent.worlds.text.score import TextScore

    policy, memory, task = make(work), Fresh(), Prompts(work.vocabulary, work.new_tokens, work.prompt)
    decoder = decoder or decoder_for
    score = TextScore(task, policy.tokenizer, Rewards((reward,)))
    guides: list[Guided] = []

    def guided(policy: Any) -> Guided:
        ends = Ends(work.lengths(len(guides)), work.new_tokens, policy.eos[0])
        guides.append(Guided(decoder(policy), ends, policy.device))
        return guides[-1]

    def scored(decisions: Any) -> Any:
        """The reward, on log-probs of the policy itself."""
        own = decisions.behaviour_log_prob + guides[-1].taken.clone()[:, : decisions.mask.shape[1]]
        return score(decisions.replace(behaviour_log_prob=own))

    if not work.ragged:
        policy.eos = (work.vocabulary,)
    chosen = guided if work.ragged else decoder
    sampler = TextSampler(policy, task, work.prompts, work.group_size, work.new_tokens, decoder_of=chosen)
    collect = Collect("collect", sampler, memory, score=watch.timed("score", scored if work.ragged else score))
    learn = Learn(
        "policy",
        policy,
        method_of(work),
        memory,
        micro_rows=work.micro_rows,
        exact_behaviour=True,
        monitor=frozenset({"entropy"}),
    )
    wrap_ascent(watch, policy, sampler, learn)
    program = [Phase("learn", [collect, learn], work.steps + work.warm_up + 1)]
    return Loop(System({"policy": policy}, {"fresh": memory}, program), watchers)


ARMS = {"ascent": work_ascent, "trl": work_trl}
