"""Clipping and Adam of a small network as one call of `adam.c`: for PyTorch they are a dozen small ones."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from ctypes import c_double, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ascent.core.plan import Adam
from ascent.policies.compiled import compiled

SOURCE = Path(__file__).with_name("adam.c")
NUMBERS = {torch.float32: "float", torch.float64: "double"}
# Numbers of all parameters together, above which PyTorch's calls no longer weigh, and its threads may.
MOST = 2**18

_LOG = logging.getLogger(__name__)


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled function for this precision; None where there is none, and the log says why."""
    if dtype not in NUMBERS:
        return None
    flags = (f"-DNUMBER={NUMBERS[dtype]}", "-ffp-contract=off")
    found = compiled(SOURCE, flags, _LOG, "parameters move by PyTorch's operations")
    if found is not None:
        found.step.argtypes, found.step.restype = [c_int64, c_void_p, c_void_p, c_void_p], c_double
    return found


class Constants(ctypes.Structure):
    """`Constants` of `adam.c`."""

    _fields_ = [(name, c_double) for name in ("rate", "first_decay", "second_decay", "eps", "weight_decay", "limit")]


class NativeAdam:
    """`adam.c` for tensors of one device and dtype.

    Args:
        specification: decay rates, eps, weight decay and clipping.
        parameters, first, second: of equal shapes.
        counts: [P] float32, steps that each has taken.
    """

    def __init__(
        self,
        specification: Adam,
        parameters: Sequence[Tensor],
        first: Sequence[Tensor],
        second: Sequence[Tensor],
        counts: Tensor,
    ) -> None:
        self.parameters, self.moments, self.counts = list(parameters), (first, second), counts
        limit = specification.max_gradient_norm
        self.constants = Constants(
            0.0, *specification.betas, specification.eps, specification.weight_decay, -1.0 if limit is None else limit
        )
        self.address = ctypes.addressof(self.constants)
        # By kind, so that the last two, which move, are written in one piece.
        self.fixed = [x.numel() for x in self.parameters] + [x.data_ptr() for x in (*first, *second)]
        self.array = (c_int64 * (5 * len(self.parameters)))(*self.fixed)
        self.places: list[int] = []
        self.call: ctypes.CDLL | None = None

    def step(self, gradients: Sequence[Tensor], rate: float) -> float | None:
        """Clip and move; the norm of the gradients before. None where `adam.c` cannot read them."""
        if not all([gradient.layout == torch.strided and gradient.is_contiguous() for gradient in gradients]):
            return None
        places = [parameter.data_ptr() for parameter in self.parameters]
        if places != self.places:
            alike = self.parameters[0]
            plain = all(x.is_contiguous() and x.device.type == "cpu" for x in self.parameters)
            small = sum(x.numel() for x in self.parameters) <= MOST
            self.places, self.call = places, library(alike.dtype) if plain and small else None
        if self.call is None:
            return None
        self.array[len(self.fixed) :] = [*places, *[gradient.data_ptr() for gradient in gradients]]
        self.counts += 1
        self.constants.rate = rate
        return self.call.step(len(places), ctypes.addressof(self.array), self.counts.data_ptr(), self.address)
