"""The language benchmark: equal work in both arms, its gate, its stopwatch. Nothing here depends on a clock."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def small(**changes: Any) -> Any:
    from language_work import Work

    work = Work("small", hidden=16, layers=1, prompts=2, group_size=4, new_tokens=12, steps=2, warm_up=0)
    return replace(work, **changes)


def test_prompts_have_their_length_and_the_models_their_vocabulary() -> None:
    from language_work import WORKLOADS, Prompts, policy_of

    for vocabulary in sorted({work.vocabulary for work in WORKLOADS.values()}):
        policy = policy_of(small(vocabulary=vocabulary))
        assert len(policy.base.get_input_embeddings().weight) == vocabulary
        task = Prompts(vocabulary, 8)
        assert {len(policy.encode_prompt(task.example(index).prompt)) for index in range(5)} == {32}
        assert task.example(1) != task.example(2)


def test_ragged_lengths_are_recorded_and_distributed_as_said() -> None:
    from language_work import WORKLOADS

    work = WORKLOADS["1M ragged 128 rows"]
    drawn = [work.lengths(step) for step in range(40)]
    assert drawn[3] == work.lengths(3) != drawn[4]
    flat = [length for lengths in drawn for length in lengths]
    assert min(flat) >= 1 and max(flat) == work.new_tokens
    assert 0.36 < sum(flat) / len(flat) / work.new_tokens < 0.44
    assert replace(work, ragged=False).lengths(0) == [work.new_tokens] * work.rows


@pytest.mark.parametrize("ragged", [False, True])
def test_ascents_arm_draws_the_recorded_lengths_and_counts_every_phase(ragged: bool) -> None:
    from language_arms import loop_of
    from language_phases import PHASES, Stopwatch

    from ascent.core.method import Method

    work, watch, seen = small(ragged=ragged), Stopwatch(), []
    kept = Method.prepare, Method.loss, torch.Tensor.backward
    try:
        loop = loop_of(work, [], watch)
        collect, learn = loop.system.program[0].stages
        watch.start()
        for step in range(2):
            collect.run(loop, step)
            (collection,) = collect.memory.parts
            seen.append(collection)
            learn.run(loop, step)
        found = watch.stop()
    finally:
        Method.prepare, Method.loss, torch.Tensor.backward = kept  # type: ignore[method-assign]
    for step, collection in enumerate(seen):
        assert collection.mask.sum(1).tolist() == work.lengths(step)
    assert tuple(found["phases"]) == PHASES
    assert all(found["phases"][name] > 0 for name in PHASES[:-1])
    # The first collection was drawn by the first weights: its log-probs are those that these give.
    first = loop_of(work, [], Stopwatch()).system.models["policy"]
    own = first.annotate(seen[0], frozenset({"old_log_prob"})).old_log_prob
    torch.testing.assert_close(seen[0].behaviour_log_prob[seen[0].mask], own[seen[0].mask], rtol=1e-4, atol=1e-4)


def test_a_phase_inside_another_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import language_phases

    now = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(language_phases.time, "perf_counter", lambda: next(now))
    watch = language_phases.Stopwatch()
    inner = watch.timed("evaluate", lambda: None)
    outer = watch.timed("sample", inner)
    watch.start()
    outer()
    assert watch.stop()["phases"] == {
        "sample": 2.0 + 4.0, "score": 0.0, "evaluate": 3.0, "backward": 0.0, "step": 0.0, "rest": 15.0 - 9.0,
    }  # fmt: skip


def test_the_floor_counts_more_for_more_work() -> None:
    from language_gpu_floor import floor
    from language_gpu_work import GpuWork

    fixed = floor(GpuWork(), 3e12, 6e14)
    ragged = floor(replace(GpuWork(), ragged=True), 3e12, 6e14)
    # 0.49 B weights of 2 bytes, 511 times over 3 TB/s, is the least that decoding can take.
    assert fixed["sample"] > 511 * 0.494e9 * 2 / 3e12
    assert ragged["sample"] < fixed["sample"] and ragged["train"] < fixed["train"]


def test_the_arms_agree_on_one_batch() -> None:
    pytest.importorskip("trl", reason="the peer is not installed")
    from language_gate import gate

    rows = gate(small())
    assert [row["batch"] for row in rows] == ["on-policy", "off-policy, clipping active"]
    assert rows[1]["clipped"] > 0
    with pytest.raises(SystemExit, match="the gate is shut"):
        gate(small(), tolerance=1e-12)


@pytest.mark.slow
def test_the_gpu_benchmark_runs_tiny_on_the_cpu() -> None:
    found = subprocess.run(
        [sys.executable, str(FOLDER / "language_gpu.py"), "--tiny"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert "+ packed learning" in found.stdout and "Floor of a step" in found.stdout
    assert "does not run here" not in found.stdout
