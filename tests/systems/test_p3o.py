"""P3O as a run: pairs from the sampler to the update, logged, split and resumed without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ascent.systems.config import BadConfig, LanguageConfig
from ascent.systems.run import resume, train
from ascent.training import checkpoint
from tests.training.runs import control, distance, language, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def settings(model: Path, output: Path, **changes: Any) -> LanguageConfig:
    plain = {"method": "p3o", "steps": 3, "passes": 2, "minibatches": 2, "keep": 20}
    return language(model, output, **{**plain, **changes})


def test_it_trains_logs_and_resumes_bit_for_bit(model: Path, tmp_path: Path) -> None:
    chosen = ("reward_scale=difference", "variant=v1")
    lines = train(settings(model, tmp_path / "straight", set=chosen)).metrics
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == 3
    wanted = ("reward_difference", "reward_difference_std", "ratio_mean", "ratio_least", "ratio_greatest")
    wanted += ("log_ratio_chosen", "log_ratio_rejected", "log_ratio_gap", "gain_abs", "gain_std")
    assert {f"pairs/{name}" for name in wanted} | {"clip_fraction", "approximate_kl"} <= set(steps[0])
    assert steps[0]["pairs/reward_difference"] > 0
    train(settings(model, tmp_path / "killed", set=chosen))
    saved = checkpoint.available(tmp_path / "killed" / "checkpoints")
    for path in saved[: len(saved) // 2]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    resume(tmp_path / "killed", quiet=True)
    assert distance(tmp_path / "straight", tmp_path / "killed") == 0.0


@pytest.mark.parametrize("variant", ["v1", "v2", "token"])
def test_micro_batches_do_not_matter(model: Path, tmp_path: Path, variant: str) -> None:
    for name, rows in (("whole", None), ("parts", 2)):
        train(settings(model, tmp_path / name, set=(f"variant={variant}",), micro_rows=rows, steps=2))
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-10


def test_a_world_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="'p3o' compares responses to one prompt"):
        train(control(tmp_path / "run", method="p3o"))
