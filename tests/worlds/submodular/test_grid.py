"""The walker on its maps: rules, rewards, planners, Gymnasium's own check."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import ascent.worlds.submodular
from ascent.worlds.submodular import fields, planners
from ascent.worlds.submodular.ant import AntCoverage
from ascent.worlds.submodular.grid import SubmodularGrid
from ascent.worlds.submodular.maps import MAPS, Map, items, rooms, trap
from ascent.worlds.submodular.set_functions import Coverage

SMALL = ("Coverage", "ItemCollection", "InformativePath", "Biodiversity", "TwoRooms", "GreedyTrap")


def tiny(horizon: int = 4) -> Map:
    weight = np.random.default_rng(3).random(9)
    return Map(3, 3, (0, 0), horizon, Coverage(fields.seen_from(3, 3), weight))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("observe", ("place", "cell", "index", "path", "visited"))
def test_gymnasium_accepts_it(name: str, observe: str) -> None:
    check_env(gymnasium.make(f"ascent/{name}-v0", observe=observe).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", MAPS)
def test_every_map_is_registered_and_walkable(name: str) -> None:
    environment = gymnasium.make(f"ascent/{name}-v0")
    environment.reset(seed=0)
    assert environment.step(1)[1] >= 0


@given(actions=st.lists(st.integers(0, 4), min_size=20, max_size=20))
@settings(max_examples=30, deadline=None)
def test_rewards_add_up_to_what_was_visited(actions: list[int]) -> None:
    environment = SubmodularGrid("Coverage")
    _, before = environment.reset(seed=0)
    total, ended = before["objective"], False
    for action in actions:
        assert not ended
        _, reward, ended, truncated, info = environment.step(action)
        total += reward
        assert reward >= 0 and not truncated
    assert ended
    assert total == pytest.approx(info["objective"])
    assert total == pytest.approx(environment.ground.worth(environment.path))


def test_moves_borders_and_walls() -> None:
    ground = rooms()
    assert ground.moved(0, 4) == 0 and ground.moved(0, 3) == 0  # off the map
    assert ground.moved(0, 1) == 1 and ground.moved(0, 2) == 14 and ground.moved(15, 4) == 1
    beside = 1 * 14 + 6
    assert ground.moved(beside, 1) == beside  # the wall between the rooms
    assert ground.moved(3 * 14 + 6, 1) == 3 * 14 + 7  # the door


def test_the_additive_walker_is_paid_again_for_the_same_cell() -> None:
    environment = SubmodularGrid("Coverage", pay="additive")
    environment.reset(seed=0)
    first, second = environment.step(0)[1], environment.step(0)[1]
    assert first == second > 0
    paid_by_gain = SubmodularGrid("Coverage")
    paid_by_gain.reset(seed=0)
    assert paid_by_gain.step(0)[1] == 0.0


def test_what_a_markov_and_a_history_policy_see() -> None:
    place, visited = SubmodularGrid("GreedyTrap"), SubmodularGrid("GreedyTrap", observe="visited")
    path = SubmodularGrid("GreedyTrap", observe="path")
    for environment in (place, visited, path):
        environment.reset(seed=0)
    np.testing.assert_allclose(place.step(1)[0], (0.0, 2 * 5 / 13 - 1, 2 / 30 - 1), rtol=1e-6)
    seen = visited.step(1)[0]
    assert np.flatnonzero(seen[:42]).tolist() == [19] and np.flatnonzero(seen[42:84]).tolist() == [18, 19]
    assert path.step(1)[0][:3].tolist() == [18.0, 19.0, -1.0]


def test_slips_follow_the_seed() -> None:
    def walk(seed: int) -> list[int]:
        environment = SubmodularGrid("Coverage", slip=0.5)
        environment.reset(seed=seed)
        for _ in range(20):
            environment.step(1)
        return environment.path

    assert walk(1) == walk(1) and walk(1) != walk(2)


def test_planners_by_their_relations() -> None:
    ground = tiny(6)
    best = planners.exhaustive(ground)
    for plan in (planners.greedy(ground), planners.best_of_random(ground, 500), planners.beam(ground, 50)):
        assert plan.worth <= best.worth + 1e-12
        assert plan.worth == pytest.approx(ground.worth(list(plan.path)))
        total = float(ground.objective.value(np.eye(9, dtype=bool)[0])) + sum(planners.marginal(ground, plan.path))
        assert total == pytest.approx(plan.worth)
    assert planners.beam(ground, 5000).worth == pytest.approx(best.worth)


def test_the_trap_is_one() -> None:
    ground = trap()
    assert planners.greedy(ground).worth < 1.3
    # Up, seven columns right, then the whole block row by row: 8 + 8 moves.
    far = [4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3, 2, 1, 1]
    path = [ground.first]
    for action in far:
        path.append(ground.moved(path[-1], action))
    assert ground.worth(path) == pytest.approx(18.0)


def test_all_items_can_be_collected() -> None:
    assert planners.beam(items()).worth == 21.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"ground": "Sea"}, "ground must be one of"),
        ({"observe": "all"}, "observe must be one of"),
        ({"pay": "well"}, "pay must be one of"),
        ({"slip": 1.5}, "slip must be in"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SubmodularGrid(**arguments)  # type: ignore[arg-type]


def test_bad_maps_are_refused_by_name() -> None:
    function = Coverage(np.eye(9, dtype=bool), np.ones(9))
    with pytest.raises(ValueError, match="objective must have 6"):
        Map(2, 3, (0, 0), 4, function)
    with pytest.raises(ValueError, match="start must be a cell"):
        Map(3, 3, (3, 0), 4, function)
    with pytest.raises(ValueError, match="not be a wall"):
        Map(3, 3, (0, 0), 4, function, walls=np.ones(9, bool))
    with pytest.raises(ValueError, match="horizon must be"):
        Map(3, 3, (0, 0), 0, function)
    with pytest.raises(ValueError, match="horizon must be <= 8"):
        planners.exhaustive(tiny(9))


def test_registering_twice_changes_nothing() -> None:
    before = gymnasium.registry["ascent/Coverage-v0"]
    ascent.worlds.submodular.register()
    assert gymnasium.registry["ascent/Coverage-v0"] is before


def test_the_ant_is_paid_for_new_ground_only() -> None:
    environment = AntCoverage(history=True)
    check_env(environment, skip_render_check=True)
    _, info = environment.reset(seed=0)
    assert info["objective"] == 25.0  # the stamp under the torso
    environment.action_space.seed(0)
    total = 25.0
    for _ in range(30):
        observation, reward, over, _, info = environment.step(environment.action_space.sample())
        total += 10 * reward
        assert not over
    assert total == pytest.approx(info["objective"]) and observation[-100:].sum() * 100 == pytest.approx(total)
    environment.close()
