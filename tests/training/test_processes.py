"""Two processes are one: the same prompts and environments, the same gradient, the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.systems.config import Config
from ascent.systems.run import resume, train
from ascent.training.processes import Processes
from ascent.training.recorder import METRICS, read
from tests.training.runs import control, distance, language, tiny_model, weights

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = [
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


def launch(launcher: list[str], *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *words], cwd=ROOT, env=environment, timeout=240, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def two(config: Config, launcher: list[str] = TORCHRUN) -> None:
    """The run in two processes, from its config file."""
    folder = Path(str(config.output))
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(config.to_json()))
    launch(launcher, "-m", "ascent.cli", "train", "--config", str(path), "--output", str(folder))


def lines(folder: Path) -> list[dict[str, float]]:
    clocks = ("seconds", "processor_seconds")
    return [{name: number for name, number in line.items() if name not in clocks} for line in read(folder / METRICS)]


def test_one_process_alone_changes_nothing() -> None:
    alone = Processes()
    part = Decisions(mask=torch.ones(2, 1, dtype=torch.bool), group=torch.tensor([1, 0]))
    assert alone.gather(part) is part
    assert alone.everyone("x") == ["x"]
    assert alone.main
    assert not alone.anyone(False)
    totals = {"loss": torch.tensor(1.0)}
    assert alone.sum(totals) is totals
    assert alone.gather_rows({"x": torch.tensor([5, 6])}, torch.tensor([1, 0]), 2)["x"].tolist() == [6, 5]
    alone.wait()


def test_what_two_processes_exchange(tmp_path: Path) -> None:
    launch(TORCHRUN, str(Path(__file__).parent / "launched.py"), str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == {
        "count": 2,
        "ranks": [0, 1],
        "anyone": [False, True, True, True],
        "group": [0, 0, 1, 1, 2, 2, 3, 3],
        "prompt": [0, 0, 1, 1, 0, 0, 1, 1],
        "length": [2, 2, 4, 4, 2, 2, 4, 4],
        "blocks": [0, 0, 1, 1],
        "rows": [0, 10, 20, 30, 40],
        "rows of one": [0, 1],
        "gradients": [[3.0, 3.0], [5.0, 5.0], None, None],
        "totals": {"loss": 3.0, "kept": 3.0},
        "agreed": True,
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_accelerate_launch_trains_a_language_model_as_one_process_does(tmp_path: Path, model: Path) -> None:
    """One update in float64: prompts, completions, rewards and weights agree, and so do micro-batches."""
    train(language(model, tmp_path / "one"))
    two(language(model, tmp_path / "two"), ACCELERATE)
    before = tiny_model(tmp_path / "untrained" / "policy").parent
    assert distance(tmp_path / "one", before) > 1e-3
    assert distance(tmp_path / "one", tmp_path / "two") < 1e-10
    for ours, theirs in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-9)
    train(language(model, tmp_path / "micro", micro_rows=3))
    assert distance(tmp_path / "one", tmp_path / "micro") < 1e-10


@pytest.mark.slow
def test_two_processes_refuse_refill_and_walk_as_one(tmp_path: Path, model: Path) -> None:
    """Dynamic sampling over three steps and two passes: both processes agree on what is missing."""
    rewards = f"{tmp_path / 'rewards.py'}:sometimes"
    several = {"method": "dapo", "reward": (rewards,), "steps": 3, "passes": 2, "minibatches": 3, "micro_rows": 3}
    train(language(model, tmp_path / "one", **several))
    two(language(model, tmp_path / "two", **several))
    assert any(line["refused"] > 0 for line in lines(tmp_path / "one"))
    assert distance(tmp_path / "one", tmp_path / "two") < 1e-10
    for ours, theirs in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-6)


def test_two_processes_control_as_one_and_resume(tmp_path: Path) -> None:
    """Normalised observations and rewards over the ends of episodes; float32."""
    several = {"env": "Pendulum-v1", "environments": 4, "horizon": 150, "steps": 2, "keep": 20}
    train(control(tmp_path / "one", **several))
    two(control(tmp_path / "two", **several))
    assert distance(tmp_path / "one", tmp_path / "two") < 1e-6
    for ours, theirs in zip(lines(tmp_path / "one"), lines(tmp_path / "two"), strict=True):
        assert theirs["consumed"] == ours["consumed"] == 600 * ours["step"]
        assert theirs["reward"] == pytest.approx(ours["reward"], rel=1e-5)
    seen = [json.loads((tmp_path / run / "policy" / "policy.json").read_text()) for run in ("one", "two")]
    ours, theirs = (found["observation_statistics"] for found in seen)
    assert theirs["count"] == ours["count"]
    assert theirs["mean"] == pytest.approx(ours["mean"], abs=1e-6)
    straight = weights(tmp_path / "two")
    for path in sorted((tmp_path / "two" / "checkpoints").iterdir())[3:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    with pytest.raises(ValueError, match="saved by 2 processes, and this run has 1"):
        resume(tmp_path / "two", quiet=True)
    launch(TORCHRUN, "-m", "ascent.cli", "resume", str(tmp_path / "two"))
    assert all(torch.equal(tensor, straight[name]) for name, tensor in weights(tmp_path / "two").items())
