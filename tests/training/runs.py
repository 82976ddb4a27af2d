"""Tiny runs for the tests: a character model of one layer, and a few environment steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ascent.policies.embedded import embedded
from ascent.systems.config import ControlConfig, LanguageConfig
from ascent.worlds.text.arithmetic import Arithmetic

REWARDS = '''
import time

def score(prompts, completions, **columns):
    """Of every completion another number, the same in every run."""
    return [sum(map(ord, text)) % 17 / 17 for text in completions]

def first(prompts, completions, **columns):
    """1 where the completion begins with 7: a task of one decision."""
    return [float(text.startswith("7")) for text in completions]

def sometimes(prompts, completions, **columns):
    """Equal within some groups, which dynamic sampling refuses."""
    return [float(sum(map(ord, text)) % 7 == 0) for text in completions]

def raises(prompts, completions, **columns):
    raise KeyError("no such answer")

def short(prompts, completions, **columns):
    return [1.0]

def nan(prompts, completions, **columns):
    return [float("nan")] * len(completions)

def hangs(prompts, completions, **columns):
    time.sleep(30)

calls = 0

def later(prompts, completions, **columns):
    """Breaks in its third step."""
    global calls
    calls += 1
    if calls > 2:
        raise RuntimeError("the judge went home")
    return score(prompts, completions)
'''


def tiny_model(folder: Path, dtype: torch.dtype = torch.float64) -> Path:
    """A random model for arithmetic with a context of 32 tokens, saved."""
    policy = embedded(Arithmetic().alphabet, 0, hidden=16, layers=1, heads=2, context=32)
    policy.model.to(dtype)
    policy.save(folder)
    return folder


def language(model: Path, output: Path, **changes: Any) -> LanguageConfig:
    """Eight completions a step, scored by a hash of their letters."""
    rewards = output.parent / "rewards.py"
    rewards.write_text(REWARDS)
    plain = {
        "method": "grpo", "model": str(model), "dtype": "float64", "reward": (f"{rewards}:score",), "batch": 8,
        "group_size": 2, "max_new_tokens": 6, "steps": 1, "learning_rate": 1e-2, "evaluate_every": 0, "save_every": 1,
        "held_out": 4, "samples": 1, "tensorboard": False, "threads": 1, "quiet": True, "output": str(output),
    }  # fmt: skip
    return LanguageConfig(**{**plain, **changes})


def control(output: Path, **changes: Any) -> ControlConfig:
    """Four copies of CartPole, 16 steps each."""
    plain = {
        "method": "ppo", "env": "CartPole-v1", "environments": 4, "horizon": 16, "passes": 2, "minibatches": 2,
        "steps": 2, "evaluate_every": 0, "save_every": 1, "tensorboard": False, "quiet": True, "output": str(output),
    }  # fmt: skip
    return ControlConfig(**{**plain, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The trained policy of a run folder, by name."""
    files = sorted((folder / "policy").glob("*.safetensors"))
    assert files, f"{folder} holds no trained policy"
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def distance(first: Path, second: Path) -> float:
    """Largest difference of two runs' weights."""
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)
