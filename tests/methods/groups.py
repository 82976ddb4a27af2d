"""Two groups of two responses with scores by hand, shared by the tests of group methods."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation

LENGTHS = (1, 3, 2, 2)
SCORES = (1.0, 0.0, 3.0, 7.0)
RATIOS = (1.5, 0.5, 1.1, 0.9)
REFERENCE = 0.2
"""log pi - log pi_reference at every decision."""


def decisions(scores: tuple[float, ...] = SCORES) -> Decisions:
    """Rows of 1, 3, 2 and 2 tokens in groups 0, 0, 1, 1; the score on the last token; budget 4."""
    mask = torch.arange(3) < torch.tensor(LENGTHS)[:, None]
    reward = torch.zeros(4, 3, dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        reward[row, length - 1] = scores[row]
    end = torch.arange(3) == torch.tensor(LENGTHS)[:, None] - 1
    return Decisions(
        mask=mask,
        reward=reward,
        group=torch.tensor([0, 0, 1, 1]),
        old_log_prob=torch.full((4, 3), -2.0, dtype=torch.float64),
        reference_log_prob=now().log_prob.detach() - REFERENCE,
        terminated=end,
        truncated=torch.zeros_like(end),
        extras={"budget": torch.full((4,), 4)},
    )


def now() -> Evaluation:
    """Every token of row i has ratio RATIOS[i] to the old policy."""
    log_ratio = torch.tensor([[math.log(ratio)] * 3 for ratio in RATIOS], dtype=torch.float64)
    return Evaluation(log_prob=(log_ratio - 2.0).requires_grad_())


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def surrogate(advantage: float, ratio: float, low: float, high: float) -> float:
    """PPO's clipped loss of one token, written out."""
    return max(-advantage * ratio, -advantage * min(max(ratio, 1 - low), 1 + high))
