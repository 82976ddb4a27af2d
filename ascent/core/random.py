"""Randomness as a hash of words: a draw depends on what it is for, never on what was drawn before.

So a draw survives reordering, dropping finished rows, sharding over processes and resuming.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Drawn = Any
"""A tensor, or a numpy array for those who act in numpy."""

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB


def key(*words: int | str) -> int:
    """A signed 64-bit hash of the words, equal on every machine."""
    digest = hashlib.blake2b("\x1f".join(str(word) for word in words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def generator(*words: int | str) -> torch.Generator:
    """A CPU generator seeded by the words, for code that needs a stream of draws (a shuffle, a reset)."""
    return torch.Generator().manual_seed(key(*words) & 0x7FFF_FFFF_FFFF_FFFF)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(keys: Tensor, *words: Tensor | int) -> Tensor:
    """Hash int64 `keys` (any shape) with further words, broadcasting (splitmix64 finaliser per word)."""
    x = keys
    # The key is hashed before the first word meets it, or small keys would collide: 1 ^ 2 == 2 ^ 1.
    for word in (0, *words):
        x = (x ^ word) + _GOLDEN
        x = (x ^ _shift(x, 30)) * _FIRST
        x = (x ^ _shift(x, 27)) * _SECOND
        x = x ^ _shift(x, 31)
    return x


def uniform(keys: Tensor, *words: Tensor | int) -> Tensor:
    """Float64 uniforms in [0, 1), one for each hash of `keys` and `words`, shapes broadcast."""
    return _shift(mix(keys, *words), 11).to(torch.float64) * 2.0**-53


class Ahead:
    """Named draws of consecutive turns, several turns at a time: hashing many numbers costs hardly more than a few.

    Args:
        draw: int64 turns [R] -> the draws of each, [R, ...]; a draw depends on its own turn only.
        turns: drawn together, >= 1.
    """

    def __init__(self, draw: Callable[[Tensor], Drawn], turns: int = 32) -> None:
        if turns < 1:
            raise ValueError(f"turns must be an integer >= 1; got {turns!r}.")
        self.draw, self.turns = draw, turns
        self.first = 0
        self.drawn: Drawn | None = None

    def __call__(self, turn: int, count: int | None = None) -> Drawn:
        """The draws of one turn, or [count, ...] of those from it on."""
        place, wanted = turn - self.first, 1 if count is None else count
        if self.drawn is None or not 0 <= place <= self.turns - wanted:
            if wanted > self.turns:
                return self.draw(torch.arange(turn, turn + wanted))
            self.first, place = turn, 0
            self.drawn = self.draw(torch.arange(turn, turn + self.turns))
        return self.drawn[place] if count is None else self.drawn[place : place + count]
