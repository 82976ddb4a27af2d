"""PROPS assembled: the buffer, the behaviour policy and their walk; what its sizes must fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ascent.systems.config import BadConfig
from ascent.systems.props import build
from ascent.systems.run import train
from ascent.training.memory import Window
from ascent.training.processes import Processes
from tests.training.runs import control, distance

SIZES = ("batch=32", "behaviour_batch=16", "passes=1", "minibatches=2", "behaviour_passes=1", "behaviour_minibatches=2")


def props(folder: Path, *set_: str, **more: object):
    plain = {"method": "props", "env": "Pendulum-v1", "environments": 2, "horizon": None, "set": (*SIZES, *set_)}
    return control(folder, **{**plain, "passes": None, "minibatches": None, **more})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"environments": 3}, r"environments must divide behaviour_batch=16; got 3"),
        ({"recurrent": True}, "recurrent must be off for props"),
        ({"horizon": 8}, "horizon is no choice of props runs"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(tmp_path: Path, more: dict[str, object], message: str) -> None:
    config = props(tmp_path / "run", **more)
    with pytest.raises(BadConfig, match=message):
        build(config, config.composed(), Processes())


def test_the_buffer_holds_its_batches_and_the_behaviour_policy_moves(tmp_path: Path) -> None:
    config = props(tmp_path / "run", "buffer_batches=2", steps=3)
    built = build(config, config.composed(), Processes())
    from ascent.training.loop import Loop

    models = built.system.models
    start = {name: [x.clone() for x in model.parameters()] for name, model in models.items()}
    same = zip(*start.values(), strict=True)
    assert all(torch.equal(target, behaviour) for target, behaviour in same), "both begin as one"
    loop = Loop(built.system)
    loop.run()
    assert loop.system.consumed() == 3 * 32
    (window,) = built.system.memories.values()
    assert isinstance(window, Window)
    assert len(window.parts) == 4
    for name, model in models.items():
        assert any(not torch.equal(x, y) for x, y in zip(start[name], model.parameters(), strict=True)), name
    pairs = zip(models["policy"].parameters(), models["behaviour"].parameters(), strict=True)
    assert any(not torch.equal(x, y) for x, y in pairs), "the behaviour policy has left the target"


def test_a_run_again_is_bit_equal_and_micro_rows_change_nothing(tmp_path: Path) -> None:
    for name, more in (("a", {}), ("b", {}), ("split", {"micro_rows": 5})):
        train(props(tmp_path / name, steps=2, **more))
    assert distance(tmp_path / "a", tmp_path / "b") == 0
    assert distance(tmp_path / "a", tmp_path / "split") < 1e-6
