"""Offline learning: the reference's cache, the loop on scored data, a reward model."""

from __future__ import annotations

import json
import random

import pytest
import torch

import ascent
from ascent.policies.embedded import embedded
from ascent.sampling.recorded import recorded
from ascent.systems.config import BadConfig, LanguageConfig
from ascent.systems.offline import dataset, reference_log_prob, train_reward_model
from ascent.systems.run import train
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.program import Phase
from ascent.worlds.text.scored import Scored


def copying(count, seed):
    """Groups whose better response repeats the prompt's digit."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        digit = str(draw.randrange(10))
        wrong = draw.choice([other for other in "0123456789" if other != digit])
        rows.append(Scored(f"{digit}=", (wrong, digit), (0.0, 1.0), (True, True)))
    return rows


def small(value_head=False):
    return embedded("0123456789=", 0, context=16, hidden=32, layers=1, heads=2, value_head=value_head)


def written(rows, path):
    lines = ({"prompt": row.prompt, "completions": row.completions, "scores": row.scores} for row in rows)
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_the_cache_is_what_the_reference_says():
    policy = small()
    content = recorded(copying(5, 0), policy)
    cached = reference_log_prob(content, policy, rows_at_once=3)
    with torch.no_grad():
        now = policy.evaluate(content, frozenset({"log_prob"})).log_prob
    assert torch.allclose(cached, now, atol=1e-6)


def test_copg_learns_from_a_file_what_its_scores_prefer(tmp_path):
    policy, reference = small(), small().requires_grad_(False)
    memory = dataset(written(copying(64, 1), tmp_path / "scored.jsonl"), policy, reference, 16, seed=0)
    method = ascent.method("copg", beta=0.25, learning_rate=3e-3)
    learn = Learn("policy", policy, method, memory)
    Loop(System({"policy": policy}, {}, (Phase("train", (learn,), 60),))).run()
    content = memory.content
    with torch.no_grad():
        ratio = (policy.evaluate(content, frozenset({"log_prob"})).log_prob - content.reference_log_prob).sum(1)
    gap = (ratio[1::2] - ratio[::2]).mean()
    assert 2.0 < float(gap) < 6.0  # the optimum has D_R / beta = 4


def test_a_reward_model_orders_held_out_responses():
    policy = small(value_head=True)
    model = train_reward_model(policy, recorded(copying(128, 2), policy), steps=120, groups=32, learning_rate=3e-3)
    digits = "0123456789"
    right = model([f"{digit}=" for digit in digits], list(digits))
    wrong = model([f"{digit}=" for digit in digits], list(digits[1:] + digits[:1]))
    assert sum(a > b for a, b in zip(right, wrong, strict=True)) >= 9


def test_a_reward_model_needs_a_value_head():
    policy = small()
    with pytest.raises(ValueError, match="value_head=True"):
        train_reward_model(policy, recorded(copying(4, 0), policy), steps=1)


def test_a_file_that_is_too_small_is_refused(tmp_path):
    policy = small()
    with pytest.raises(BadConfig, match=r"scored: batch must be in \[1, 3\]"):
        dataset(written(copying(3, 0), tmp_path / "scored.jsonl"), policy, None, 4, seed=0)


@pytest.mark.slow
def test_a_run_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ASCENT_CACHE", str(tmp_path / "cache"))
    rows = [Scored("1+1=", ("2", "3"), (1.0, 0.0), (True, True))] * 8
    config = LanguageConfig(
        method="copg",
        scored=written(rows, tmp_path / "scored.jsonl"),
        batch=8,
        group_size=2,
        steps=2,
        held_out=4,
        samples=1,
        warm_up_steps=1,
        evaluate_every=1,
        output=str(tmp_path / "run"),
        quiet=True,
        tensorboard=False,
    )
    result = train(config)
    assert [line["consumed"] for line in result.metrics if "loss" in line] == [4, 8]
