"""Prompts in, responses out: the sampler of language policies.

A prompt is read once for its whole group. Finished rows leave the batch. Each draw is a hash of (seed, step,
prompt, sample, position), so a response does not depend on which rows are sampled beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.random import key, mix, uniform
from ascent.policies.causal import CausalPolicy
from ascent.sampling.choose import decoder_for
from ascent.sampling.decode import DecoderFactory, draw
from ascent.worlds.text.task import Prompt, TextTask

# The batch is rebuilt without its finished rows when they are at least this share of it.
FINISHED_SHARE = 0.25
# On an accelerator finished rows are counted only every so many tokens: counting waits for the device.
CHECK_EVERY = 16


@dataclass(frozen=True)
class Distribution:
    """From what tokens are drawn.

    Args:
        temperature: >= 0; 0 is greedy (evaluation only).
        top_p: in (0, 1]; 1 keeps all tokens.
        top_k: >= 0; 0 keeps all tokens.
        stop: strings that end a response; they stay in its text.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be >= 0; got {self.temperature!r}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1]; got {self.top_p!r}. 1 keeps all tokens.")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k must be an integer >= 0; got {self.top_k!r}. 0 keeps all tokens.")
        if any(not isinstance(item, str) or not item for item in self.stop):
            raise ValueError(f"stop must be a tuple of non-empty strings; got {self.stop!r}.")


@dataclass(frozen=True)
class Responses:
    """Tokens of N rows, padded on the right.

    Attributes:
        action: [N, T] int64; mask: [N, T] bool, True up to and including the end; log_prob: [N, T] of what
        was drawn; ended: [N] bool, False where the budget ran out.
    """

    action: Tensor
    mask: Tensor
    log_prob: Tensor
    ended: Tensor


@torch.inference_mode()
def respond(
    policy: CausalPolicy,
    prompts: Sequence[Sequence[int]],
    copies: int,
    keys: Tensor,
    max_new_tokens: int,
    distribution: Distribution,
    decoder_of: DecoderFactory = decoder_for,
) -> Responses:
    """Sample `copies` responses of each prompt, rows ordered prompt by prompt.

    Args:
        policy: whose model answers.
        prompts: token ids.
        copies: responses of each prompt, >= 1.
        keys: [P * copies] int64 on the CPU, one identity a row; draws hash it with the position.
        max_new_tokens: >= 1.
        distribution: from what tokens are drawn.
        decoder_of: makes the decoder of the policy; one that wraps `decoder_for(policy)` may change its logits.
    """
    prompt, real = policy.pad_prompts(prompts)
    device, rows = prompt.device, len(prompts) * copies
    draws = uniform(keys, torch.arange(max_new_tokens)[:, None]).to(device)
    ends = torch.tensor(policy.eos, device=device)
    drawn = Drawn(rows, max_new_tokens, policy.pad, device)
    decoder = decoder_of(policy)
    logits = decoder.start(prompt, real, copies, max_new_tokens)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    patience = 1 if device.type == "cpu" or distribution.stop else CHECK_EVERY
    for position in range(max_new_tokens):
        tokens, log_prob = draw(
            logits, draws[position], distribution.temperature, distribution.top_k, distribution.top_p
        )
        over = tokens == ends if len(policy.eos) == 1 else torch.isin(tokens, ends)
        drawn.add(tokens, log_prob, over)
        if distribution.stop:
            over |= _stopped(policy, drawn.recent(_characters(distribution.stop)), distribution.stop)
        running = running & ~over
        if position + 1 == max_new_tokens:
            break
        if (position + 1) % patience == 0:
            left = int(running.sum())
            if left == 0:
                break
            if left <= (1 - FINISHED_SHARE) * len(running):
                rest = running.nonzero()[:, 0]
                decoder.keep(rest)
                drawn.keep(rest)
                draws, tokens, running = draws[:, rest], tokens[rest], running[rest]
        logits = decoder.step(tokens)
    return drawn.responses()


