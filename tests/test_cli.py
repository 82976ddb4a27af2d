"""The command line: what works says where it is, what is wrong is one line and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ascent.cli import main
from ascent.policies.causal import CausalPolicy
from ascent.systems.manifest import manifest
from ascent.systems.run import train
from ascent.training import checkpoint
from tests.training.runs import REWARDS, control, distance, language, tiny_model, weights

ROOT = Path(__file__).parents[1]
CARTPOLE = "--method ppo --env CartPole-v1 --environments 2 --horizon 8 --minibatches 2 --passes 1 --no-tensorboard"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with rewards.py and a cache that stays empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASCENT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rewards.py").write_text(REWARDS)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that fails."""
    status = main(words)
    shown = capsys.readouterr()
    assert status in (1, 2)
    last = shown.err.strip().splitlines()[-1]
    assert last.startswith("ascent: ")
    assert "Traceback" not in shown.err + shown.out
    return last


BEFORE = {
    "task": ("--method grpo --task arithmetik", "got 'arithmetik'. Did you mean 'arithmetic'?"),
    "env": ("--method ppo --env CartPol-v1", "got 'CartPol-v1'. Did you mean 'CartPole-v1'?"),
    "flag": ("--method grpo --bach 8", "unknown flag --bach. Did you mean --batch?"),
    "set": ("--method dapo --set cliplow=1", "Did you mean 'clip_low'?"),
    "set without value": ("--method dapo --set clip_low", "set takes name=value; got 'clip_low'"),
    "config": ("--config nowhere.json", "config nowhere.json cannot be read"),
    "fed": ("--method grpo --env CartPole-v1", "method 'grpo' needs group, "),
    "props without env": ("--method props --task arithmetic", "method 'props' needs an environment"),
    "supervised": ("--method sft --env CartPole-v1", "method 'sft' learns from demonstrations"),
    "data": ("--method grpo --data no.jsonl --reward rewards.py:score", "data 'no.jsonl' does not exist"),
    "empty": ("--method grpo --data empty.jsonl --reward rewards.py:score", "data 'empty.jsonl' is empty"),
    "line": ("--method grpo --data odd.jsonl --reward rewards.py:score", "odd.jsonl line 3 has no `prompt`; it has"),
    "json": ("--method grpo --data torn.jsonl --reward rewards.py:score", "torn.jsonl line 2 is no JSON"),
    "reward": ("--method grpo --data good.jsonl --reward rewards.py:scor", "no function 'scor'"),
    "reward file": ("--method grpo --reward nowhere.py:score", "reward file 'nowhere.py' does not exist"),
    "reward form": ("--method grpo --reward rewards.py", "reward must look like file.py:function; got 'rewards.py'"),
    "model": ("--method grpo --model ./nowhere", "model './nowhere' cannot be loaded"),
    "small batch": ("--method ppo --batch 8 --group-size 2 --minibatches 9", "minibatches=9 with 8 rows"),
    "small horizon": (
        "--method ppo --env CartPole-v1 --environments 1 --horizon 2 --minibatches 4",
        "with 2 decisions",
    ),
}


