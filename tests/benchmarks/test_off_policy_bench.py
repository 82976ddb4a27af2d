"""The off-policy benchmark at tiny sizes: the gate is open for equal arms and shut for a broken one."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from off_policy import TOLERANCE, gate, measure, ratios, rows
from off_policy_arms import ARMS, FLOOR, HAND, OURS, PEER, Ours, Setting, until
from scratch_sac import ScratchSAC

SETTING = Setting(hidden=(8, 8), batch=16, start=40)
HAS_PEER = find_spec("stable_baselines3") is not None
NAMES = [name for name in ARMS if HAS_PEER or name != PEER]


def test_the_gate_is_open_for_equal_arms() -> None:
    found = gate(SETTING)
    assert set(found) == {
        f"{model} {part}" for model in ("critic", "policy", "temperature") for part in ("loss", "gradient")
    }
    assert all(difference <= TOLERANCE for difference in found.values())


@pytest.mark.parametrize("loss", ["critic_loss", "temperature_loss"])
def test_a_broken_loss_shuts_the_gate(monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    whole = getattr(ScratchSAC, loss)
    monkeypatch.setattr(ScratchSAC, loss, lambda self, given: whole(self, given) * (1 + 1e-5))
    with pytest.raises(SystemExit, match="the gate is shut"):
        gate(SETTING)


def test_arms_advance_by_environment_steps_and_learn() -> None:
    for name in set(NAMES) - {FLOOR}:
        arm = ARMS[name](SETTING, 0)
        arm.advance(40)
        before = arm.policy.numpy_actor().outputs(torch.ones(1, 3).numpy()).copy()
        arm.advance(60)
        assert abs(arm.policy.numpy_actor().outputs(torch.ones(1, 3).numpy()) - before).max() > 0, name
        if isinstance(arm, Ours):
            assert arm.system.consumed() in range(100, 100 + Ours.BLOCK)


def test_a_table_of_tiny_runs() -> None:
    measured = measure(SETTING, NAMES, 50, 2)
    assert [row["arm"] for row in rows(measured)] == NAMES
    assert {ratio.peer for ratio in ratios(measured)} == {PEER, HAND} & set(NAMES)
    assert all(ratio.ratio > 0 for ratio in ratios(measured))


class Clock:
    """Counts how often it was started."""

    starts = 0

    def start(self) -> None:
        self.starts += 1

    def stop(self) -> None: ...


def test_a_run_ends_when_it_is_solved_and_not_before_it_learns() -> None:
    clock = Clock()
    assert until(OURS, 0, clock, solved=-10_000.0, every=50, budget=200, episodes=2, setting=SETTING) == 50
    assert until(OURS, 0, clock, solved=0.0, every=50, budget=100, episodes=2, setting=SETTING) is None
    assert clock.starts == 3
