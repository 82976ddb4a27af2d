"""Team environments pass PettingZoo's own checker, pay as written, and copies show them as arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

pettingzoo = pytest.importorskip("pettingzoo")

from pettingzoo.test import parallel_api_test, parallel_seed_test  # noqa: E402

from ascent.worlds.teams.aloha import Aloha, neighbours  # noqa: E402
from ascent.worlds.teams.coordination import Coordination  # noqa: E402
from ascent.worlds.teams.parallel import Teams, maker  # noqa: E402
from ascent.worlds.teams.tables import coordination  # noqa: E402


@pytest.mark.parametrize(
    "make", [Aloha, Coordination, lambda: Aloha(2, 3), lambda: Coordination(5), lambda: Coordination(2, numbered=True)]
)
def test_pettingzoo_accepts_it(make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(make(), num_cycles=200)
        parallel_seed_test(make, num_cycles=60)


def step(environment: Aloha, *senders: int) -> tuple[float, list[int]]:
    before = environment.backlog.copy()
    actions = {name: int(number in senders) for number, name in enumerate(environment.agents)}
    _, reward, _, _, _ = environment.step(actions)
    assert len(set(reward.values())) == 1
    arrived = environment.backlog - before
    return reward["sender_0"], arrived.tolist()


def test_aloha_by_hand() -> None:
    """Ten agents in two rows of five: 0 - 1 - ... - 9 and rungs i - i + 5."""
    beside = neighbours(10)
    assert np.flatnonzero(beside[0]).tolist() == [1, 5] and np.flatnonzero(beside[4]).tolist() == [3, 5, 9]
    assert (beside == beside.T).all() and beside.sum() == 2 * (9 + 5)
    world = Aloha()
    world.reset(seed=0)
    assert world.backlog.tolist() == [1] * 10
    assert step(world, 0)[0] == pytest.approx(0.1)
    world.reset(seed=0)
    assert step(world, 0, 1)[0] == pytest.approx(-20.0)
    world.reset(seed=0)
    assert step(world, 0, 2)[0] == pytest.approx(0.2)
    world.reset(seed=0)
    assert step(world, 0, 2, 5)[0] == pytest.approx(0.1 - 20.0)


def test_an_empty_neighbour_interferes_and_earns_nothing() -> None:
    world = Aloha(agents=2)
    world.reset(seed=0)
    world.backlog = np.array([1, 0])
    assert step(world, 0, 1)[0] == pytest.approx(-10.0)
    world.backlog = np.array([1, 0])
    assert step(world, 1)[0] == 0.0


def test_messages_arrive_six_times_in_ten_up_to_a_full_backlog() -> None:
    world = Aloha(episode=1000)
    world.reset(seed=1)
    arrived = []
    for _ in range(300):
        world.backlog[:] = 1
        arrived += step(world)[1]
    assert np.mean(arrived) == pytest.approx(0.6, abs=0.03)
    world.backlog[:] = 5
    step(world)
    assert world.backlog.tolist() == [5] * 10


def test_the_sampled_coordination_game_has_the_tables_rewards_and_chances() -> None:
    game, world = coordination(3), Coordination(3, episode=100_000)
    world.reset(seed=0)
    joint, landed = 0b011, np.zeros(8)
    for _ in range(6000):
        now = int(world.bits @ world.powers)
        actions = dict(zip(world.agents, (0, 1, 1), strict=True))
        _, reward, _, _, _ = world.step(actions)
        assert reward["bit_0"] == float(game.reward[now, joint])
        landed[int(world.bits @ world.powers)] += 1
    assert np.allclose(landed / 6000, game.transition[0, joint].numpy(), atol=0.02)


def test_a_numbered_game_shows_the_number_of_its_bits() -> None:
    plain, numbered = Coordination(3), Coordination(3, numbered=True)
    for seed in range(6):
        (bits, _), (shown, _) = plain.reset(seed=seed), numbered.reset(seed=seed)
        number = int("".join(str(int(bit)) for bit in bits["bit_1"]), 2)
        assert shown["bit_1"].tolist() == numbered.state().tolist() == np.eye(8)[number].tolist()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        Aloha(agents=3)
    with pytest.raises(ValueError, match="agents must be one of"):
        Coordination(agents=4)
    with pytest.raises(ValueError, match="noise"):
        Coordination(noise=2.0)
    with pytest.raises(ValueError, match="module:function"):
        maker("Aloha")
    with pytest.raises(ImportError, match="needs nowhere_at_all"):
        maker("nowhere_at_all:env")
    with pytest.raises(ValueError, match="no function"):
        maker("ascent.worlds.teams.aloha:nothing")


class Leaving(pettingzoo.ParallelEnv):  # type: ignore[misc,name-defined]
    """Two agents with unequal observations, masked actions and no state; the first leaves after its first step."""

    metadata = {"name": "leaving"}  # noqa: RUF012

    def __init__(self, cut: bool = False) -> None:
        self.possible_agents = ["short", "long"]
        self.agents: list[str] = []
        self.cut = cut
        mask = spaces.MultiBinary(3)
        self.spaces = {
            "short": spaces.Dict({"observation": spaces.Discrete(2), "action_mask": mask}),
            "long": spaces.Dict({"observation": spaces.Box(-9, 9, (3,), np.float32), "action_mask": mask}),
        }
        self.choice = spaces.Discrete(3, start=1)

    def observation_space(self, agent: str) -> Any:
        return self.spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.choice

    def seen(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"short": 1, "long": np.full(3, self.time, np.float32)}
        mask = np.array([1, 0, 1], np.int8)
        return {name: {"observation": shown[name], "action_mask": mask} for name in self.agents}

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.time = list(self.possible_agents), 0
        return self.seen(), {name: {} for name in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        assert set(actions) == set(self.agents) and all(action in (1, 3) for action in actions.values())
        live, self.time = self.agents, self.time + 1
        over = self.time == 3
        terminated = {name: name == "short" or (over and not self.cut) for name in live}
        truncated = {name: over and self.cut for name in live}
        reward = {name: float(self.time) for name in live}
        self.agents = [name for name in live if not (terminated[name] or truncated[name])]
        return self.seen(), reward, terminated, truncated, {name: {} for name in live}


@pytest.mark.parametrize("cut", [False, True])
def test_copies_as_arrays_with_leaving_agents_and_masked_actions(cut: bool) -> None:
    teams = Teams(Leaving, 2, {"cut": cut})
    assert (teams.agents, teams.observation_size, teams.actions, teams.state_size) == (2, 3, 3, 6)
    moment = teams.reset([0, 0])
    assert moment.observation[0].tolist() == [[0, 1, 0], [0, 0, 0]] and moment.present.all()
    assert moment.available is not None and moment.available[0, 0].tolist() == [True, False, True]
    for time in (1, 2, 3):
        moment, reward, terminated, truncated = teams.step(np.array([[0, 2], [0, 2]]))
        assert reward[0].tolist() == ([1, 1] if time == 1 else [0, time])
        assert moment.present[0].tolist() == ([False, True] if time < 3 else [False, False])
        assert terminated.tolist() == [time == 3 and not cut] * 2 and truncated.tolist() == [time == 3 and cut] * 2
        assert moment.observation[0, 0].tolist() == [0, 0, 0]
        assert moment.state[0].tolist() == moment.observation[0].reshape(-1).tolist()


def test_unequal_actions_are_refused() -> None:
    class Odd(Leaving):
        def action_space(self, agent: str) -> Any:
            return spaces.Discrete(2 if agent == "short" else 3)

    with pytest.raises(ValueError, match="equally many actions"):
        Teams(Odd, 1)


def test_a_state_is_the_environments_own() -> None:
    teams = Teams("ascent/Aloha-v0", 2)
    moment = teams.reset([1, 2])
    assert teams.state_size == 10 and teams.observation_size == 6
    assert torch.from_numpy(moment.observation[0, 0]).tolist() == [0, 1, 0, 0, 0, 0]
    assert np.allclose(moment.state, 0.2)
