"""pass@k against listing every choice of k samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ascent.evaluation.pass_at_k import mean_at_n, pass_at_k


@pytest.mark.parametrize("samples", [1, 2, 5, 7])
def test_equals_enumeration_of_every_subset(samples: int) -> None:
    for correct, k in itertools.product(range(samples + 1), range(1, samples + 1)):
        marks = [place < correct for place in range(samples)]
        subsets = list(itertools.combinations(marks, k))
        assert float(pass_at_k(correct, samples, k)) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_is_unbiased(k: int) -> None:
    """Averaged over every outcome of 6 coin throws with success rate p it is 1 - (1 - p)^k."""
    p, samples = 0.3, 6
    outcomes = np.array(list(itertools.product((0, 1), repeat=samples)))
    correct = outcomes.sum(1)
    probability = p**correct * (1 - p) ** (samples - correct)
    assert float((probability * pass_at_k(correct, samples, k)).sum()) == pytest.approx(1 - (1 - p) ** k)


@given(st.integers(1, 2000), st.data())
def test_rises_with_k_and_with_right_samples_up_to_one(samples: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, samples))
    k = data.draw(st.integers(1, samples))
    value = float(pass_at_k(correct, samples, k))
    assert -1e-9 <= value <= 1.0
    assert float(pass_at_k(correct, samples, 1)) == pytest.approx(correct / samples)
    if k < samples:
        assert float(pass_at_k(correct, samples, k + 1)) >= value - 1e-9
    if correct < samples:
        assert float(pass_at_k(correct + 1, samples, k)) >= value - 1e-9


def test_shapes_broadcast() -> None:
    np.testing.assert_allclose(pass_at_k([[0, 1], [2, 4]], 4, 2), [[0.0, 0.5], [1 - 1 / 6, 1.0]])
    np.testing.assert_allclose(pass_at_k([1, 1], [2, 4], 2), [1.0, 0.5])


def test_mean_at_n_is_pass_at_one_of_marks() -> None:
    marks = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(mean_at_n(marks), pass_at_k(marks.sum(1), 4, 1))
    np.testing.assert_allclose(mean_at_n([[0.25, 0.75]]), [0.5])


def test_errors_name_the_argument() -> None:
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"k must be in \[1, samples\]; got k={k}"):
            pass_at_k(1, 4, k)
    for correct in (-1, 5):
        with pytest.raises(ValueError, match="correct must be"):
            pass_at_k(correct, 4, 1)
    with pytest.raises(ValueError, match="scores must be"):
        mean_at_n([1.0, 2.0])
