"""IPO by hand: squared distance of the log-ratio difference from its margin, mean over pairs."""

from __future__ import annotations

import itertools

import torch

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method


def preferences(scores: list[float], group: list[int]) -> tuple[torch.Tensor, Decisions]:
    """One-token responses whose log-ratios to the reference are 0.1, 0.2, 0.3, ..."""
    count = len(scores)
    log_prob = torch.full((count, 1), -1.0, dtype=torch.float64)
    ratio = 0.1 * torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    return log_prob, Decisions(
        mask=torch.ones(count, 1, dtype=torch.bool),
        reward=torch.tensor(scores, dtype=torch.float64)[:, None],
        reference_log_prob=log_prob - ratio,
        group=torch.tensor(group),
    )


def test_one_pair_by_hand() -> None:
    """Winner is row 1: D = 0.2 - 0.1, margin 1 / (2 * 0.5) = 1."""
    log_prob, decisions = preferences([0.0, 5.0], [0, 0])
    loss, _ = method("ipo", beta=0.5).loss(Evaluation(log_prob=log_prob), decisions)
    assert torch.allclose(loss, torch.tensor((0.1 - 1.0) ** 2, dtype=torch.float64))


def test_mean_over_all_pairs_and_ties_are_none() -> None:
    """Group 0 has three rows with one tie, so two pairs; group 1 has one pair; group 2 a single row."""
    scores, group = [1.0, 0.0, 1.0, 2.0, 3.0, 9.0], [0, 0, 0, 1, 1, 2]
    log_prob, decisions = preferences(scores, group)
    loss, _ = method("ipo", beta=0.5).loss(Evaluation(log_prob=log_prob), decisions)
    pairs = [
        (0.1 * (i - j) - 1.0) ** 2
        for i, j in itertools.permutations(range(6), 2)
        if group[i] == group[j] and scores[i] > scores[j]
    ]
    assert len(pairs) == 3
    assert torch.allclose(loss, torch.tensor(sum(pairs) / 3, dtype=torch.float64))


def test_no_pair_is_no_loss() -> None:
    log_prob, decisions = preferences([1.0, 1.0], [0, 0])
    leaf = log_prob.requires_grad_()
    loss, _ = method("ipo").loss(Evaluation(log_prob=leaf), decisions)
    loss.backward()
    assert float(loss.detach()) == 0.0 and leaf.grad is not None and bool((leaf.grad == 0).all())


def test_the_size_of_the_reward_difference_does_not_matter() -> None:
    """Why it is biased for scalar rewards: only the order counts."""
    first, second = preferences([0.0, 5.0], [0, 0]), preferences([0.0, 0.001], [0, 0])
    losses = [method("ipo").loss(Evaluation(log_prob=x), d)[0] for x, d in (first, second)]
    assert torch.equal(losses[0], losses[1])
