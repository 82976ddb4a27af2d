"""The examples do what their pages say."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from ascent.worlds.text.data import Data, read
from ascent.worlds.text.rewards import Rewards, load

EXAMPLES = Path(__file__).parents[2] / "examples"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An example as a module; what it registers is forgotten after the test."""
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, made)
    spec.loader.exec_module(made)
    return made


def test_custom_method_trains_the_tokens_of_highest_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    method = module("custom_method", monkeypatch).forking_rloo(fraction=0.3, bonus=0.0)
    evaluation, decisions = method.example(rows=8, columns=6, seed=0, dtype=torch.float64)
    loss, _ = method.loss(evaluation, decisions)
    loss.backward()
    assert evaluation.log_prob.grad is not None
    reached = (evaluation.log_prob.grad != 0) & decisions.mask
    count = int(decisions.mask.sum())
    kept = torch.zeros_like(reached)
    entropy = torch.where(decisions.mask, evaluation.entropy.detach(), -torch.inf).flatten()
    kept.view(-1)[entropy.topk(math.ceil(0.3 * count)).indices] = True
    assert 0 < int(reached.sum()) < count
    assert not bool((reached & ~kept).any())


def test_custom_method_pays_for_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    method = module("custom_method", monkeypatch).forking_rloo(bonus=0.5)
    evaluation, decisions = method.example(rows=8, columns=6, seed=0, dtype=torch.float64)
    method.loss(evaluation, decisions)[0].backward()
    assert evaluation.entropy.grad is not None
    assert bool((evaluation.entropy.grad[decisions.mask] < 0).all())


@pytest.mark.filterwarnings("ignore:.*infinity")
def test_environment_keeps_gymnasiums_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = module("gymnasium_env", monkeypatch).Stopping()
    check_env(environment, skip_render_check=True)


def test_environment_tells_its_end_from_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    module("gymnasium_env", monkeypatch)
    environment = gymnasium.make("Stopping-v0")
    environment.reset(seed=0)
    push = np.ones(1, np.float32)
    for _ in range(100):
        _, reward, terminated, truncated, _ = environment.step(push)
        if terminated or truncated:
            break
    assert terminated and not truncated and reward < -10
    environment.reset(seed=0)
    position = environment.unwrapped.state
    for _ in range(100):
        # Critically damped: back to the mark and still.
        position, _, terminated, truncated, _ = environment.step(
            np.clip(-2.0 * position[:1] - 4.0 * position[1:], -1, 1).astype(np.float32)
        )
    assert truncated and not terminated


def test_rewards_read_the_result_after_the_last_semicolon() -> None:
    place = EXAMPLES / "custom_reward" / "my_rewards.py"
    rewards = Rewards((load(f"{place}:correct"), load(f"{place}:brief")), weights=(1.0, 0.2))
    texts = ["7+5=12;4+8+1=13;132", "132", "7+5=12;133"]
    found = rewards.each(["47+85="] * 3, texts, answer=["132"] * 3)
    assert found == [[1.0, 1.0, 0.0], [pytest.approx(1 - 19 / 26), pytest.approx(1 - 3 / 26), None]]


def test_prompts_have_right_answers_and_some_are_held_out() -> None:
    rows = read(EXAMPLES / "custom_reward" / "prompts.jsonl")
    assert all(sum(map(int, row["prompt"].rstrip("=").split("+"))) == int(row["answer"]) for row in rows)
    data = Data(rows)
    assert len(data.held) == len(rows) // 10 and len(data.train) + len(data.held) == len(rows)
