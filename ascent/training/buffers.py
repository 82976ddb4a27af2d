"""What the process does with the memory of an update's buffers once they are freed."""

from __future__ import annotations

import torch

KEPT = 30 * 2**20
"""Bytes. The C library follows freed blocks up to 32 MiB; a larger one would leave its bound where it was."""


def keep_freed_memory() -> None:
    """Let the process keep buffers of up to 30 MiB that it frees, for the next update.

    The C library of Linux gives larger memory back to the system once it is freed, and the next update takes it anew
    page by page. What counts as large follows the largest block that was ever freed (`M_MMAP_THRESHOLD` in mallopt(3)),
    128 KiB at first. Nothing is written to the block, so it costs nothing; a bound that the user set stays
    (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`), and other allocators take no notice.
    """
    torch.empty(KEPT, dtype=torch.uint8)
