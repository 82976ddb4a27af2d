"""Freed buffers stay with the process, so the next update takes no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Pages taken anew by ten rounds of four buffers of 8 MiB, in a fresh process: the C library's bound only ever rises.
SCRIPT = """
import resource, torch
from ascent.training.loop import Loop, System
if {kept}:
    Loop(System({{}}, {{}}, ()))
def pages(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        held = [torch.ones(2**21) for _ in range(4)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages(2)
print(pages(10))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the bound is the C library's of Linux")
def test_a_loop_keeps_the_buffers_it_frees() -> None:
    def pages(kept: bool) -> int:
        """The least of three: a system that reclaims memory meanwhile adds pages to both, and takes none away."""
        command = [sys.executable, "-c", SCRIPT.format(kept=kept)]
        return min(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(3))

    assert 10 * pages(True) < pages(False)
