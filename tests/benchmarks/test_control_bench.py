"""The control benchmark at tiny sizes: the gate is open for equal arms and shut for a broken one."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import control
import pytest
import torch
from control_arms import FLOOR, HAND, OURS, PEER
from control_gate import TOLERANCE, gate, moved, ours, recorded
from control_phases import SEAMS, phases
from control_work import WORKS, Work
from scratch_ppo import ScratchPPO

from ascent.core.method import Method

CARTPOLE = replace(WORKS["cartpole"], steps=16)
PENDULUM = Work("Pendulum-v1", 2, 220, 2, 4, entropy=0.02)
"""Real actions, and episodes that are cut off at 200 steps inside a row."""
HAS_PEER = find_spec("stable_baselines3") is not None


@pytest.mark.parametrize("work", [CARTPOLE, PENDULUM], ids=lambda work: work.env)
def test_the_gate_is_open_for_equal_arms(work: Work) -> None:
    found = gate(work, with_peer=HAS_PEER)
    assert set(found) == ({HAND, PEER} if HAS_PEER else {HAND})
    assert all(difference <= TOLERANCE for arm in found.values() for difference in arm.values())
    assert {"advantage", "loss", "gradient", "learning stage"} == set(found[HAND])


@pytest.mark.parametrize("work", [CARTPOLE, PENDULUM], ids=lambda work: work.env)
def test_the_recorded_batch_puts_every_case_before_the_gate(work: Work) -> None:
    policy, method, decisions = recorded(work)
    moved(policy)
    _, gradients, clipped = ours(policy, method, decisions)
    assert 0.0 < clipped < 1.0
    if work.value_clip is not None:
        far = (policy.evaluate(decisions, frozenset({"value"})).value - decisions.value).abs() > work.value_clip
        assert far.any() and not far.all()
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients)
    if work is PENDULUM:
        assert decisions.truncated[:, :-1].any() and not decisions.terminated.any()


def test_a_broken_loss_shuts_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ScratchPPO.loss
    monkeypatch.setattr(ScratchPPO, "loss", lambda self, batch: whole(self, batch) * (1 + 1e-5))
    with pytest.raises(SystemExit, match="the gate is shut: loss of hand-written"):
        gate(CARTPOLE, with_peer=False)


def test_a_broken_gradient_under_an_equal_loss_shuts_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ScratchPPO.loss

    def bent(self: ScratchPPO, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        extra = self.critic(batch["observation"]).mean()
        return whole(self, batch) + 1e-3 * (extra - extra.detach())

    monkeypatch.setattr(ScratchPPO, "loss", bent)
    with pytest.raises(SystemExit, match="the gate is shut: gradient of hand-written"):
        gate(CARTPOLE, with_peer=False)


def test_credit_that_forgets_the_truncation_bootstrap_shuts_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ScratchPPO.credited

    def cut(self: ScratchPPO, *columns: Any) -> dict[str, torch.Tensor]:
        *first, terminated, truncated = columns
        return whole(self, *first, terminated | truncated, truncated)

    monkeypatch.setattr(ScratchPPO, "credited", cut)
    with pytest.raises(SystemExit, match="the gate is shut: advantage of hand-written"):
        gate(PENDULUM, with_peer=False)


def test_a_learning_stage_that_walks_elsewhere_shuts_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed goes through the gate too, not only the loss that it is meant to follow."""
    from ascent.training.steps import Stepper

    whole = Stepper.step

    def longer(self: Stepper, clock: Any) -> Any:
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad *= 1.001
        return whole(self, clock)

    monkeypatch.setattr(Stepper, "step", longer)
    with pytest.raises(SystemExit, match="the gate is shut: learning stage"):
        gate(CARTPOLE, with_peer=False)


@pytest.mark.skipif(not HAS_PEER, reason="stable-baselines3 is not installed")
def test_a_peer_with_other_constants_shuts_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    import control_gate

    whole = control_gate.peer_model
    monkeypatch.setattr(
        control_gate, "peer_model", lambda work, **more: whole(replace(work, entropy=work.entropy + 0.01), **more)
    )
    with pytest.raises(SystemExit, match="the gate is shut: loss of stable-baselines3"):
        gate(CARTPOLE, with_peer=True)


def test_every_arm_does_its_rounds_in_turn() -> None:
    work = replace(CARTPOLE, passes=1, minibatches=2)
    arms = [OURS, HAND, FLOOR] + ([PEER] if HAS_PEER else [])
    measured = control.measure(work, arms, steps=2 * work.size, repeats=2)
    assert list(measured) == arms and all(len(found) == 2 for found in measured.values())
    assert [row["arm"] for row in control.rows(measured)] == arms
    ratio = {found.peer: found.target for found in control.ratios(work, measured)}
    assert ratio == ({PEER: 2.2, HAND: 1 / 1.2} if HAS_PEER else {HAND: 1 / 1.2})


def test_the_turns_go_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    monkeypatch.setattr(
        control, "ARMS", {name: lambda *_, name=name: lambda rounds: turns.append(name) for name in "AB"}
    )
    control.measure(CARTPOLE, ["A", "B"], steps=1, repeats=3)
    assert "".join(turns) == "AB" + "ABBAAB"


def test_ratios_are_of_the_same_turn() -> None:
    measured = {OURS: [(1.0, 4.0), (1.0, 2.0), (1.0, 9.0)], PEER: [(1.0, 2.0), (1.0, 1.0), (1.0, 3.0)]}
    assert control.faster(measured, OURS, PEER) == 2.0


def test_phases_add_up_and_leave_the_seams_as_they_were() -> None:
    before = Method.loss
    rows = phases(replace(CARTPOLE, passes=1, minibatches=1), repeats=1, steps=64)
    assert Method.loss is before
    assert [row["phase"] for row in rows] == [*SEAMS, "the rest of the loop", "together"]
    parts = sum(row["spent"] for row in rows[:-1])
    assert parts == pytest.approx(rows[-1]["spent"], rel=0.01)
    assert all(row["spent"] > 0 for row in rows[:2])
