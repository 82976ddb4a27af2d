"""The entropy law is recovered from its own points; covariances by plain loops."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.evaluation.entropy_law import (
    covariance_by_accuracy,
    early_prediction,
    fit_law,
    fit_sizes,
    response_covariance,
    top_means,
)


def test_the_law_is_recovered() -> None:
    entropy = torch.linspace(2.0, 0.1, 40, dtype=torch.float64)
    law = fit_law(entropy, 0.8 - 0.1 * entropy.exp())
    assert law.a == pytest.approx(0.1) and law.b == pytest.approx(0.8)
    assert law.ceiling == pytest.approx(0.7) and law.error < 1e-12 and law.explained == pytest.approx(1.0)
    assert float(law.reward(torch.zeros(()))) == pytest.approx(law.ceiling)


def test_noise_is_not_explained() -> None:
    draw = torch.Generator().manual_seed(0)
    entropy, reward = torch.rand(200, generator=draw), torch.randn(200, generator=draw)
    law = fit_law(entropy, reward)
    assert abs(law.explained) < 0.05 and law.error == pytest.approx(float(reward.std()), rel=0.05)


def test_early_prediction_fits_the_beginning_only() -> None:
    entropy = torch.linspace(2.0, 0.1, 40, dtype=torch.float64)
    reward = 0.8 - 0.1 * entropy.exp()
    assert early_prediction(entropy, reward)[1] < 1e-12
    reward[6:] += 0.5
    law, error = early_prediction(entropy, reward)
    assert law.b == pytest.approx(0.8) and error == pytest.approx(0.5)
    with pytest.raises(ValueError, match="share must leave two points"):
        early_prediction(entropy, reward, share=0.01)


def test_sizes_are_log_linear() -> None:
    sizes = torch.tensor([0.5e9, 1.5e9, 7e9, 32e9])
    slope, intercept = fit_sizes(sizes, 0.03 * sizes.double().log() - 0.2)
    assert slope == pytest.approx(0.03) and intercept == pytest.approx(-0.2)
    with pytest.raises(ValueError, match="different abscissa"):
        fit_law(torch.ones(5), torch.arange(5.0))


def test_top_means() -> None:
    covariance = torch.tensor([[5.0, 1.0, 100.0], [3.0, -1.0, 2.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert top_means(covariance, mask, (0.0002, 0.4, 1.0)) == {0.0002: 5.0, 0.4: 4.0, 1.0: 2.0}
    assert top_means(covariance, torch.zeros_like(mask), (0.5,)) == {0.5: 0.0}


def groups() -> tuple[torch.Tensor, Decisions]:
    draw = torch.Generator().manual_seed(1)
    mask = torch.arange(3) < torch.tensor([1, 3, 2, 2, 3, 1, 2, 3])[:, None]
    score = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0])
    reward = torch.where(torch.arange(3) == mask.sum(1, keepdim=True) - 1, score[:, None], 0.0)
    advantage = torch.where(mask, score[:, None] - torch.tensor([0.25, 0.75]).repeat_interleave(4)[:, None], 0.0)
    decisions = Decisions(mask=mask, reward=reward, advantage=advantage, group=torch.arange(8) // 4)
    return -torch.rand(8, 3, generator=draw), decisions


def test_response_covariance_by_a_plain_loop() -> None:
    log_prob, decisions = groups()
    product, accuracy = response_covariance(log_prob, decisions)
    assert accuracy.tolist() == pytest.approx([0.25] * 4 + [0.75] * 4)
    for group in range(2):
        rows = range(4 * group, 4 * group + 4)
        means = torch.stack([log_prob[row][decisions.mask[row]].mean() for row in rows])
        points = torch.stack([means, decisions.advantage[4 * group : 4 * group + 4, 0]])
        assert torch.allclose(
            product[4 * group : 4 * group + 4].mean(), torch.cov(points, correction=0)[0, 1], atol=1e-6
        )


def test_difficulty_bins() -> None:
    log_prob, decisions = groups()
    product, _ = response_covariance(log_prob, decisions)
    bins = covariance_by_accuracy(log_prob, decisions, levels=(0.2, 0.7, 0.99))
    assert bins == {0.2: pytest.approx(float(product[:4].mean())), 0.7: pytest.approx(float(product[4:].mean()))}
