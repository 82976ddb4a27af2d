"""P3O as a run: any language run whose responses come in pairs.

Wu et al. 2023, arXiv 2310.00212; the method file tells the equations.
"""

from __future__ import annotations

from ascent.core.method import Method
from ascent.systems import language
from ascent.systems.assembly import Assembly, refuse_unfed
from ascent.systems.config import BadConfig, Config, LanguageConfig
from ascent.training.processes import Processes


def build(config: Config, method: Method, processes: Processes) -> Assembly:
    """The assembly of `p3o`.

    Raises:
        BadConfig: before a model loads, where responses do not pair.
    """
    refuse(config, method)
    return language.build(config, method, processes)


def refuse(config: Config, method: Method) -> None:
    """Raise BadConfig where responses do not pair, or the world does not feed the method."""
    if not isinstance(config, LanguageConfig):
        raise BadConfig(f"method {method.slug!r} compares responses to one prompt, and {config.world!r} has none.")
    if config.scored is None and config.group_size % 2:
        raise BadConfig(
            f"group_size must be even for {method.slug!r}, whose responses come in pairs; got {config.group_size}. "
            "Take 2, as the paper does."
        )
    refuse_unfed(config, method)
