"""`native.c` as a library of this machine, for each precision."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path

import torch

from ascent.policies.compiled import compiled

SOURCE = Path(__file__).with_name("native.c")
# Type, and terms of the series that reach its precision.
NUMBERS = {torch.float32: ("float", 7), torch.float64: ("double", 13)}

_LOG = logging.getLogger(__name__)


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions for this precision; None where there are none, and the log says why."""
    if dtype not in NUMBERS:
        return None
    number, degree = NUMBERS[dtype]
    instead = "sampling on the processor takes PyTorch's kernels alone"
    return compiled(SOURCE, (f"-DNUMBER={number}", f"-DDEGREE={degree}"), _LOG, instead)
