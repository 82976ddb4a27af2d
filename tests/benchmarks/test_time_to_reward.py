"""Time to reward at tiny sizes: who is asked, what the clock counts, what a run that never gets there says."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import time_to_reward
import torch
from control_arms import OURS, PEER, peer_model
from time_to_reward import ON_POLICY, SDE, TASKS, Clock, OffPolicy, Task, Theirs

from ascent.policies.action_head import Head
from ascent.worlds.gym import Environments

HAS_PEER = find_spec("stable_baselines3") is not None
TINY = {
    "cartpole": replace(
        ON_POLICY["cartpole"],
        work=replace(ON_POLICY["cartpole"].work, steps=8, passes=1),
        rounds=4,
        every=2,
        episodes=2,
    ),
    "pendulum": replace(
        ON_POLICY["pendulum"],
        work=replace(ON_POLICY["pendulum"].work, steps=16, passes=1, minibatches=4),
        rounds=4,
        every=2,
        episodes=2,
    ),
}
ARMS = [(OURS, "cartpole"), (OURS, "pendulum")]
ARMS += [(PEER, "cartpole"), (PEER, "pendulum"), (SDE, "pendulum")] if HAS_PEER else []


def ask(arm: str, task: Task) -> tuple[int | None, Clock]:
    clock = Clock()
    return time_to_reward.arms(task)[arm](0, clock), clock


@pytest.mark.parametrize(("arm", "name"), ARMS)
def test_a_run_ends_at_the_first_evaluation_that_is_good_enough(arm: str, name: str) -> None:
    task = replace(TINY[name], solved=-inf)
    steps, clock = ask(arm, task)
    assert steps == 2 * task.work.size
    assert clock.wall > 0 and clock.cpu > 0


@pytest.mark.parametrize(("arm", "name"), ARMS)
def test_a_run_that_never_gets_there_has_looked_to_the_end(
    arm: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    monkeypatch.setattr(time_to_reward, "held_out", lambda *_: float(looks.append(1) or -1e9))
    steps, _ = ask(arm, replace(TINY[name], solved=0.0))
    assert steps is None and len(looks) == 2


@pytest.mark.parametrize(("arm", "name"), ARMS)
@pytest.mark.parametrize("reached", [True, False])
def test_evaluation_is_off_the_clock(arm: str, name: str, reached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only evaluation moves, a whole run takes no time."""
    now = [0.0]

    def slow(*_: Any) -> float:
        now[0] += 1000.0
        return 0.0

    still = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(time_to_reward, "time", still)
    monkeypatch.setattr(time_to_reward, "held_out", slow)
    _, clock = ask(arm, replace(TINY[name], solved=-1.0 if reached else 1.0))
    assert now[0] >= 1000.0 and (clock.wall, clock.cpu) == (0.0, 0.0)


@pytest.mark.parametrize("arm", [OURS, PEER] if HAS_PEER else [OURS])
def test_sac_ends_at_the_first_evaluation_after_its_start(arm: str) -> None:
    task = replace(TASKS["sac"], solved=-inf, every=550, budget=1100, episodes=2)
    assert isinstance(task, OffPolicy)
    clock = Clock()
    assert time_to_reward.arms(task)[arm](0, clock) == 550
    assert clock.cpu > 0
    assert "off the clock" in time_to_reward.told(task)


@pytest.mark.skipif(not HAS_PEER, reason="stable-baselines3 is not installed")
@pytest.mark.parametrize(("name", "more"), [("cartpole", {}), ("pendulum", {}), ("pendulum", {"use_sde": True})])
def test_the_peers_policy_is_asked_for_what_it_would_do(name: str, more: dict[str, Any]) -> None:
    work = TINY[name].work
    model = peer_model(work, 0, 1, **more)
    with torch.no_grad():
        model.policy.action_net.weight.mul_(100.0)
    environments = Environments(work.env, 8)
    head = Head.of(environments.actions)
    observation = np.random.default_rng(0).standard_normal((8, environments.observation_size)).astype(np.float32)
    mine = environments.native(head.mode(Theirs(model.policy, head).numpy_actor().outputs(observation)))
    theirs, _ = model.predict(observation, deterministic=True)
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2])
def test_every_seed_of_every_arm_is_run(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(name: str, arm: str, seed: int) -> dict[str, Any]:
        return {"arm": arm, "seed": seed}

    class Pool:
        def __init__(self, count: int, _: Any) -> None:
            assert count == 2

        def __enter__(self) -> Any:
            return SimpleNamespace(map=lambda function, *columns: map(function, *columns))

        def __exit__(self, *_: Any) -> None: ...

    monkeypatch.setattr(time_to_reward, "timed", quick)
    monkeypatch.setattr(time_to_reward, "ProcessPoolExecutor", Pool)
    runs = time_to_reward.run("pendulum", 2, at_once)
    assert list(runs) == ([OURS, PEER, SDE] if HAS_PEER else [OURS])
    assert all(found == [{"arm": arm, "seed": seed} for seed in range(2)] for arm, found in runs.items())


def test_runs_that_never_got_there_count_as_infinite_and_give_no_ratio() -> None:
    good = [{"seed": seed, "steps": 10.0, "wall": 2.0, "cpu": 2.0} for seed in range(3)]
    bad = [{"seed": seed, "steps": inf, "wall": inf, "cpu": inf} for seed in range(3)]
    mixed = [good[0], {**good[0], "cpu": 6.0}, bad[0]]
    task = ON_POLICY["pendulum"]
    found = {ratio.peer: ratio for ratio in time_to_reward.ratios(task, {OURS: good, PEER: mixed, SDE: bad})}
    assert set(found) == {PEER}
    assert found[PEER].ratio == 3.0 and found[PEER].target == 1.0
    assert time_to_reward.ratios(task, {OURS: bad, PEER: good}) == []
    rows = time_to_reward.rows({OURS: mixed})
    assert rows[0]["solved"] == "2/3" and rows[0]["median CPU seconds"] == 6.0


def test_the_interval_holds_the_ratio_and_says_where_there_is_none() -> None:
    mine = [{"seed": seed, "cpu": seconds} for seed, seconds in enumerate((1.0, 2.0, 3.0, 4.0, 5.0))]
    theirs = [{"seed": seed, "cpu": seconds} for seed, seconds in enumerate((9.0, 2.0, 10.0, 8.0, 30.0))]
    low, high = (float(end) for end in time_to_reward.spread(mine, theirs).split(" to "))
    assert low < 3.0 < high
    assert time_to_reward.spread(mine, [{**each, "cpu": 3.0 * each["cpu"]} for each in mine]) == "3.00 to 3.00"
    alike = [{**each, "cpu": 2.0} for each in mine]
    assert time_to_reward.spread(alike, [{**each, "cpu": 3.0} for each in mine]) == "1.50 to 1.50"
    assert time_to_reward.spread(mine, [{**theirs[0], "cpu": inf}, *theirs[1:]]).startswith("no interval")
    assert "stable-baselines3 1.50 to 1.50." in time_to_reward.intervals({OURS: alike, PEER: [{"cpu": 3.0}] * 5})
    assert time_to_reward.intervals({OURS: alike}) == ""
