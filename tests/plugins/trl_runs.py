"""Tiny TRL runs on recorded responses, and the update that our own trainer would make of the same batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from ascent.core.decisions import Decisions, concatenate
from ascent.core.method import Method
from ascent.core.part import Clock, MethodState
from ascent.core.random import generator
from ascent.policies.causal import CausalPolicy
from ascent.policies.embedded import character_tokenizer
from ascent.policies.with_logits import WithLogits

BUDGET = 7
ALPHABET = "0123456789+= abcdef"


def tokenizer() -> PreTrainedTokenizerFast:
    return character_tokenizer(ALPHABET, 64)


def tiny(seed: int = 0) -> Qwen2ForCausalLM:
    """A random Qwen2 of two layers."""
    names = tokenizer()
    config = Qwen2Config(
        vocab_size=len(names),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.15,
        pad_token_id=names.pad_token_id,
        bos_token_id=names.bos_token_id,
        eos_token_id=names.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def stored(folder: Path) -> Path:
    """The tiny model as a folder, from which TRL can load a reference."""
    tiny().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def scores(prompts: Any, completions: Sequence[str], **columns: Any) -> list[float | None]:
    """Of each completion another number; one in thirteen is not scored."""
    sums = [sum(map(ord, text)) + len(text) for text in completions]
    return [None if total % 13 == 0 else total % 7 / 7 for total in sums]


@dataclass
class Recorded:
    """A rollout function that writes down what it gave: ragged responses, some with tool output inside."""

    tools: bool = True
    generations: list[dict[str, list[Any]]] = field(default_factory=list)

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        names, copies = trainer.processing_class, Counter[str]()
        answers, masks, odds = [], [], []
        for prompt in prompts:
            # By the prompt and the number of its copy, so that it does not matter which process asks.
            draw = generator(prompt, copies[prompt], trainer._generations)
            copies[prompt] += 1
            length = int(torch.randint(1, BUDGET + 1, (), generator=draw))
            ids = torch.randint(4, len(names), (length,), generator=draw).tolist()
            if length < BUDGET:
                ids[-1] = names.eos_token_id
            mask = [1] * length
            if self.tools and length > 3 and bool(torch.rand((), generator=draw) < 0.6):
                mask[1] = mask[2] = 0
            answers.append(ids)
            masks.append(mask)
            odds.append((-1.0 - 2.5 * torch.rand(length, generator=draw)).tolist())
        given = {"prompt_ids": [names(prompt)["input_ids"] for prompt in prompts], "completion_ids": answers}
        given |= {"logprobs": odds, "env_mask": masks}
        self.generations.append({name: list(column) for name, column in given.items()})
        return given


def padded(rows: Sequence[Sequence[float]], fill: float, left: bool = False) -> Tensor:
    width = max(len(row) for row in rows)
    filler = [[fill] * (width - len(row)) for row in rows]
    return torch.tensor(
        [more + list(row) if left else list(row) + more for row, more in zip(rows, filler, strict=True)]
    )


def policy_of(weights: Mapping[str, Tensor]) -> CausalPolicy:
    model = tiny().to(next(iter(weights.values())).dtype)
    model.load_state_dict(dict(weights))
    return CausalPolicy(model, tokenizer())


def weights_of(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@dataclass
class Own:
    """Our side: collections annotated and credited by our own policy, updates by our own loss."""

    method: Method
    reference: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor] | None
    group_size: int
    state: MethodState = field(init=False)
    collections: list[Decisions] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = self.method.start()

    def now(self, step: int, steps: int) -> MethodState:
        return MethodState(self.state.parts, Clock(step, step / steps))

    def collect(
        self, given: Mapping[str, list[Any]], keys: Tensor, weights: Mapping[str, Tensor], step: int, steps: int
    ) -> None:
        """One generation, as our sampler and loop would have it."""
        names, number = tokenizer(), len(self.collections)
        prompt = padded(given["prompt_ids"], names.pad_token_id, left=True)
        prompt_mask = padded([[1] * len(row) for row in given["prompt_ids"]], 0, left=True).bool()
        action = padded(given["completion_ids"], names.pad_token_id)
        mask = padded(given["env_mask"], 0).bool()
        texts = names.batch_decode(given["completion_ids"], skip_special_tokens=True)
        rewards = scores([], texts)
        mask = mask & torch.tensor([reward is not None for reward in rewards])[:, None]
        final = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
        total = torch.tensor([reward or 0.0 for reward in rewards])
        ended = torch.tensor([row[-1] == names.eos_token_id for row in given["completion_ids"]])[:, None]
        rows = len(action)
        decisions = Decisions(
            mask=mask,
            context={"prompt": prompt, "prompt_mask": prompt_mask},
            action=action,
            behaviour_log_prob=padded(given["logprobs"], 0.0),
            reward=torch.where(final, total[:, None], 0.0),
            terminated=final & ended,
            truncated=final & ~ended,
            group=number * rows + torch.arange(rows) // self.group_size,
            key=keys,
            policy_version=torch.full((rows,), step),
            extras={"budget": torch.full((rows,), BUDGET)},
        )
        decisions = policy_of(weights).annotate(decisions, frozenset({"old_log_prob"}))
        for column, frozen in (("reference_log_prob", self.reference), ("teacher_log_prob", self.teacher)):
            if column in self.method.needs and frozen is not None:
                with torch.no_grad():
                    said = policy_of(frozen).evaluate(decisions, frozenset({"log_prob"})).log_prob
                decisions = decisions.with_extras({column: said})
        if self.method.accept is not None and bool((accepted := self.method.accept(decisions)).any()):
            # Refused rows never come back; here they stay as rows without decisions, so that numbers agree.
            decisions = decisions.replace(mask=decisions.mask & accepted[:, None])
        self.collections.append(self.method.credit(decisions, self.now(step, steps)))

    def gradient(
        self, ids: Tensor, weights: Mapping[str, Tensor], step: int, steps: int
    ) -> tuple[dict[str, Tensor], float]:
        """Of the update made of these rows, in one piece."""
        rows = len(self.collections[0])
        used = sorted(set((ids // rows).tolist()))
        whole = concatenate([self.collections[number] for number in used])
        place = torch.tensor([used.index(row // rows) * rows + row % rows for row in ids.tolist()])
        update = whole.rows(place)
        policy = policy_of(weights)
        now = WithLogits(policy).evaluate(update, self.method.evaluates)
        state = self.now(step, steps)
        update = self.method.prepare(update, now, state)
        loss, metrics = self.method.loss(now, update, state)
        loss.backward()
        self.state = self.method.after(update, metrics, state)
        return {name: x.grad for name, x in policy.model.named_parameters() if x.grad is not None}, float(loss.detach())


def prompts(count: int = 16) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [f"{n}+{n * 3 % 10}=" if n % 3 else f"{n * 11}=" for n in range(count)]})


def config(folder: Path, **changes: Any) -> Any:
    from trl import GRPOConfig

    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "num_generations": 4,
        "max_completion_length": BUDGET,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_steps": 4,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    return GRPOConfig(**{**settings, **changes})
