"""A run that is killed at any moment and resumed ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ascent.systems.config import ControlConfig, LanguageConfig
from ascent.systems.run import resume, train
from ascent.training import checkpoint

LANGUAGE = {
    "method": "grpo",
    "set": ("passes=2", "minibatches=3"),
    "batch": 12,
    "group_size": 2,
    "steps": 3,
    "warm_up_steps": 2,
    "max_new_tokens": 8,
    "evaluate_every": 0,
    "save_every": 1,
    "tensorboard": False,
    "threads": 1,
    "quiet": True,
}
CONTROL = {
    "method": "ppo",
    "set": ("passes=2", "minibatches=3"),
    "env": "Pendulum-v1",
    "environments": 2,
    "horizon": 30,
    "steps": 5,
    "evaluate_every": 0,
    "save_every": 1,
    "tensorboard": False,
    "quiet": True,
}


@pytest.fixture(scope="module", autouse=True)
def embedded_cache(tmp_path_factory):
    previous = os.environ.get("ASCENT_CACHE")
    os.environ["ASCENT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("ASCENT_CACHE")
    if previous is not None:
        os.environ["ASCENT_CACHE"] = previous


def weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted((folder / "policy").glob("*.safetensors"))
    assert files
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_equal(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def start(family: str, config: dict, folder: Path) -> subprocess.Popen:
    """The run as a process of its own, slow enough to be killed in the middle."""
    path = folder.with_suffix(".json")
    path.write_text(json.dumps({"family": family, **config, "output": str(folder)}))
    code = (
        "import sys, time, pathlib\n"
        "from ascent.systems import config, run\n"
        "from ascent.training.saver import Saver\n"
        "saved = Saver.updated\n"
        "def slow(self, loop):\n"
        "    saved(self, loop)\n"
        "    time.sleep(0.15)\n"
        "Saver.updated = slow\n"
        "run.train(config.read(pathlib.Path(sys.argv[1])))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(path)])


def kill_after(process: subprocess.Popen, folder: Path, update: int) -> None:
    """SIGKILL once the checkpoint of `update` is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        found = checkpoint.available(folder / "checkpoints")
        if found and int(found[0].name.split("-")[1]) >= update:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait(timeout=30) == -signal.SIGKILL, "the run ended before it could be killed"


@pytest.mark.parametrize(
    ("family", "kind", "config", "update"),
    [("language", LanguageConfig, LANGUAGE, 8), ("control", ControlConfig, CONTROL, 16)],
    ids=["language", "control"],
)
def test_killed_in_the_middle_of_a_collection_and_resumed_equals_straight(tmp_path, family, kind, config, update):
    train(kind(**config, output=str(tmp_path / "straight")))
    killed = tmp_path / "killed"
    process = start(family, {**config, "set": list(config["set"])}, killed)
    kill_after(process, killed, update)
    last = checkpoint.available(killed / "checkpoints")[0]
    stage = checkpoint.load(last)["system"]["program"]["train"]["stages"]["policy"]
    assert stage["collection"] is not None
    resume(killed, quiet=True)
    assert_equal(tmp_path / "straight", killed)
    steps = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, config["steps"] + 1))


def test_every_checkpoint_of_a_props_run_leads_to_the_same_end(tmp_path):
    """Buffer, behaviour policy and both optimisers travel; resumed at each update of the last rounds."""
    config = {
        **CONTROL,
        "method": "props",
        "horizon": None,
        "steps": 3,
        "keep": 100,
        "set": (
            *("batch=40", "passes=1", "minibatches=2"),
            *("behaviour_batch=20", "behaviour_passes=1", "behaviour_minibatches=2"),
        ),
    }
    straight = tmp_path / "straight"
    train(ControlConfig(**config, output=str(straight)))
    saved = checkpoint.available(straight / "checkpoints")
    assert len(saved) > 10
    for number, path in enumerate(saved[1:10:3]):
        copy = tmp_path / f"copy{number}"
        (copy / "checkpoints").mkdir(parents=True)
        for name in ("config.json", "manifest.json"):
            (copy / name).write_text((straight / name).read_text())
        path_copy = copy / "checkpoints" / path.name
        path_copy.mkdir()
        for file in path.iterdir():
            (path_copy / file.name).write_bytes(file.read_bytes())
        resume(copy, quiet=True)
        assert_equal(straight, copy)


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    config = {**CONTROL, "quiet": False, "keep": 3}
    train(ControlConfig(**config, output=str(tmp_path / "straight")))
    folder = tmp_path / "straight"
    expected = weights(folder)
    newest = checkpoint.available(folder / "checkpoints")[0]
    content = bytearray((newest / checkpoint.TENSORS).read_bytes())
    content[-1] ^= 1
    (newest / checkpoint.TENSORS).write_bytes(bytes(content))
    resume(folder)
    assert "passed over" in capsys.readouterr().out
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(folder).items())
