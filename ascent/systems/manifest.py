"""The manifest of a run: what would be needed to run it again."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ascent.core.method import Method
from ascent.systems.config import Config, LanguageConfig

PACKAGES = ("ascent-rl", "torch", "transformers", "tokenizers", "gymnasium", "mujoco", "numpy", "reasoning-gym")


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def manifest(config: Config, method: Method) -> dict[str, Any]:
    """Versions, machine, seeds, the method's parameters and a hash of the user's files."""
    files: list[str] = []
    if isinstance(config, LanguageConfig):
        files = [*([config.data] if config.data else []), *(reward.partition(":")[0] for reward in config.reward)]
    return {
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}, {torch.get_num_threads()} threads",
        "command": sys.argv,
        "seed": config.seed,
        "method": {
            "slug": method.slug,
            "parameters": {name: repr(item) for name, item in method.parameters.items()},
            "composition": composition(method),
        },
        "data": {file: _digest(Path(file)) for file in files},
    }


def composition(method: Method) -> str:
    """Every part of a method with its numbers, equal in every process: what a resumed run must be trained by."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(method))


def _digest(path: Path) -> str | None:
    """blake2b of a file, or of the names and contents of a folder's files; None where it is absent."""
    if not path.exists():
        return None
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def write(path: Path, content: Any) -> None:
    """JSON, indented."""
    path.write_text(json.dumps(content, indent=2) + "\n")
