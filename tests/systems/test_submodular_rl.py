"""SubPO's assembly: whole episodes as rows, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.run import assemble, train
from ascent.systems.submodular_rl import episode
from ascent.training.processes import Processes


def test_a_map_says_how_long_its_episodes_are() -> None:
    assert episode(ControlConfig(method="submodular_rl", env="ascent/Coverage-v0")) == 20
    assert episode(ControlConfig(method="submodular_rl", env="CartPole-v1")) == 500
    with pytest.raises(BadConfig, match="horizon must be given"):
        episode(ControlConfig(method="submodular_rl", env="ascent/AntCoverage-v0"))


def test_language_bad_arguments_and_scaled_gains_are_refused() -> None:
    config = LanguageConfig(method="submodular_rl")
    with pytest.raises(BadConfig, match="give --env"):
        assemble(config, config.composed(), Processes.launched())
    wrong = ControlConfig(method="submodular_rl", env="ascent/Coverage-v0", env_set=("observe=everything",))
    with pytest.raises(BadConfig, match="observe must be one of"):
        assemble(wrong, wrong.composed(), Processes.launched())
    scaled = ControlConfig(method="submodular_rl", env="ascent/Coverage-v0", normalise_reward=True)
    with pytest.raises(BadConfig, match="no longer add up"):
        assemble(scaled, scaled.composed(), Processes.launched())


def test_it_learns_to_walk_the_hills(tmp_path: Path) -> None:
    config = ControlConfig(
        method="submodular_rl",
        env="ascent/Coverage-v0",
        environments=32,
        steps=40,
        evaluate_every=40,
        episodes=1,
        tensorboard=False,
        quiet=True,
        output=str(tmp_path / "run"),
    )
    result = train(config)
    assert result.before is not None and result.after is not None
    assert result.before < 3 and result.after > 12  # a greedy walk earns 11.4, the best known 21.2
