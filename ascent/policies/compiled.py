"""C sources as libraries of this machine: compiled in a second by its C compiler when first needed, then kept.

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
from collections.abc import Sequence
from pathlib import Path

# Compilers name the present processor in two ways.
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FLAGS = ("-O3", NATIVE, "-fPIC", "-shared", "-fno-math-errno")
# Seconds that a compiler may take.
PATIENCE = 60
SWITCH = "ASCENT_NATIVE"


def cache_folder() -> Path:
    """Where what can be made again is kept: ASCENT_CACHE, or ascent in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ASCENT_CACHE") or Path(base) / "ascent")


def compiled(source: Path, flags: Sequence[str], log: logging.Logger, instead: str) -> ctypes.CDLL | None:
    """The functions of a C file; None where there are none, and the log says what is done `instead`.

    ASCENT_NATIVE=0 in the environment switches them off.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        log.info("no C compiler: %s.", instead)
        return None
    command = [compiler, *FLAGS, *flags]
    place = cache_folder() / "native" / f"{_name(source, command)}.so"
    try:
        if not place.exists():
            _compile(source, command, place)
        return ctypes.CDLL(str(place))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        log.warning("%s could not be compiled, %s: %s", source.name, instead, said)
        return None


def _name(source: Path, command: list[str]) -> str:
    """Of the source, the command and the processor: a library made for another one may not run here."""
    processor = platform.processor() + platform.machine()
    known = Path("/proc/cpuinfo")
    if known.exists():
        processor += next(
            (line for line in known.read_text().splitlines() if line.startswith(("flags", "Features"))), ""
        )
    parts = [source.read_bytes(), " ".join(command).encode(), processor.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _compile(source: Path, command: list[str], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = Path(folder) / place.name
        subprocess.run(
            [*command, str(source), "-o", str(made), "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        # Whoever else compiles it writes the same.
        made.replace(place)
