"""Where a language run computes: the CPU or a GPU, decided before anything loads. Control runs stay on the CPU."""

from __future__ import annotations

import dataclasses

import torch

from ascent.systems.config import BadConfig, Config, LanguageConfig


def settled(config: Config) -> Config:
    """The configuration with `auto` decided, so that the run folder says where it ran and a resumed run goes on there.

    Raises:
        BadConfig: the device is not here.
    """
    if not isinstance(config, LanguageConfig):
        return config
    if config.device == "auto":
        return dataclasses.replace(config, device="cuda" if torch.cuda.is_available() else "cpu")
    if config.device != "cpu":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = torch.device(config.device).index or 0
        if index >= count:
            here = ", ".join(["cpu", *(f"cuda:{place}" for place in range(count))])
            raise BadConfig(f"device {config.device!r} is not available here; got: {here}. Take one of them, or auto.")
    return config


def place(config: Config) -> str:
    """The device of a settled configuration."""
    return config.device if isinstance(config, LanguageConfig) else "cpu"
