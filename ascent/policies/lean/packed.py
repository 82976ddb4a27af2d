"""The tokens of an update laid flat: no padding, and each prompt once for all rows that share it.

Order of the flat axis [M]: the prompts, short ones first, then the responses, short ones first. A *sequence* is one
prompt or one response; attention alone needs to know them, and reads them in blocks of similar length.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ascent.core.decisions import Decisions

# Attention of two blocks of rows instead of one must spare this share of (query, key) pairs to pay for its calls.
SPARED = 0.15
# Most blocks that the responses (or the prompts) are cut into.
MOST_BLOCKS = 8


@dataclass(frozen=True)
class Rows:
    """Rows of a flat tensor read as padded rows.

    Attributes:
        index: [n * width] flat row of each place; None where nothing is padded and the flat rows are the places.
        inverse: [m] place of each flat row, in order.
    """

    index: Tensor | None
    inverse: Tensor | None


@dataclass(frozen=True)
class Block:
    """Sequences whose attention is computed together.

    Attributes:
        count, width: sequences and queries of the longest.
        queries: the block's queries among the flat queries of its part (prompts or responses); size is their number.
        keys: the block's own keys, where they differ from its queries; of the same sequences.
        prompt: [count] number of the prompt that each sequence follows; None for prompts themselves.
        prompt_width: keys of the longest of those prompts.
        bias: [count or 1, 1, width, keys] 0 where a query sees a key, else -inf; None is plain causal.
    """

    count: int
    width: int
    size: int
    queries: Rows
    key_width: int
    key_size: int
    keys: Rows
    prompt: Tensor | None
    prompt_width: int
    bias: Tensor | None


@dataclass(frozen=True)
class Layout:
    """Where everything lies.

    Attributes:
        ids, position: [M] token and its place in its text.
        prompt_tokens: how many of the M belong to prompts.
        prompts: the prompts' keys as [prompts * longest prompt] padded rows; prompt_count: how many prompts.
        full: blocks of a layer in which every token asks; last: of the layer whose answers are needed at `kept` only.
        kept: [K] flat tokens whose last states are read; kept_prompt: how many of them belong to prompts.
        row, column: [D] places of the decided entries in [N, T].
        state, after: [D] number among `kept` of the state that predicts the entry, and of the one behind it.
    """

    ids: Tensor
    position: Tensor
    prompt_tokens: int
    prompts: Rows
    prompt_count: int
    full: tuple[tuple[Block, ...], tuple[Block, ...]]
    last: tuple[tuple[Block, ...], tuple[Block, ...]]
    kept: Tensor
    kept_prompt: int
    row: Tensor
    column: Tensor
    state: Tensor
    after: Tensor


def layout(decisions: Decisions, after: bool, dtype: torch.dtype) -> Layout | None:
    """How the tokens that the decided entries of `decisions` depend on are laid flat.

    Args:
        decisions: mask and action [N, T]; the context holds `prompt` and `prompt_mask` [C, L].
        after: the states behind the decided entries are needed too.
        dtype: of the attention bias.

    Returns:
        None where there is nothing to lay: no decided entry, or one whose prompt is empty.
    """
    mask, device = decisions.mask, decisions.mask.device
    row, column = mask.nonzero(as_tuple=True)
    if not len(row):
        return None
    width = mask.shape[1]
    lengths = torch.where(mask, torch.arange(1, width + 1, device=device), 0).amax(1)
    alive = lengths.nonzero()[:, 0]
    owner = torch.arange(len(mask), device=device) if decisions.context_row is None else decisions.context_row
    used, owner = torch.unique(owner[alive], return_inverse=True)
    real = decisions.context["prompt_mask"][used]
    sizes = real.sum(1)
    if not bool(sizes.all()):
        return None

    by_size = sizes.argsort(stable=True)
    sizes, real, owner = sizes[by_size], real[by_size], by_size.argsort()[owner]
    prompt_ids = decisions.context["prompt"][used[by_size]][real]

    read = lengths[alive] - 1 + int(after)
    by_read = read.argsort(stable=True)
    read, owner, rows = read[by_read], owner[by_read], alive[by_read]
    spoken = torch.arange(width, device=device) < read[:, None]
    response_ids = decisions.action[rows][spoken]

    prompt_sequence, prompt_place = _places(sizes)
    response_sequence, response_place = _places(read)
    tokens, total = len(prompt_ids), len(prompt_ids) + len(response_ids)

    # The state before entry (row, column) is the prompt's last token's, or that of the response's token column - 1.
    prompt_end = sizes.cumsum(0) - 1
    starts = tokens + read.cumsum(0) - read
    sequence = torch.full((len(mask),), -1, device=device).index_put((rows,), torch.arange(len(rows), device=device))
    of = sequence[row]
    state = torch.where(column == 0, prompt_end[owner[of]], starts[of] + column - 1)
    behind = starts[of] + column if after else state
    needed = torch.zeros(total, dtype=torch.bool, device=device)
    needed[state] = True
    needed[behind] = True
    kept = needed.nonzero()[:, 0]
    number = needed.cumsum(0) - 1
    kept_prompt = int(needed[:tokens].sum())

    longest = int(sizes[-1])
    every = torch.ones_like(needed)
    full = _blocks(sizes, read, owner, every[:tokens], every[tokens:], dtype)
    last = full if len(kept) == total else _blocks(sizes, read, owner, needed[:tokens], needed[tokens:], dtype)
    return Layout(
        ids=torch.cat([prompt_ids, response_ids]),
        position=torch.cat([prompt_place, sizes[owner][response_sequence] + response_place]),
        prompt_tokens=tokens,
        prompts=_padded(sizes, prompt_sequence, prompt_place, longest),
        prompt_count=len(sizes),
        full=full,
        last=last,
        kept=kept,
        kept_prompt=kept_prompt,
        row=row,
        column=column,
        state=number[state],
        after=number[behind],
    )


def _places(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Of each flat token: the sequence it belongs to and its place there."""
    sequence = torch.repeat_interleave(sizes)
    return sequence, torch.arange(len(sequence), device=sizes.device) - (sizes.cumsum(0) - sizes)[sequence]


