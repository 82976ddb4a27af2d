"""The floor of the GPU benchmark: bytes over the device's bandwidth, operations over its matrix rate.

Both rates are measured here, in the dtype of the run: a copy between two large tensors, and products of large square
matrices. Decode: each token step reads the weights once and every row's keys and values, or does its operations,
whichever takes longer. Learning: each prompt once a group and every response at its length, forward and twice as much
backward, no activation computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from language_gpu_work import GpuWork


def rates(work: GpuWork, size: int, repeats: int = 10) -> tuple[float, float]:
    """Bytes per second (read and written) and floating-point operations per second of products of `size` squared."""
    import torch

    dtype = getattr(torch, work.dtype)
    source = torch.ones(size * size * 4, dtype=dtype, device=work.device)
    target = torch.empty_like(source)
    one, two = (torch.randn(size, size, device=work.device).to(dtype) for _ in range(2))
    product = torch.empty_like(one)
    copying = _seconds(lambda: target.copy_(source), work.device, repeats)
    multiplying = _seconds(lambda: torch.mm(one, two, out=product), work.device, repeats)
    return 2 * source.numel() * source.element_size() / copying, 2 * size**3 / multiplying


def _seconds(function: Callable[[], Any], device: str, repeats: int) -> float:
    import torch

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    best = float("inf")
    for _ in range(repeats + 2):
        wait()
        since = time.perf_counter()
        function()
        wait()
        best = min(best, time.perf_counter() - since)
    return best


def floor(work: GpuWork, bandwidth: float, rate: float) -> dict[str, float]:
    """Seconds of `sample` and of `train`."""
    width = work.hidden // work.heads
    inside = work.layers * (
        work.hidden * width * (2 * work.heads + 2 * work.groups) + 3 * work.hidden * work.inner
    )  # weights of the layers
    head = work.hidden * work.vocabulary
    size = 8 if work.dtype == "float64" else 4 if work.dtype == "float32" else 2
    lengths = work.lengths(0)
    prompts = work.prompts * work.prompt

    def attention(queries: int, keys: int) -> int:
        return 4 * work.layers * work.hidden * queries * keys

    sample = (2 * inside * prompts + work.prompts * attention(work.prompt, work.prompt) // 2) / rate
    for position in range(max(lengths) - 1):
        rows = sum(length > position + 1 for length in lengths)
        seen = work.prompt + position + 1
        remembered = 2 * work.layers * work.groups * width * size * rows * seen
        operations = rows * (2 * (inside + head) + attention(1, seen))
        sample += max((size * (inside + head) + remembered) / bandwidth, operations / rate)
    tokens = prompts + sum(lengths)
    train = 2 * inside * tokens + 2 * head * sum(lengths)
    train += work.prompts * attention(work.prompt, work.prompt) // 2
    train += sum(attention(length, work.prompt) + attention(length, length) // 2 for length in lengths)
    return {"sample": sample, "train": 3 * train / rate}
