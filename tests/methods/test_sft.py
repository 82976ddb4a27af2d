"""Supervised fine-tuning is the mean negative log-likelihood of the demonstrations."""

from __future__ import annotations

import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method

MASK = torch.tensor([[True, True, True], [True, False, False]])
LOG_PROB = torch.tensor([[-1.0, -2.0, -3.0], [-6.0, -9.0, -9.0]], dtype=torch.float64)


def test_token_mean_by_hand() -> None:
    loss, _ = method("sft").loss(Evaluation(log_prob=LOG_PROB), Decisions(mask=MASK))
    assert float(loss) == (1 + 2 + 3 + 6) / 4


def test_sequence_mean_by_hand() -> None:
    loss, _ = method("sft", reduction="seq-mean-token-mean").loss(Evaluation(log_prob=LOG_PROB), Decisions(mask=MASK))
    assert float(loss) == (2 + 6) / 2


def test_equals_cross_entropy_and_its_gradient() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    action = torch.tensor([[0, 4, 2], [3, 0, 0]])
    log_prob = logits.log_softmax(-1).gather(-1, action[..., None]).squeeze(-1)
    loss, _ = method("sft").loss(Evaluation(log_prob=log_prob), Decisions(mask=MASK, action=action))
    expected = torch.nn.functional.cross_entropy(logits[MASK], action[MASK])
    assert torch.allclose(loss, expected, atol=1e-12)
    ours = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.allclose(ours, torch.autograd.grad(expected, logits)[0], atol=1e-12)
