"""ggtd as runs: both algorithms resume bit for bit, PPO learns on a noisy pole, and what has no meaning is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ascent.systems.config import BadConfig, ControlConfig, LanguageConfig
from ascent.systems.run import assemble, resume, train
from ascent.training import checkpoint
from ascent.training.processes import Processes
from tests.training.runs import distance

PPO = ("members=3", "passes=1", "minibatches=2", "least=4")
SAC = ("algorithm=sac", "members=4", "batch=16", "start=30", "capacity=40", "least=4")


def config(output: Path, **changes: Any) -> ControlConfig:
    plain = {
        "method": "ggtd", "env": "ascent/NoisyPendulum-v0", "environments": 2, "horizon": 5, "steps": 2,
        "hidden": (8, 8), "set": SAC, "evaluate_every": 0, "save_every": 0, "tensorboard": False, "quiet": True,
        "output": str(output),
    }  # fmt: skip
    return ControlConfig(**{**plain, **changes})


@pytest.mark.parametrize(
    "changes", [{}, {"env": "ascent/NoisyCartPole-v0", "horizon": 16, "set": PPO}], ids=("sac", "ppo")
)
def test_resumed_equals_straight(tmp_path: Path, changes: dict[str, Any]) -> None:
    straight = tmp_path / "straight"
    train(config(straight, save_every=1, keep=1000, **changes))
    saved = checkpoint.available(straight / "checkpoints")
    assert len(saved) > 3
    for number, path in enumerate((saved[1], saved[len(saved) // 2])):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(path, copy / "checkpoints" / path.name)
        for name in ("config.json", "manifest.json"):
            shutil.copy(straight / name, copy / name)
        resume(copy, quiet=True)
        assert distance(straight, copy) == 0.0


def test_its_networks_are_tanh_and_say_a_width() -> None:
    critics: Any = assemble(config(Path()), config(Path()).composed(), Processes()).system.models["critic"]
    assert (critics.count, critics.activation, critics.weight[-1].shape[-1]) == (8, "tanh", 2)
    plain = config(Path(), set=(*SAC, "variant=base"))
    critics = assemble(plain, plain.composed(), Processes()).system.models["critic"]
    assert critics.spread is None and critics.weight[-1].shape[-1] == 1


def widths(folder: Path, stage: str = "") -> list[tuple[float, float]]:
    """The least and greatest of every update, with the mean between them."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    told = [found for found in map(json.loads, lines) if f"{stage}spread_least" in found]
    for found in told:
        assert 0.3 < found[f"{stage}spread_least"] < found[f"{stage}spread"] < found[f"{stage}spread_greatest"] < 3.0
    return [(found[f"{stage}spread_least"], found[f"{stage}spread_greatest"]) for found in told]


def test_extremes_of_the_widths_are_logged_by_sac(tmp_path: Path) -> None:
    train(config(tmp_path / "run", set=(*SAC, "extremes=true"), steps=6))
    assert widths(tmp_path / "run", "critic/")


def test_extremes_of_the_widths_are_logged_alike_in_micro_batches(tmp_path: Path) -> None:
    found = []
    for name, rows in (("whole", None), ("parts", 3)):
        output = tmp_path / name
        options = (*PPO, "variant=ggd", "extremes=true")
        train(config(output, env="ascent/NoisyCartPole-v0", horizon=16, set=options, micro_rows=rows))
        found.append(widths(output))
    assert len(found[0]) == len(found[1]) > 0
    for whole, parts in zip(*found, strict=True):
        assert whole == pytest.approx(parts, rel=1e-3)


def test_what_has_no_meaning_is_refused_by_name() -> None:
    for wrong, message in (
        (LanguageConfig(method="ggtd"), "ggtd learns in an environment; give --env"),
        (config(Path(), env="CartPole-v1", set=PPO, recurrent=True), "recurrent must be off for ggtd"),
        (config(Path(), env="CartPole-v1"), "needs real actions with finite bounds"),
    ):
        with pytest.raises(BadConfig, match=message):
            assemble(wrong, wrong.composed(), Processes())


def test_it_learns_to_balance_under_noise(tmp_path: Path) -> None:
    result = train(
        config(
            tmp_path / "run",
            env="ascent/NoisyCartPole-v0",
            environments=8,
            horizon=128,
            steps=8,
            hidden=None,
            set=("passes=4", "minibatches=8", "learning_rate=1e-3", "discount=0.98", "trace=0.9"),
            evaluate_every=8,
        )
    )
    assert result.before is not None and result.after is not None
    assert result.before < 60 and result.after > 120
