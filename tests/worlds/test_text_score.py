"""Scores of sampled responses land on their last decisions."""

from __future__ import annotations

from typing import Any

import torch

from ascent.core.decisions import Decisions
from ascent.policies.embedded import character_tokenizer
from ascent.worlds.text.arithmetic import Arithmetic
from ascent.worlds.text.rewards import Rewards
from ascent.worlds.text.score import TextScore

TASK = Arithmetic()
TOKENIZER = character_tokenizer(TASK.alphabet)


def answered(texts: list[str], indices: list[int]) -> Decisions:
    ids = [[*TOKENIZER(text)["input_ids"], 2] for text in texts]
    width = max(map(len, ids))
    action = torch.tensor([item + [0] * (width - len(item)) for item in ids])
    mask = torch.arange(width) < torch.tensor([[len(item)] for item in ids])
    return Decisions(mask=mask, action=action, index=torch.tensor(indices), behaviour_log_prob=torch.zeros(mask.shape))


def test_the_verifier_of_the_task() -> None:
    decisions = answered([TASK.demonstration(4), TASK.demonstration(9), "1"], [4, 8, 4])
    scored = TextScore(TASK, TOKENIZER)(decisions)
    assert scored.reward.sum(1).tolist() == [1.0, 0.0, 0.0]
    assert scored.reward[0, int(decisions.mask[0].sum()) - 1] == 1.0
    assert scored.reward.dtype == torch.float32
    assert torch.equal(scored.mask, decisions.mask)


def test_rows_to_which_no_reward_applies_are_masked_out() -> None:
    def judge(completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
        assert answer == [TASK.example(0).answer, TASK.example(1).answer]
        return [None, 2.0]

    scored = TextScore(TASK, TOKENIZER, Rewards((judge,)))(answered(["12", "3"], [0, 1]))
    assert not scored.mask[0].any() and scored.mask[1].sum() == 2
    assert scored.reward.tolist() == [[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]


def test_each_function_keeps_its_own_column() -> None:
    def length(completions: list[str], **columns: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    def first(completions: list[str], **columns: Any) -> list[float | None]:
        return [1.0, None]

    scored = TextScore(TASK, TOKENIZER, Rewards((length, first), weights=(1.0, 10.0)))(answered(["12", "3"], [0, 1]))
    assert scored.extras["reward:length"].tolist() == [2.0, 1.0]
    assert scored.extras["reward:first"].tolist() == [1.0, 0.0]
    assert scored.reward.sum(1).tolist() == [12.0, 1.0]
