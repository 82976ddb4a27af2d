"""`native.c` as a library of this machine: compiled in a second by its C compiler when first needed, then kept.

The compiler is optional. Without one, or where it fails, everything works as before, only slower.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("native.c")
# Type, and terms of the series that reach its precision.
NUMBERS = {torch.float32: ("float", 7), torch.float64: ("double", 13)}
# Compilers name the present processor in two ways.
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-O3", NATIVE, "-fPIC", "-shared", "-fno-math-errno")
# Seconds that a compiler may take.
PATIENCE = 60
SWITCH = "ASCENT_NATIVE"

_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where what can be made again is kept: ASCENT_CACHE, or ascent in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ASCENT_CACHE") or Path(base) / "ascent")


@cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled functions for this precision; None where there are none, and the log says why.

    ASCENT_NATIVE=0 in the environment switches them off.
    """
    if dtype not in NUMBERS or os.environ.get(SWITCH) == "0":
        return None
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        _LOG.info("no C compiler: sampling on the processor takes PyTorch's kernels alone.")
        return None
    number, degree = NUMBERS[dtype]
    command = [compiler, *FLAGS, f"-DNUMBER={number}", f"-DDEGREE={degree}"]
    place = cache_folder() / "native" / f"{_name(command)}.so"
    try:
        if not place.exists():
            _compile(command, place)
        return ctypes.CDLL(str(place))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        _LOG.warning("%s could not be compiled, sampling takes PyTorch's kernels alone: %s", SOURCE.name, said)
        return None


def _name(command: list[str]) -> str:
    """Of the source, the command and the processor: a library made for another one may not run here."""
    processor = platform.processor() + platform.machine()
    known = Path("/proc/cpuinfo")
    if known.exists():
        processor += next(
            (line for line in known.read_text().splitlines() if line.startswith(("flags", "Features"))), ""
        )
    parts = [SOURCE.read_bytes(), " ".join(command).encode(), processor.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _compile(command: list[str], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = Path(folder) / place.name
        subprocess.run(
            [*command, str(SOURCE), "-o", str(made), "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        # Whoever else compiles it writes the same.
        made.replace(place)
