"""The embedded model's cold start: made once, the same every time, cached by everything that shapes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from ascent.policies.causal import CausalPolicy
from ascent.systems import warm_up
from ascent.systems.warm_up import warmed_up
from ascent.training.processes import Processes
from ascent.worlds.text.sorting import Sorting
from ascent.worlds.text.task import TextTask


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASCENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(warm_up, "BATCH", 4)
    return tmp_path / "cache"


def made(task: TextTask, steps: int = 1, seed: int = 0, value_head: bool = False) -> CausalPolicy:
    return warmed_up(task, steps, seed, 1.0, value_head, Console(quiet=True), Processes())


def equal(first: CausalPolicy, second: CausalPolicy) -> bool:
    pairs = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_it_is_made_once_and_comes_back_from_the_cache(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(Sorting())
    assert len(list(small.iterdir())) == 1
    monkeypatch.setattr(warm_up, "supervised", lambda *_: pytest.fail("warmed up twice"))
    assert equal(first, made(Sorting()))
    with_critic = made(Sorting(), value_head=True)
    assert with_critic.value_head is not None
    assert equal(first, with_critic)


def test_it_is_reproducible_and_has_a_seed_of_its_own(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(Sorting())
    assert not equal(first, made(Sorting(), seed=1))
    assert not equal(first, made(Sorting(), steps=0)), "a step has moved it"
    monkeypatch.setenv("ASCENT_CACHE", str(tmp_path / "other"))
    assert equal(first, made(Sorting()))


def test_the_cache_knows_everything_that_shapes_the_model(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(Sorting(), steps=0)
    made(Sorting(seed=1), steps=0)
    made(Sorting(), steps=0, seed=1)
    monkeypatch.setattr(warm_up, "RECIPE", warm_up.RECIPE + 1)
    made(Sorting(), steps=0)
    assert len(list(small.iterdir())) == 4


def test_an_interrupted_warm_up_leaves_no_model(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(warm_up, "supervised", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made(Sorting())
    assert not small.exists() or not list(small.iterdir())
    made(Sorting())
