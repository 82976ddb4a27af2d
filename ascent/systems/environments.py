"""The configured environment's copies."""

from __future__ import annotations

from ascent.systems.config import BadConfig, ControlConfig
from ascent.worlds.gym import Environments


def copies(config: ControlConfig, count: int, squashed: bool = False, codes: bool = False) -> Environments:
    """`count` copies of the configured environment.

    Raises:
        BadConfig: the environment does not take an argument of `env_set`, or refuses its value.
    """
    try:
        return Environments(config.env, count, squashed, arguments=config.env_arguments, codes=codes)
    except (TypeError, ValueError) as error:
        if not config.env_set or "squashed" in str(error):
            raise
        raise BadConfig(f"env_set: {config.env} refuses {config.env_arguments}: {error}") from error
