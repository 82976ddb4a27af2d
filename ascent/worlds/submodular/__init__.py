"""Set functions of what a trajectory visits, maps to walk on, and Gymnasium environments paid by marginal gains.

Registers "ascent/Coverage-v0", "ascent/ItemCollection-v0", "ascent/InformativePath-v0", "ascent/Biodiversity-v0",
"ascent/TwoRooms-v0", "ascent/GreedyTrap-v0", the release's 30 x 30 maps, and "ascent/AntCoverage-v0".
"""

from __future__ import annotations

import gymnasium

from ascent.worlds.submodular.maps import MAPS


def register() -> None:
    """Add the worlds to Gymnasium's registry; a second call changes nothing."""
    for name in MAPS:
        slug = f"ascent/{name}-v0"
        if slug not in gymnasium.registry:
            gymnasium.register(
                slug, entry_point="ascent.worlds.submodular.grid:SubmodularGrid", kwargs={"ground": name}
            )
    if "ascent/AntCoverage-v0" not in gymnasium.registry:
        gymnasium.register("ascent/AntCoverage-v0", entry_point="ascent.worlds.submodular.ant:AntCoverage")


register()