def _padded(sizes: Tensor, sequence: Tensor, place: Tensor, width: int) -> Rows:
    """Sequences of these sizes, one after the other in a flat tensor, as rows padded to `width`."""
    if len(sequence) == len(sizes) * width:
        return Rows(None, None)
    inverse = sequence * width + place
    index = torch.zeros(len(sizes) * width, dtype=torch.int64, device=sizes.device)
    index[inverse] = torch.arange(len(sequence), device=sizes.device)
    return Rows(index, inverse)


def _blocks(
    sizes: Tensor, read: Tensor, owner: Tensor, asks: Tensor, answers: Tensor, dtype: torch.dtype
) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """Blocks of the prompts, then of the responses.

    Args:
        sizes, read: tokens of each prompt and each response, both ascending.
        owner: the prompt that each response follows.
        asks, answers: which tokens of the prompts, and of the responses, are queries.
    """
    prompts = _part(sizes, None, None, asks, dtype)
    responses = _part(read, owner, sizes, answers, dtype)
    return prompts, responses


def _part(
    sizes: Tensor, owner: Tensor | None, prompt_sizes: Tensor | None, asks: Tensor, dtype: torch.dtype
) -> tuple[Block, ...]:
    blocks = []
    sequence, place = _places(sizes)
    lengths = sizes.tolist()
    before = [0] * len(lengths) if owner is None or prompt_sizes is None else prompt_sizes[owner].tolist()
    for start, end in _cuts(lengths, before):
        inside = (sequence >= start) & (sequence < end)
        own, where = sequence[inside] - start, place[inside]
        key_width, asked = lengths[end - 1], asks[inside]
        if key_width == 0:
            continue
        keys = _padded(sizes[start:end], own, where, key_width)
        everyone = bool(asked.all())
        counts = torch.bincount(own[asked], minlength=end - start)
        width = int(counts.max())
        if width == 0:
            width = 1
        _, rank = _places(counts)
        queries = keys if everyone else _padded(counts, own[asked], rank, width)
        follows = None if owner is None else owner[start:end]
        prompt_width = max(before[start:end])
        bias = None
        if not (everyone and owner is None):
            at = torch.zeros(end - start, width, dtype=torch.int64, device=sizes.device)
            at[own[asked], rank] = where[asked]
            bias = _bias(at, key_width, None if prompt_sizes is None else prompt_sizes[follows], prompt_width, dtype)
        blocks.append(
            Block(end - start, width, int(asked.sum()), queries, key_width, len(own), keys, follows, prompt_width, bias)
        )
    return tuple(blocks)


def _bias(at: Tensor, keys: int, prompt: Tensor | None, prompt_width: int, dtype: torch.dtype) -> Tensor:
    """[n or 1, 1, width, prompt_width + keys]: a query at place `at` sees its whole prompt and what is not after it."""
    sees = torch.arange(keys, device=at.device) <= at[..., None]
    if prompt is not None:
        real = torch.arange(prompt_width, device=at.device) < prompt[:, None, None]
        sees = torch.cat([real.expand(*at.shape, prompt_width), sees], -1)
    bias = torch.zeros(sees.shape, dtype=dtype, device=at.device).masked_fill_(~sees, float("-inf"))
    alike = bool((sees == sees[:1]).all())
    return (bias[:1] if alike else bias)[:, None]


def _cuts(lengths: list[int], before: list[int]) -> list[tuple[int, int]]:
    """Ranges of sequences (ascending in length) that are computed together: more only while each pays."""

    def work(start: int, end: int) -> int:
        return (end - start) * lengths[end - 1] * (lengths[end - 1] + max(before[start:end]))

    count = len(lengths)
    best = [(0, count)]
    cost = work(0, count)
    for parts in (2, 4, MOST_BLOCKS):
        if parts > count:
            break
        edges = [count * part // parts for part in range(parts + 1)]
        cuts = [(start, end) for start, end in pairwise(edges) if start < end]
        total = sum(work(*cut) for cut in cuts)
        if total > (1 - SPARED) * cost:
            break
        best, cost = cuts, total
    return best
