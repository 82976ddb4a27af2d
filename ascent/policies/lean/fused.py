"""Log-probability and entropy of a large vocabulary, block by block, logits computed again for the gradient.

A block is so many rows by so many columns of the logits that it stays in a core's own cache; normalisers of column
blocks are joined at the end (log-sum-exp of log-sum-exps), so nothing of the size M x V ever exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LOG2_E = math.log2(math.e)
LN_2 = math.log(2.0)

Span = slice


def upcast(logits: Tensor) -> Tensor:
    """At least float32: a log-softmax in half precision loses the small probabilities."""
    return logits if logits.dtype == torch.float64 else logits.float()


class Logits:
    """Blocks of logits in base 2, `(hidden weight^T + bias) / temperature / ln 2`: exp2 is a third of exp's time.

    Args:
        hidden: [M, H]; weight: [V, H]; bias: [V] or None.
        temperature: > 0.
        rows, columns: most of a block.
    """

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, rows: int, columns: int
    ) -> None:
        self.hidden, self.weight, self.bias = hidden, weight, bias
        self.scale = LOG2_E / temperature
        self.half = hidden.dtype not in (torch.float32, torch.float64)
        # Half precision is scaled after the product: before it, one more rounding would be felt.
        self.asking = hidden if self.half else hidden * self.scale
        self.shift = None if bias is None else bias.to(hidden.dtype) * (1.0 if self.half else self.scale)
        self.rows = [slice(start, min(start + rows, len(hidden))) for start in range(0, len(hidden), rows)]
        self.columns = [slice(start, min(start + columns, len(weight))) for start in range(0, len(weight), columns)]
        number = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.room = hidden.new_empty(min(rows, len(hidden)) * min(columns, len(weight)), dtype=number)

    def table(self, span: Span) -> Tensor:
        """[c, H] the weights of some columns, in the precision of the states."""
        return self.weight[span].to(self.hidden.dtype)

    def block(self, row: Span, column: Span, table: Tensor) -> Tensor:
        """[r, c] logits of a block, valid until the next."""
        asking = self.asking[row]
        shift = None if self.shift is None else self.shift[column]
        if self.half:
            product = asking @ table.T if shift is None else torch.addmm(shift, asking, table.T)
            return product.float().mul_(self.scale)
        space = self.room[: len(asking) * len(table)].view(len(asking), len(table))
        if shift is None:
            return torch.mm(asking, table.T, out=space)
        return torch.addmm(shift, asking, table.T, out=space)


class FusedHead(torch.autograd.Function):
    """log pi(action) and entropy of softmax((hidden weight^T + bias) / temperature), block by block."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        action: Tensor,
        temperature: float,
        with_entropy: bool,
        rows: int,
        columns: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        columns = columns or len(weight)
        with torch.autocast(hidden.device.type, enabled=False):
            logits = Logits(hidden.detach(), weight.detach(), bias, temperature, rows, columns)
            chosen, normaliser, entropy = _statistics(logits, action, with_entropy)
        ctx.save_for_backward(hidden, weight, bias, action, normaliser, entropy)
        ctx.temperature, ctx.rows, ctx.columns = temperature, rows, columns
        ctx.set_materialize_grads(False)
        return (chosen - normaliser) * LN_2, entropy

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_log_prob: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, action, normaliser, entropy = ctx.saved_tensors
        slope = torch.zeros_like(normaliser) if of_log_prob is None else of_log_prob
        spread = None if of_entropy is None or not bool((of_entropy != 0).any()) else of_entropy
        # A row that nothing flows into has no gradient: its logits are not computed again.
        alive = slope != 0 if spread is None else (slope != 0) | (spread != 0)
        live = None if bool(alive.all()) else alive.nonzero()[:, 0]
        full = hidden
        if live is not None:
            hidden, action, slope = hidden[live], action[live], slope[live]
            normaliser, entropy = normaliser[live], entropy[live]
            spread = None if spread is None else spread[live]
        with torch.autocast(hidden.device.type, enabled=False):
            logits = Logits(hidden, weight.detach(), bias, ctx.temperature, ctx.rows, ctx.columns)
            to_hidden, to_weight, to_bias = _slopes(
                logits, action, normaliser, entropy, slope / ctx.temperature, spread, ctx.needs_input_grad[:3]
            )
        if live is not None and to_hidden is not None:
            to_hidden = torch.zeros_like(full).index_copy_(0, live, to_hidden)
        return to_hidden, to_weight, to_bias, None, None, None, None, None


