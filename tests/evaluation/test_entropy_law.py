"""The entropy law is recovered from its own points; a driven entropy correlates with what drives it."""

from __future__ import annotations

import pytest
import torch

from ascent.evaluation.entropy_law import decline_correlation, early_prediction, fit_law, fit_sizes


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


def test_covariance_that_drives_the_entropy_correlates_with_its_fall() -> None:
    draw = torch.Generator().manual_seed(0)
    drive = torch.rand(60, generator=draw, dtype=torch.float64)
    # The entropy of a step is that of its middle: half its own fall and half of the one before.
    entropy = 2.0 - 0.01 * (drive.cumsum(0) - drive / 2)
    assert decline_correlation(entropy, drive) == pytest.approx(1.0)
    assert decline_correlation(-entropy, drive) == pytest.approx(-1.0)
    noise = torch.randn(60, generator=draw, dtype=torch.float64)
    assert abs(decline_correlation(entropy, noise)) < 0.3


def test_windows_by_a_plain_loop() -> None:
    draw = torch.Generator().manual_seed(1)
    entropy, covariance = torch.rand(20, generator=draw), torch.rand(20, generator=draw)
    falls, drives = [], []
    for start in range(20 - 2 * 3 + 1):
        falls.append(float(entropy[start : start + 3].mean() - entropy[start + 3 : start + 6].mean()))
        drives.append(float(covariance[start : start + 6].mean()))
    expected = torch.corrcoef(torch.tensor([falls, drives], dtype=torch.float64))[0, 1]
    assert decline_correlation(entropy, covariance, window=3) == pytest.approx(float(expected), abs=1e-6)
    with pytest.raises(ValueError, match="window must be >= 1 and leave two differences"):
        decline_correlation(entropy, covariance, window=10)
