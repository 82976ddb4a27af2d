"""A trial: equal seeds give equal numbers, the policy learns in place, a teacher may answer instead."""

from __future__ import annotations

import copy

import torch

import ascent
from ascent.policies.embedded import embedded
from ascent.sampling.partial import PartialSampler
from ascent.systems.trial import trial
from ascent.worlds.text.arithmetic import Arithmetic

TASK = Arithmetic(digits=1)


def policy():
    return embedded(TASK.alphabet, hidden=16, layers=1, heads=2, context=48)


def test_equal_seeds_give_equal_numbers_and_the_policy_moves() -> None:
    first, second = policy(), policy()
    before = copy.deepcopy(first.state_dict())
    method = ascent.method("reinforce", learning_rate=1e-2).replace(accept=None)
    options = {"steps": 2, "prompts": 2, "group_size": 2, "seed": 3, "evaluate_every": 1, "samples": 2}
    records = [
        trial(TASK, one, method, held_out=TASK.held_out(4), watch=lambda rows: {"rows": len(rows)}, **options)
        for one in (first, second)
    ]
    assert records[0] == records[1] and len(records[0].steps) == 2
    assert [step for step, _ in records[0].held_out] == [0, 1, 2]
    assert set(records[0].held_out[0][1]) == {"pass@1", "pass@2", "characters"}
    assert records[0].curve("rows") == [4.0, 4.0] and records[0].curve("nothing") == []
    assert all(torch.equal(first.state_dict()[name], second.state_dict()[name]) for name in before)


def test_a_teacher_answers() -> None:
    """Supervised learning on another policy's text raises that text's probability."""
    student, teacher, before = policy(), policy(), policy()
    for one in (teacher, before):
        with torch.no_grad():
            one.model.get_output_embeddings().weight.mul_(4.0)
    method = ascent.method("sft", learning_rate=1e-2)
    record = trial(TASK, student, method, steps=15, prompts=2, group_size=2, seed=0, teacher=teacher)
    losses = record.curve("loss")
    assert losses[-1] < losses[0] - 0.05
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), before.parameters(), strict=True))


def test_partial_rollouts_hold_tokens_of_several_policies() -> None:
    learning, seen = policy(), []

    def respond(answering):
        return PartialSampler(answering, TASK, 2, 2, TASK.max_new_tokens, segment_tokens=3, in_flight=4, seed=0)

    def watch(rows):
        seen.append(rows.policy_version[rows.mask])
        return {"oldest": float(seen[-1].min())}

    method = ascent.method("bapo", learning_rate=1e-2, passes=1, minibatches=1, dynamic_sampling=False)
    record = trial(TASK, learning, method, steps=8, prompts=2, group_size=2, seed=0, respond=respond, watch=watch)
    assert len(record.curve("oldest")) == 8
    assert all(bool((versions <= step).all()) for step, versions in enumerate(seen))
    assert any(len(versions.unique()) > 1 for versions in seen)