def _statistics(logits: Logits, action: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row the chosen logit and the normaliser, in base 2, and the entropy in nats (0 where not asked)."""
    number, count = logits.room.dtype, len(action)
    chosen = logits.room.new_zeros(count)
    parts = logits.room.new_empty(count, len(logits.columns))
    spreads = torch.empty_like(parts) if with_entropy else None
    for place, column in enumerate(logits.columns):
        table = logits.table(column)
        for row in logits.rows:
            block = logits.block(row, column, table)
            picked = action[row] - column.start
            inside = (picked >= 0) & (picked < len(table))
            here = block.gather(-1, picked.clamp(0, len(table) - 1)[:, None])[:, 0]
            chosen[row] = torch.where(inside, here, chosen[row])
            largest = block.amax(-1, keepdim=True)
            block.sub_(largest)
            if spreads is None:
                bits = block.exp2_().sum(-1).log2_()
            else:
                weights = block.exp2()
                total = weights.sum(-1)
                bits = total.log2()
                spreads[row, place] = bits - weights.mul_(block).sum(-1) / total
            parts[row, place] = largest[:, 0] + bits
    normaliser = torch.logsumexp(parts * LN_2, -1) * LOG2_E
    entropy = torch.zeros(count, dtype=number, device=chosen.device)
    if spreads is not None:
        # Entropy of the choice of a block and within it; logits themselves, which may be large, do not enter.
        share = torch.softmax(parts * LN_2, -1)
        entropy = (share * (spreads + (normaliser[:, None] - parts))).sum(-1) * LN_2
    return chosen, normaliser, entropy


def _slopes(
    logits: Logits,
    action: Tensor,
    normaliser: Tensor,
    entropy: Tensor,
    slope: Tensor,
    spread: Tensor | None,
    wanted: tuple[bool, bool, bool],
) -> Iterator[Tensor | None]:
    """Gradients of states, weights and bias.

    With u the slope of log p (over the temperature) and w that of the entropy, a row's logits receive
    `u onehot(a) - p (u + w (log p + H))`. Without w, p alone meets the matrix products, and u scales their thin side.

    Args:
        normaliser: [M] in base 2; entropy: [M] in nats; slope: [M]; spread: [M] or None.
    """
    hidden, weight, number = logits.hidden, logits.weight, logits.room.dtype
    wants_hidden, wants_weight, wants_bias = wanted
    to_hidden = torch.zeros_like(hidden, dtype=number) if wants_hidden else None
    to_weight = torch.zeros_like(weight, dtype=number) if wants_weight else None
    to_bias = torch.zeros(len(weight), dtype=number, device=weight.device) if wants_bias else None
    sloped = hidden * slope[:, None].to(hidden.dtype)
    side = sloped if spread is None else hidden
    unit = slope if spread is None else torch.ones_like(slope)
    tilt = level = None
    if spread is not None:
        # (u + w (log p + H)) over the temperature, of log p in base 2.
        tilt = (spread * (logits.scale * LN_2 * LN_2))[:, None]
        level = slope[:, None] + tilt * (entropy * LOG2_E)[:, None]
    for column in logits.columns:
        table = logits.table(column)
        for row in logits.rows:
            block = logits.block(row, column, table).sub_(normaliser[row, None])
            if tilt is None or level is None:
                block.exp2_()
            else:
                p = block.exp2()
                block.mul_(tilt[row]).add_(level[row]).mul_(p)
            if to_bias is not None:
                to_bias[column] += unit[row] @ block
            narrow = block.to(hidden.dtype)
            if to_hidden is not None:
                _accumulate(to_hidden[row], narrow, table)
            if to_weight is not None:
                _accumulate(to_weight[column], narrow.T, side[row])
    if to_hidden is not None:
        to_hidden.mul_(unit[:, None]).neg_().addcmul_(weight[action].to(number), slope[:, None])
    if to_weight is not None:
        to_weight.neg_().index_add_(0, action, sloped.to(number))
    if to_bias is not None:
        to_bias.neg_().index_add_(0, action, slope)
    kinds = (hidden, weight, weight if logits.bias is None else logits.bias)
    found = (to_hidden, to_weight, to_bias)
    return (None if item is None else item.to(kind.dtype) for item, kind in zip(found, kinds, strict=True))


def _accumulate(into: Tensor, left: Tensor, right: Tensor) -> None:
    """`into += left @ right`, in the precision of `into`."""
    if into.dtype == left.dtype:
        into.addmm_(left, right)
    else:
        into += left @ right