class Drawn:
    """What was drawn so far, token by token; rows that go on after their end are cut at it."""

    def __init__(self, rows: int, width: int, pad: int, device: torch.device) -> None:
        self.pad = pad
        self.action = torch.full((rows, width), pad, device=device)
        self.log_prob = torch.zeros(rows, width, device=device)
        self.over = torch.zeros(rows, width, dtype=torch.bool, device=device)
        self.rows, self.first = torch.arange(rows, device=device), 0
        self.columns: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, tokens: Tensor, log_prob: Tensor, over: Tensor) -> None:
        """One token [B] of each row of the batch, its log-probability, and whether it ends its row (may change)."""
        self.columns.append((tokens, log_prob, over))

    def recent(self, width: int) -> Tensor:
        """The last tokens [B, <= width] of the batch."""
        new = torch.stack([tokens for tokens, _, _ in self.columns[-width:]], 1)
        return torch.cat([self.action[self.rows, max(self.first - width, 0) : self.first], new], 1)[:, -width:]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of the batch only."""
        self._write()
        self.rows = self.rows[rows]

    def _write(self) -> None:
        if not self.columns:
            return
        last = self.first + len(self.columns)
        for whole, parts in zip((self.action, self.log_prob, self.over), zip(*self.columns, strict=True), strict=True):
            whole[self.rows, self.first : last] = torch.stack(parts, 1).to(whole.dtype)
        self.first, self.columns = last, []

    def responses(self) -> Responses:
        """All rows up to and including their ends."""
        self._write()
        ended = self.over.any(1)
        length = torch.where(ended, self.over.int().argmax(1) + 1, self.first)
        width = int(length.max())
        mask = torch.arange(width, device=length.device) < length[:, None]
        action = torch.where(mask, self.action[:, :width], self.pad)
        return Responses(action, mask, torch.where(mask, self.log_prob[:, :width], 0.0), ended)


def _characters(stop: tuple[str, ...]) -> int:
    """Tokens that surely hold the longest stop string: a character may take up to four tokens of bytes."""
    return 4 * max(len(item) for item in stop) + 4


def _stopped(policy: CausalPolicy, tokens: Tensor, stop: tuple[str, ...]) -> Tensor:
    """Whether each row's last tokens hold a stop string."""
    texts = policy.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return torch.tensor([any(item in text for item in stop) for text in texts], device=tokens.device)


def _strings(stop: Sequence[str]) -> tuple[str, ...]:
    """A single string is a likely slip for a tuple of one, and would stop at each of its letters."""
    if isinstance(stop, str):
        raise ValueError(f"stop must be a tuple of non-empty strings; got {stop!r}. Write ({stop!r},).")
    return tuple(stop)


def fits(policy: CausalPolicy, length: int, max_new_tokens: int, index: int) -> None:
    """Raise ValueError, which names the prompt, where prompt and response exceed the model's context."""
    limit = policy.context_length
    if limit is not None and length + max_new_tokens > limit:
        raise ValueError(
            f"prompt {index} has {length} tokens; with max_new_tokens={max_new_tokens} it exceeds the model's context "
            f"of {limit}. Shorten or drop the prompt, lower max_new_tokens, or take a model with a longer context."
        )


