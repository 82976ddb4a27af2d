"""Tokens one after another: a decoder that remembers, and the draw of a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from ascent.policies.causal import CausalPolicy, accepts

# Tokens that are accumulated at once; a vocabulary of more than two blocks is searched block by block.
BLOCK = 512
# A goal is multiplied by it, so that it stays below the total also after rounding and an impossible last token
# is never drawn.
BELOW_ONE = 1 - 2.0**-40


class Decoder(Protocol):
    """Logits of the next token for a batch of rows that grow by one token a step.

    A decoder may wrap another and change its logits: a logits processor is a decoder.
    """

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        """Read prompts [P, L] (left-padded, `real` their mask) once, then hold `copies` rows of each.

        `room` is the most tokens that a row may grow to hold after its prompt, >= 1.
        Returns logits [P * copies, V] of the first token.
        """
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token [B] to each row; logits [B, V] of the next."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows [B'] (ascending numbers) of the batch only."""
        ...


DecoderFactory = Callable[[CausalPolicy], Decoder]


class Cached:
    """The model's own forward with its key-value cache."""

    def __init__(self, policy: CausalPolicy) -> None:
        self.policy = policy
        self.places = "position_ids" in accepts(policy.base)
        self.kept: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepts(policy.base) else {}

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        self.cache = DynamicCache(config=self.policy.config.get_text_config())
        # Where no prompt is padded the model needs no mask at all.
        self.seen = None if bool(real.all()) else real.long()
        self.place = real.sum(1)
        places = (real.long().cumsum(1) - 1).clamp(min=0)
        logits = self._forward(prompt, places).repeat_interleave(copies, 0)
        if copies > 1:
            self.cache.batch_repeat_interleave(copies)
            self.place = self.place.repeat_interleave(copies)
            self.seen = None if self.seen is None else self.seen.repeat_interleave(copies, 0)
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        if self.seen is not None:
            self.seen = torch.cat([self.seen, self.seen.new_ones(len(tokens), 1)], 1)
        logits = self._forward(tokens[:, None], self.place[:, None])
        self.place = self.place + 1
        return logits

    def _forward(self, ids: Tensor, places: Tensor) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": ids, "past_key_values": self.cache, **self.kept}
        if self.seen is not None:
            inputs["attention_mask"] = self.seen
        if self.places:
            inputs["position_ids"] = places
        logits: Tensor = self.policy.model(**inputs, use_cache=True).logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.place = self.place[rows]
        self.seen = None if self.seen is None else self.seen[rows]


class Uncached:
    """The whole text again for every token: for architectures without a key-value cache."""

    def __init__(self, policy: CausalPolicy) -> None:
        self.policy = policy

    def start(self, prompt: Tensor, real: Tensor, copies: int, room: int) -> Tensor:
        self.ids, self.seen = prompt.repeat_interleave(copies, 0), real.long().repeat_interleave(copies, 0)
        return self._forward()

    def step(self, tokens: Tensor) -> Tensor:
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(tokens), 1)], 1)
        return self._forward()

    def _forward(self) -> Tensor:
        inputs = {"input_ids": self.ids, "attention_mask": self.seen}
        if "position_ids" in accepts(self.policy.base):
            inputs["position_ids"] = (self.seen.cumsum(1) - 1).clamp(min=0)
        logits: Tensor = self.policy.model(**inputs, use_cache=False).logits[:, -1]
        return logits

    def keep(self, rows: Tensor) -> None:
        self.ids, self.seen = self.ids[rows], self.seen[rows]


def restricted(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits [B, V] with -inf outside the `top_k` likeliest tokens (0: all), then outside the smallest set
    whose probability reaches `top_p`."""
    if 0 < top_k < logits.shape[-1]:
        floor = logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if top_p < 1:
        ordered, places = logits.sort(-1, descending=True)
        share = ordered.softmax(-1)
        beyond = share.cumsum(-1) - share >= top_p
        logits = logits.masked_fill(beyond.scatter(-1, places, beyond), -torch.inf)
    return logits


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """One token a row by the inverse of its cumulative distribution, and the log-probability it really had.

    Args:
        logits: [B, V].
        uniform: [B] float64 in [0, 1).
        temperature: >= 0; at 0 the likeliest token is taken, with log-probability 0.
        top_k, top_p: see `restricted`; the rest is renormalised.

    Returns:
        tokens [B] int64 and log-probabilities [B] in nats.
    """
    if temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, torch.zeros(len(tokens), device=logits.device)
    scaled = logits if logits.dtype == torch.float64 else logits.float()
    if temperature != 1:
        scaled = scaled / temperature
    scaled = restricted(scaled, top_k, top_p)
    goal = (uniform * BELOW_ONE)[:, None]
    if logits.shape[-1] <= 2 * BLOCK:
        share = scaled.softmax(-1, dtype=torch.float64)
        cumulative = share.cumsum(-1)
        tokens = torch.searchsorted(cumulative, goal * cumulative[:, -1:], right=True)
        chosen = share.gather(-1, tokens)
    else:
        tokens, chosen = _two_levels(scaled.softmax(-1), goal)
    return tokens[:, 0], chosen.log()[:, 0].to(scaled.dtype)


def _two_levels(share: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """As in `draw`, from probabilities [B, V]: first the block of tokens [B, 1], then the token in it.

    Only the blocks' sums and one block are accumulated in float64. Returns tokens and their probabilities [B, 1].
    """
    size = share.shape[-1]
    whole = size // BLOCK
    sums = torch.unflatten(share[:, : whole * BLOCK], -1, (whole, BLOCK)).sum(-1)
    sums = torch.cat([sums, share[:, whole * BLOCK :].sum(-1, keepdim=True)], -1).double()
    cumulative = sums.cumsum(-1)
    total = cumulative[:, -1:]
    goal = goal * total
    block = torch.searchsorted(cumulative, goal, right=True)
    mass = sums.gather(-1, block)
    # How far into its block the goal lies, in [0, 1); rounding may say 1.
    inside = ((goal - (cumulative.gather(-1, block) - mass)) / mass).clamp(0, BELOW_ONE)
    places = block * BLOCK + torch.arange(BLOCK, device=share.device)
    part = share.gather(-1, places.clamp(max=size - 1)).double().masked_fill_(places >= size, 0)
    within = part.cumsum(-1)
    place = torch.searchsorted(within, inside * within[:, -1:], right=True)
    return block * BLOCK + place, part.gather(-1, place) / total
