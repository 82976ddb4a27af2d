"""BAPO as a run: whole responses, partial rollouts that resume exactly, and what is refused before a model loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ascent.sampling.partial import PartialSampler
from ascent.sampling.text import TextSampler
from ascent.systems import bapo as assembly
from ascent.systems import language as language_assembly
from ascent.systems.config import BadConfig
from ascent.systems.run import resume, train
from ascent.training import checkpoint
from ascent.training.processes import Processes
from tests.training.runs import distance, language, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_the_sampler_follows_the_parameter(model: Path, tmp_path: Path) -> None:
    for set_, kind in ((("minibatches=2",), TextSampler), (("segment_tokens=2", "in_flight=3"), PartialSampler)):
        config = language(model, tmp_path / "run", method="bapo", set=set_, minibatches=2)
        stages = assembly.build(config, config.composed(), Processes()).system.program[0].stages
        assert isinstance(stages[0].sampler, kind)
        assert stages[1].exact_behaviour is (kind is TextSampler)


def test_partial_rollouts_train_and_resume_bit_for_bit(model: Path, tmp_path: Path) -> None:
    def config(name: str) -> object:
        return language(
            model, tmp_path / name, method="bapo", steps=3, minibatches=2,
            set=("segment_tokens=2", "positive_share=0.5", "dynamic_sampling=false"), keep=20,
        )  # fmt: skip

    result = train(config("straight"))
    steps = [line for line in result.metrics if "clip_bound_high" in line]
    assert len(steps) == 3
    logged = (
        "clip_bound_low",
        "positive_share",
        "positive_share_of_tokens",
        "clip_fraction",
        "entropy",
        "gradient_norm",
    )
    assert all(name in steps[0] for name in (*logged, "reward", "positive_share_at_start"))
    train(config("killed"))
    saved = checkpoint.available(tmp_path / "killed" / "checkpoints")
    for path in saved[: len(saved) // 2]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    resume(tmp_path / "killed", quiet=True)
    assert distance(tmp_path / "straight", tmp_path / "killed") == 0.0


def test_what_partial_rollouts_cannot_do_is_refused_before_a_model_loads(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_assembly, "load_policy", lambda *_: pytest.fail("a model was loaded"))
    config = language(model, tmp_path / "run", method="bapo", set=("segment_tokens=2",), stop=(";",))
    with pytest.raises(BadConfig, match="stop is no choice of partial rollouts"):
        assembly.build(config, config.composed(), Processes())


def test_micro_batches_do_not_matter(model: Path, tmp_path: Path) -> None:
    for name, rows in (("whole", None), ("parts", 3)):
        train(
            language(
                model,
                tmp_path / name,
                method="bapo",
                steps=2,
                minibatches=2,
                micro_rows=rows,
                set=("positive_share=0.5", "dynamic_sampling=false"),
            )
        )
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-10
    assert torch.get_default_dtype() == torch.float32
