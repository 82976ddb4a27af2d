"""The team's assembly: it trains, learns, resumes, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

pytest.importorskip("pettingzoo")

from ascent.core.value_scale import moments
from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.run import assemble, resume, train
from ascent.training.loop import Loop
from ascent.training.processes import Processes

SMALL = ControlConfig(
    method="bayesian_network_marl",
    env="ascent/Coordination-v0",
    env_set=("agents=2",),
    environments=4,
    hidden=(16,),
    steps=3,
    evaluate_every=3,
    episodes=2,
    tensorboard=False,
    quiet=True,
)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("anneal=true",),
        ("resample_graph=true",),
        ("popart=true",),
        ('graph="empty"',),
        ('graph="random"',),
        ('critic="own"', 'graph="empty"'),
        ('critic="own"', "anneal=true"),
    ],
)
def test_every_variant_trains(settings: tuple[str, ...], tmp_path: Path) -> None:
    result = train(dataclasses.replace(SMALL, set=settings, output=str(tmp_path / "run")))
    assert result.after is not None
    assert (result.model / "policy.safetensors").is_file() and (result.model / "policy.json").is_file()
    first = next(line for line in result.metrics if "ratio" in line)
    if "anneal" in "".join(settings):
        assert 0.0 <= first["open_ratio"] <= 1.0 and first["edge_budget"] == 1.0


def test_an_environment_of_another_package(tmp_path: Path) -> None:
    config = dataclasses.replace(
        SMALL, env="ascent.worlds.teams.aloha:Aloha", env_set=("agents=4",), steps=2, output=str(tmp_path / "run")
    )
    assert train(config).after is not None


@pytest.mark.parametrize(("settings", "recurrent"), [((), False), (('critic="own"', "popart=true"), False), ((), True)])
def test_a_stopped_run_ends_with_the_same_weights(settings: tuple[str, ...], recurrent: bool, tmp_path: Path) -> None:
    # 10 steps of episodes of 25, so that a recurrent team is stopped with something to remember.
    config = dataclasses.replace(SMALL, steps=4, horizon=10, save_every=1, keep=99, set=settings, recurrent=recurrent)
    whole = train(dataclasses.replace(config, output=str(tmp_path / "whole")))
    folder = tmp_path / "whole"
    wanted = load_file(whole.model / "policy.safetensors")
    for path in sorted((folder / "checkpoints").iterdir())[2:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    resumed = resume(folder, quiet=True)
    found = load_file(resumed.model / "policy.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in wanted.items())


@pytest.mark.parametrize(
    ("setting", "recurrent"), [("anneal=true", False), ('critic="own"', False), ("anneal=true", True)]
)
def test_micro_batches_do_not_matter(setting: str, recurrent: bool) -> None:
    weights = []
    for micro in (None, 1):
        config = dataclasses.replace(SMALL, micro_rows=micro, steps=2, set=(setting,), recurrent=recurrent)
        assembly = assemble(config, config.composed(), Processes.launched())
        Loop(assembly.system).run()
        weights.append(dict(assembly.system.models["policy"].state_dict()))
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


@pytest.mark.parametrize("critic", ["central", "own"])
@pytest.mark.parametrize("popart", [False, True])
def test_a_move_of_the_scale_changes_values_only_without_popart(popart: bool, critic: str) -> None:
    settings = (f"popart={str(popart).lower()}", "learning_rate=1e-12", f'critic="{critic}"')
    config = dataclasses.replace(SMALL, steps=2, set=settings)
    assembly = assemble(config, config.composed(), Processes.launched())
    policy, learn = assembly.system.models["policy"], assembly.system.program[0].stages[-1]
    critics = policy.critic.each if critic == "own" else [policy.critic]
    seen = torch.randn(9, critics[0].layers[0].in_features, generator=torch.Generator().manual_seed(0))

    def said() -> torch.Tensor:
        mean, deviation = moments(learn.state.parts["losses.value.value"])
        return torch.cat([each(seen) * deviation + mean for each in critics], -1).detach().float()

    before = said()
    Loop(assembly.system).run()
    assert torch.allclose(said(), before, atol=1e-3) == popart


def test_annealing_opens_all_edges_and_closes_them_by_its_own_schedule(tmp_path: Path) -> None:
    config = dataclasses.replace(
        SMALL,
        env_set=("agents=3",),
        environments=8,
        horizon=6,
        steps=40,
        evaluate_every=40,
        learning_rate=1e-2,
        set=("anneal=true",),
        output=str(tmp_path / "run"),
    )
    result = train(config)
    ratios = [line["open_ratio"] for line in result.metrics if "edge_budget" in line]
    assert ratios[0] < 0.7 and max(ratios) > 0.9 and ratios[-1] < 0.05
    assert result.metrics[-1]["held_out/open_ratio"] == 0.0  # of the likeliest graphs


def test_it_learns_to_stay_on_a_hill(tmp_path: Path) -> None:
    """25 steps of two bits: uniform play earns 31, the lesser hill 41, the better one 61 or so; which one is luck."""
    config = dataclasses.replace(SMALL, environments=16, steps=60, evaluate_every=60, episodes=20, learning_rate=3e-3)
    result = train(dataclasses.replace(config, output=str(tmp_path / "run")))
    assert result.before is not None and result.after is not None
    assert result.before < 36 and result.after > 38


class Recall:
    """Two agents each see a bit at first, and earn 1 if both say theirs two steps later."""

    possible_agents = ("one", "two")

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    def action_space(self, agent: str) -> spaces.Discrete:
        return spaces.Discrete(2)

    def reset(self, seed: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.time = list(self.possible_agents), 0
        self.bits = np.random.default_rng(seed).integers(2, size=2)
        return {name: np.array([2.0 * bit - 1.0]) for name, bit in zip(self.agents, self.bits, strict=True)}, {}

    def step(self, actions: dict[str, int]) -> Any:
        live, self.time = self.agents, self.time + 1
        over = self.time == 3
        right = over and all(actions[name] == bit for name, bit in zip(live, self.bits, strict=True))
        self.agents = [] if over else live
        shown = {name: np.zeros(1) for name in live}
        return shown, dict.fromkeys(live, float(right)), dict.fromkeys(live, over), dict.fromkeys(live, False), {}

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("recurrent", [False, True])
def test_only_a_team_with_memory_says_what_it_saw(recurrent: bool, tmp_path: Path) -> None:
    config = dataclasses.replace(
        SMALL,
        env=f"{__name__}:Recall",
        env_set=(),
        environments=32,
        horizon=12,
        steps=40,
        evaluate_every=40,
        episodes=100,
        recurrent=recurrent,
        set=('graph="empty"', "learning_rate=0.01"),
        output=str(tmp_path / "run"),
    )
    result = train(config)
    assert result.after is not None
    assert result.after > 0.95 if recurrent else result.after < 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalise_observation": True}, "normalise_observation"),
        ({"env": "CartPole-v1", "env_set": ()}, "module:function"),
        ({"env_set": ("agents=7",)}, "agents must be one of"),
        ({"set": ("minibatches=9",)}, "minibatches"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], words: str) -> None:
    config = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    with pytest.raises(BadConfig, match=words):
        assemble(config, config.composed(), Processes.launched())


def test_language_is_refused() -> None:
    config = LanguageConfig(method="bayesian_network_marl")
    with pytest.raises(BadConfig, match="give --env"):
        assemble(config, config.composed(), Processes.launched())
