"""Recorded responses as decisions, groups of one prompt: what offline methods learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ascent.core.decisions import Decisions
from ascent.core.random import key
from ascent.policies.causal import CausalPolicy
from ascent.worlds.text.scored import Scored
from ascent.worlds.text.task import Prompt


def recorded(rows: Sequence[Scored], policy: CausalPolicy) -> Decisions:
    """Every response of every row, ordered row by row; no log-probs, since who wrote them need not be known.

    Args:
        rows: scored groups.
        policy: its tokenizer writes the tokens; the end-of-sequence token closes a response that ended.

    Returns:
        N responses: context "prompt", "prompt_mask" shared by `context_row`, `action`, `reward` (the score on the last
        decision), `terminated`, `truncated`, `group` and `index` (number of the row).

    Raises:
        ValueError: no rows, a cut-off response without tokens, or more tokens than the model's context.
    """
    return written(
        [row.prompt for row in rows],
        [number for number, row in enumerate(rows) for _ in row.completions],
        [text for row in rows for text in row.completions],
        [float(score) for row in rows for score in row.scores],
        [end for row in rows for end in row.ended],
        policy,
    )


def written(
    prompts: Sequence[Prompt],
    numbers: Sequence[int],
    texts: Sequence[str],
    scores: Sequence[float],
    ended: Sequence[bool],
    policy: CausalPolicy,
) -> Decisions:
    """Response `texts[i]` to prompt `prompts[numbers[i]]`, its score and whether it ended; as `recorded`."""
    if not texts:
        raise ValueError("rows must hold at least one group of scored responses; got none.")
    encoded = [policy.encode_prompt(prompt) for prompt in prompts]
    tokens = policy.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ids = [[*item, policy.eos[0]] if end else list(item) for item, end in zip(tokens, ended, strict=True)]
    for number, item in zip(numbers, ids, strict=True):
        _refuse(number, len(encoded[number]), len(item), policy.context_length)
    prompt, real = policy.pad_prompts(encoded)
    width = max(len(item) for item in ids)
    lengths = torch.tensor([[len(item)] for item in ids])
    action = torch.tensor([item + [policy.pad] * (width - len(item)) for item in ids])
    columns = torch.arange(width)
    last, over = columns == lengths - 1, torch.tensor(ended)[:, None]
    group, device = torch.tensor(numbers), policy.device
    return Decisions(
        mask=(columns < lengths).to(device),
        context={"prompt": prompt, "prompt_mask": real},
        context_row=group.to(device),
        action=action.to(device),
        reward=torch.where(last, torch.tensor(scores)[:, None], 0.0).to(device),
        terminated=(last & over).to(device),
        truncated=(last & ~over).to(device),
        group=group.to(device),
        index=group.to(device),
        key=torch.tensor([key("recorded", place) for place in range(len(ids))], device=device),
    )


def _refuse(number: int, prompt: int, response: int, limit: int | None) -> None:
    if not response:
        raise ValueError(f"row {number} holds an empty response that was cut off: it decides nothing. Drop the row.")
    if limit is not None and prompt + response > limit:
        raise ValueError(
            f"row {number} has {prompt} + {response} tokens, more than the model's context of {limit}. "
            "Shorten or drop it, or take a model with a longer context."
        )