@pytest.mark.parametrize("name", BEFORE)
def test_what_is_wrong_is_refused_before_anything_heavy(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model is made, no run folder is left."""
    (here / "empty.jsonl").write_text("\n\n")
    (here / "good.jsonl").write_text('{"prompt": "1+1="}\n')
    (here / "odd.jsonl").write_text('{"prompt": "1+1="}\n\n{"question": "2+2="}\n')
    (here / "torn.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "2+')
    words, message = BEFORE[name]
    assert message in refused(capsys, "train", *words.split())
    assert not (here / "runs").exists()
    assert not (here / "cache").exists()


COMPARED = {
    "method": ("grpoo rloo --task arithmetic", "got 'grpoo'. Did you mean 'grpo'?"),
    "second method": ("rloo grpoo --task arithmetic", "got 'grpoo'. Did you mean 'grpo'?"),
    "all and more": ("all grpo --task arithmetic", "arms must be `all` or methods by name, not both; got all, grpo."),
    "nothing left": (
        "all --env CartPole-v1 --without ppo a2c reinforce props gbrl ggtd submodular_rl",
        "`all` leaves no method for 'CartPole-v1'",
    ),
    "unknown without": ("all --without rlooo", "got 'rlooo'. Did you mean 'rloo'?"),
    "without all": ("grpo rloo --without rloo", "without goes with the arms `all`"),
    "reference": ("grpo rloo --reference dapo", "reference must be one of the arms grpo, rloo; got 'dapo'."),
    "page": ("grpo rloo --page page.html", "page must be a Markdown file, name.md; got page.html."),
    "seeds": ("all --seeds 0", "seeds must be >= 1; got 0."),
    "flag": ("all --bach 8", "unknown flag --bach. Did you mean --batch?"),
}


@pytest.mark.parametrize("name", COMPARED)
def test_a_wrong_comparison_is_one_line_before_anything_runs(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = COMPARED[name]
    assert message in refused(capsys, "compare", *words.split())
    assert not (here / "runs").exists() and not (here / "cache").exists()


def test_all_methods_of_an_environment_are_compared_by_one_command(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "all --env CartPole-v1 --without a2c props gbrl ggtd submodular_rl --seeds 2 --jobs 1 --environments 2 "
        "--horizon 8 --minibatches 1 "
        "--passes 1 --steps 2 --evaluate-every 1 --episodes 1 --output found --page page.md --reference reinforce"
    )
    assert main(["compare", *words.split()]) == 0
    shown = capsys.readouterr().out
    assert "left out: a2c: left out by --without" in shown and "page: page.md" in shown
    page = (here / "page.md").read_text()
    assert "# 2 methods on CartPole-v1" in page and "`reinforce` has" in page
    again = page[page.index("ascent compare") :].splitlines()[0].split()
    assert main([*again[1:], "--output", "found", "--jobs", "1"]) == 0, "the page's command makes it again"
    assert (here / "page.md").read_text() == page


def test_the_methods_that_an_environment_feeds_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "train", "--method", "grpo", "--env", "CartPole-v1")
    assert "Methods that run here: " in line
    fitting = line.rpartition("run here: ")[2]
    assert "ppo" in fitting
    assert "grpo" not in fitting


def test_an_unknown_command_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'train'?" in refused(capsys, "trian")


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_without_a_command_the_usage_is_shown(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "ascent train --method" in capsys.readouterr().out


def test_methods_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    found = {item["slug"]: item for item in json.loads(capsys.readouterr().out)}
    assert {"reinforce", "ppo", "grpo", "dapo", "props"} <= found.keys()
    item = found["dapo"]
    assert {"slug", "title", "paper", "year", "url", "family", "parts", "needs", "parameters", "status"} <= item.keys()
    assert all(parameter["doc"] for parameter in item["parameters"])
    assert main(["methods"]) == 0


LATER = {
    "raises": "reward 'raises' raised KeyError: 'no such answer'",
    "short": "short",
    "nan": "nan",
    "hangs": "reward 'hangs' took longer than timeout=0.3 s",
}


@pytest.mark.parametrize("name", LATER)
def test_a_broken_reward_is_one_line_and_a_resumable_run(
    name: str, here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = language(model, here / "run", reward=(f"{here / 'rewards.py'}:{name}",), reward_timeout=0.3)
    (here / "run.json").write_text(json.dumps(config.to_json()))
    line = refused(capsys, "train", "--config", str(here / "run.json"), "--output", str(here / "run"))
    assert LATER[name] in line
    assert line.startswith(f"ascent: reward '{name}'")
    assert len(checkpoint.available(here / "run" / "checkpoints")) == 1, (
        "the start is kept, and a mended reward goes on"
    )
    assert json.loads((here / "run" / "config.json").read_text())["method"] == "grpo"


def test_what_was_saved_before_a_reward_broke_stays_and_goes_on(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mended, the run ends as if it had never been broken."""
    config = language(model, here / "run", reward=(f"{here / 'rewards.py'}:later",), steps=4)
    (here / "run.json").write_text(json.dumps(config.to_json()))
    line = refused(capsys, "train", "--config", str(here / "run.json"), "--output", str(here / "run"))
    assert "reward 'later' raised RuntimeError: the judge went home" in line
    assert checkpoint.available(here / "run" / "checkpoints")[0].name == "update-000000002"
    mended = (here / "rewards.py").read_text().replace("calls > 2", "False")
    (here / "rewards.py").write_text(mended)
    assert main(["resume", str(here / "run")]) == 0
    train(language(model, here / "straight", steps=4))
    assert distance(here / "run", here / "straight") == 0


def test_a_prompt_longer_than_the_context_is_named(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "long.jsonl").write_text("".join(json.dumps({"prompt": "1+" * n + "1="}) + "\n" for n in (1, 2, 30)))
    words = f"--method reinforce --model {model} --data long.jsonl --reward rewards.py:score --batch 8 --group-size 1"
    line = refused(capsys, "train", *words.split(), "--max-new-tokens", "6", "--no-tensorboard", "--output", "run")
    assert "62 tokens" in line
    assert "context of 32" in line


def test_a_run_folder_that_exists_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run").mkdir()
    (here / "run" / "note.txt").write_text("mine")
    line = refused(capsys, "train", *CARTPOLE.split(), "--output", "run")
    assert "run folder run exists" in line
    assert "ascent resume run" in line
    assert [path.name for path in (here / "run").iterdir()] == ["note.txt"]


def test_resume_needs_a_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no run folder" in refused(capsys, "resume", str(here / "nowhere"))
    assert main(["resume"]) == 2
    assert "usage" in capsys.readouterr().err
    folder = here / "run"
    folder.mkdir()
    config = control(folder)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    assert "holds no manifest.json" in refused(capsys, "resume", str(folder))
    (folder / "manifest.json").write_text(json.dumps(manifest(config, config.composed())))
    assert "holds no checkpoint" in refused(capsys, "resume", str(folder))


def test_a_rate_far_too_high_is_told_and_the_last_good_checkpoint_stays(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"{CARTPOLE} --output run --learning-rate 1e38 --save-every 1 --evaluate-every 0 --keep 9 --steps 9"
    line = refused(capsys, "train", *words.split())
    assert "not finite" in line
    assert "learning_rate" in line
    saved = checkpoint.available(here / "run" / "checkpoints")
    assert saved
    for path in saved:
        tensors = checkpoint.load(path)["system"]["models"]["policy"]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_a_whole_control_run_from_its_words(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"{CARTPOLE} --output run --steps 3 --evaluate-every 2 --episodes 2"
    assert main(["train", *words.split()]) == 0
    shown = capsys.readouterr().out
    assert "held-out return" in shown
    assert "run folder: run" in shown
    names = {path.name for path in (here / "run").iterdir()}
    assert {"config.json", "manifest.json", "metrics.jsonl", "curves.png", "policy", "result.json"} <= names
    assert main(["train", "--config", "run/config.json", "--output", "again"]) == 0
    assert distance(here / "run", here / "again") == 0, "the stored configuration gives the run again"
    first, second = (json.loads((here / run / "config.json").read_text()) for run in ("run", "again"))
    assert {**first, "output": "again"} == second
    assert main(["resume", "run"]) == 0, "a finished run has nothing left to do"
    assert distance(here / "run", here / "again") == 0


def test_own_data_reward_and_model_end_in_a_folder_that_transformers_loads(here: Path, model: Path) -> None:
    rows = [{"prompt": f"{n}+{n + 1}=", "level": n} for n in range(20)]
    (here / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "judge.py").write_text(
        "def score(prompts, completions, level, **columns):\n"
        "    assert len(prompts) == len(completions) == len(level)\n"
        "    return [None if n == 3 else float(len(text)) for n, text in zip(level, completions)]\n"
    )
    words = (
        f"train --method grpo --model {model} --data mine.jsonl --reward judge.py:score rewards.py:score "
        "--reward-weights 0.5 2 --batch 8 --group-size 4 --max-new-tokens 4 --steps 2 --evaluate-every 2 --held-out 4 "
        "--samples 2 --no-tensorboard --quiet --output run"
    )
    assert main(words.split()) == 0
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(here / "run" / "policy")
    tokenizer = AutoTokenizer.from_pretrained(here / "run" / "policy")
    ids = torch.tensor([tokenizer("12+3=")["input_ids"]])
    ours = CausalPolicy.load(here / "run" / "policy").model(input_ids=ids).logits
    assert torch.equal(loaded(input_ids=ids).logits, ours)
    lines = [json.loads(line) for line in (here / "run" / "completions.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == {0, 2}
    assert all({"prompt", "completion", "reward"} <= line.keys() for line in lines)


def started(config: dict[str, object], folder: Path) -> subprocess.Popen[str]:
    """`ascent train` as a process of its own, slow enough to be interrupted in the middle."""
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(config))
    code = (
        "import sys, time\n"
        "from ascent.training.saver import Saver\n"
        "saved = Saver.updated\n"
        "def slow(self, loop):\n"
        "    saved(self, loop)\n"
        "    time.sleep(0.1)\n"
        "Saver.updated = slow\n"
        "from ascent.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["train", "--config", str(path), "--output", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not true() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_ctrl_c_saves_says_how_to_go_on_and_the_rest_equals_a_straight_run(here: Path) -> None:
    config = control(here / "straight", steps=4, passes=3, minibatches=3, save_every=2, keep=2)
    train(config)
    folder = here / "stopped"
    process = started({**config.to_json(), "quiet": False}, folder)
    wait_for(lambda: any((folder / "checkpoints").glob("update-00000001?")), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "stopping after this update" in out
    assert f"ascent resume {folder}" in out.replace("\n", "")
    assert not (folder / "policy").exists(), "the run ended in the middle"
    assert main(["resume", str(folder)]) == 0
    assert distance(folder, here / "straight") == 0


def test_a_run_again_is_bit_equal(here: Path, model: Path) -> None:
    """Language and control: the same seed gives the same weights, another seed gives others."""
    for kind, make in {
        "language": lambda folder, **more: language(model, folder, steps=2, **more),
        "control": lambda folder, **more: control(folder, env="Pendulum-v1", **more),
    }.items():
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            train(make(here / f"{kind}-{name}", seed=seed))
        assert distance(here / f"{kind}-a", here / f"{kind}-b") == 0, kind
        assert distance(here / f"{kind}-a", here / f"{kind}-c") > 1e-6, kind
        assert weights(here / f"{kind}-a")