class TextSampler:
    """Groups of responses to a task's prompts.

    Args:
        policy: who answers.
        task: the stream of prompts.
        prompts_per_step: distinct prompts of one `act`, over all processes, >= number of processes.
        group_size: responses of each prompt, >= 1.
        max_new_tokens: budget of a response, >= 1.
        temperature, top_p, top_k, stop: see `Distribution`; temperature must be > 0.
        seed: of every draw.
        share: (rank, processes); this process answers prompts rank, rank + processes, ... of a step.
        rows_at_once: most rows in one batch, to bound the cache; None samples all at once.
        decoder_of: see `respond`. With one that changes logits, `exact` is False.

    Raises:
        ValueError: an argument is out of range, or (in `act`) a prompt does not fit into the context.
    """

    def __init__(
        self,
        policy: CausalPolicy,
        task: TextTask,
        prompts_per_step: int,
        group_size: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: Sequence[str] = (),
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
        rows_at_once: int | None = None,
        decoder_of: DecoderFactory = decoder_for,
    ) -> None:
        rank, processes = share
        if not 0 <= rank < processes:
            raise ValueError(f"share must be (rank, processes) with 0 <= rank < processes; got {share!r}.")
        for name, number, low in (
            ("prompts_per_step", prompts_per_step, processes),
            ("group_size", group_size, 1),
            ("max_new_tokens", max_new_tokens, 1),
            ("rows_at_once", rows_at_once or 1, 1),
        ):
            if not isinstance(number, int) or number < low:
                raise ValueError(f"{name} must be an integer >= {low}; got {number!r}.")
        self.distribution = Distribution(temperature, top_p, top_k, _strings(stop))
        if temperature == 0:
            raise ValueError("temperature must be > 0 to learn from samples; got 0. Greedy answers come from generate.")
        self.policy, self.task = policy, task
        self.prompts_per_step, self.group_size, self.max_new_tokens = prompts_per_step, group_size, max_new_tokens
        self.seed, self.share, self.rows_at_once = seed, share, rows_at_once
        self.decoder_of = decoder_of
        self.consumed = 0

    @property
    def exact(self) -> bool:
        """Whether `behaviour_log_prob` is also the policy's own log-probability, so that `old_log_prob` may
        be copied from it instead of computed by another forward."""
        plain = self.decoder_of is decoder_for and self.distribution.top_p == 1 and self.distribution.top_k == 0
        return plain and self.distribution.temperature == self.policy.temperature

    def act(self, step: int) -> Decisions:
        """Responses to the next `prompts_per_step` prompts; the cursor moves on by them."""
        rank, processes = self.share
        indices = list(range(self.consumed, self.consumed + self.prompts_per_step))[rank::processes]
        prompts = [self.encode(index) for index in indices]
        words = torch.tensor([[index] for index in indices])
        base = torch.tensor(key(self.seed, "sample"))
        keys = mix(base, step, words, torch.arange(self.group_size)).reshape(-1)
        found = self._respond(prompts, keys)
        self.consumed += self.prompts_per_step
        return self._decisions(step, indices, prompts, keys, found)

    def encode(self, index: int) -> list[int]:
        """Token ids of prompt `index`. Raises ValueError where it and its response exceed the model's context."""
        ids = self.policy.encode_prompt(self.task.example(index).prompt)
        fits(self.policy, len(ids), self.max_new_tokens, index)
        return ids

    def _respond(self, prompts: Sequence[Sequence[int]], keys: Tensor) -> Responses:
        at_once = len(prompts) if self.rows_at_once is None else max(self.rows_at_once // self.group_size, 1)
        parts = [
            respond(
                self.policy,
                prompts[start : start + at_once],
                self.group_size,
                keys[start * self.group_size : (start + at_once) * self.group_size],
                self.max_new_tokens,
                self.distribution,
                self.decoder_of,
            )
            for start in range(0, len(prompts), at_once)
        ]
        return parts[0] if len(parts) == 1 else _joined(parts, self.policy.pad)

    def _decisions(
        self, step: int, indices: Sequence[int], prompts: Sequence[Sequence[int]], keys: Tensor, found: Responses
    ) -> Decisions:
        device, rows = self.policy.device, len(keys)
        prompt, real = self.policy.pad_prompts(prompts)
        number = torch.tensor(indices).repeat_interleave(self.group_size).to(device)
        # Tensors of inference mode cannot enter a graph; a clone outside it can.
        mask = found.mask.clone()
        final = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
        ended = found.ended.clone()[:, None]
        return Decisions(
            mask=mask,
            context={"prompt": prompt, "prompt_mask": real},
            context_row=torch.arange(len(prompts), device=device).repeat_interleave(self.group_size),
            action=found.action.clone(),
            behaviour_log_prob=found.log_prob.clone(),
            terminated=final & ended,
            truncated=final & ~ended,
            group=number,
            index=number.clone(),
            key=keys.to(device),
            policy_version=torch.full((rows,), step, device=device),
            extras={"budget": torch.full((rows,), self.max_new_tokens, device=device)},
        )

    def state_dict(self) -> dict[str, Any]:
        """The cursor by consumed prompt."""
        return {"consumed": self.consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the prompts that were consumed."""
        self.consumed = int(state["consumed"])


def _joined(parts: Sequence[Responses], pad: int) -> Responses:
    width = max(part.mask.shape[1] for part in parts)

    def grown(tensor: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=value)

    return Responses(
        torch.cat([grown(part.action, pad) for part in parts]),
        torch.cat([grown(part.mask, False) for part in parts]),
        torch.cat([grown(part.log_prob, 0.0) for part in parts]),
        torch.cat([part.ended for part in parts]),
    )


def generate(
    policy: CausalPolicy,
    prompts: Sequence[Prompt],
    samples: int = 1,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    stop: Sequence[str] = (),
    seed: int = 0,
    rows_at_once: int = 256,
) -> list[list[str]]:
    """Responses as text, nothing recorded: `samples` of each prompt; greedy at temperature 0.

    Args:
        policy: who answers.
        prompts: strings or lists of messages.
        samples: >= 1; more than one is the same text again where temperature is 0.
        max_new_tokens, temperature, top_p, top_k, stop: see `TextSampler` and `Distribution`.
        seed: of the draws, hashed with prompt number and sample number.
        rows_at_once: most rows in one batch.

    Raises:
        ValueError: a prompt and `max_new_tokens` exceed the context.
    """
    distribution = Distribution(temperature, top_p, top_k, _strings(stop))
    texts: list[list[str]] = []
    for _, found in generated(policy, prompts, samples, max_new_tokens, distribution, seed, rows_at_once):
        lines = decoded(policy, found.action, found.mask)
        texts += [lines[row : row + samples] for row in range(0, len(lines), samples)]
    return texts


def generated(
    policy: CausalPolicy,
    prompts: Sequence[Prompt],
    samples: int,
    max_new_tokens: int,
    distribution: Distribution,
    seed: int = 0,
    rows_at_once: int = 256,
) -> Iterator[tuple[list[list[int]], Responses]]:
    """The prompts' token ids and their responses, batch by batch; arguments as in `generate`."""
    if samples < 1 or max_new_tokens < 1 or rows_at_once < 1:
        raise ValueError(
            f"samples, max_new_tokens and rows_at_once must be >= 1; got {samples}, {max_new_tokens}, {rows_at_once}."
        )
    encoded = [policy.encode_prompt(prompt) for prompt in prompts]
    for number, ids in enumerate(encoded):
        fits(policy, len(ids), max_new_tokens, number)
    keys = mix(torch.tensor(key(seed, "generate")), torch.arange(len(encoded))[:, None], torch.arange(samples))
    at_once = max(rows_at_once // samples, 1)
    for start in range(0, len(encoded), at_once):
        part = encoded[start : start + at_once]
        row_keys = keys[start : start + at_once].reshape(-1)
        yield part, respond(policy, part, samples, row_keys, max_new_tokens, distribution)


@torch.no_grad()
def entropies(policy: CausalPolicy, prompts: Sequence[Sequence[int]], responses: Responses) -> Tensor:
    """[N, T] entropy, in nats, of the policy at each token of responses to these prompts (0 where `mask` is False)."""
    prompt, real = policy.pad_prompts(prompts)
    copies = len(responses.mask) // len(prompts)
    decisions = Decisions(
        mask=responses.mask.clone(),
        context={"prompt": prompt, "prompt_mask": real},
        context_row=torch.arange(len(prompts), device=prompt.device).repeat_interleave(copies),
        action=responses.action.clone(),
    )
    return policy.evaluate(decisions, frozenset({"entropy"})).entropy


def decoded(policy: CausalPolicy, action: Tensor, mask: Tensor) -> list[str]:
    """The text of each row's decided tokens, without special tokens."""
    rows = [ids[keep].tolist() for ids, keep in zip(action.cpu(), mask.cpu(), strict=True)]
    return list(policy.tokenizer.batch_decode(rows, skip_special_tokens=True))
