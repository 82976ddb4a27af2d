"""Curves of several seeds on one grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ascent.evaluation.curves import align, band


def test_equal_grids_stay_as_they_are() -> None:
    budget, values = align([[(0.0, 1.0), (10.0, 2.0), (30.0, 5.0)], [(0.0, 0.0), (10.0, 4.0), (30.0, 6.0)]])
    np.testing.assert_array_equal(budget, [0, 10, 30])
    np.testing.assert_array_equal(values, [[1, 2, 5], [0, 4, 6]])


def test_other_grids_meet_on_what_all_have_and_are_linear_between() -> None:
    budget, values = align([[(0.0, 0.0), (10.0, 10.0)], [(4.0, 8.0), (20.0, 40.0)]])
    np.testing.assert_array_equal(budget, [4, 10])
    np.testing.assert_allclose(values, [[4, 10], [8, 20]])


def test_the_later_of_two_values_counts_and_order_does_not_matter() -> None:
    budget, values = align([[(5.0, 1.0), (0.0, 0.0), (5.0, 2.0)]])
    np.testing.assert_array_equal(budget, [0, 5])
    np.testing.assert_array_equal(values, [[0, 2]])


def test_long_curves_are_read_at_no_more_points_than_asked() -> None:
    curve = [(float(x), math.sin(x / 50)) for x in range(1000)]
    budget, values = align([curve, [(x + 0.5, y) for x, y in curve]], points=50)
    assert len(budget) == 50 and values.shape == (2, 50)
    np.testing.assert_allclose(values[0], np.sin(budget / 50), atol=1e-3)


def test_band_has_the_mean_in_it_and_narrows_where_seeds_agree() -> None:
    curves = [[(0.0, 1.0), (1.0, offset), (2.0, 2 * offset)] for offset in (0.0, 1.0, 2.0, 4.0, 5.0)]
    found = band(curves, "test")
    np.testing.assert_allclose(found.mean, [1.0, 2.4, 4.8])
    np.testing.assert_allclose([found.low[0], found.high[0]], [1.0, 1.0])
    assert (found.low[1:] < found.mean[1:]).all() and (found.mean[1:] < found.high[1:]).all()
    np.testing.assert_allclose(found.high[2] - found.low[2], 2 * (found.high[1] - found.low[1]))
    assert np.isnan(band(curves[:1], "test").low).all()


def test_errors_say_which_curve() -> None:
    with pytest.raises(ValueError, match="at least one curve"):
        align([])
    with pytest.raises(ValueError, match=r"curves\[1\] must hold finite"):
        align([[(0.0, 1.0)], []])
    with pytest.raises(ValueError, match=r"curves\[0\] must hold finite"):
        align([[(0.0, math.nan)]])
    with pytest.raises(ValueError, match="share no budget"):
        align([[(0.0, 1.0), (1.0, 1.0)], [(2.0, 1.0)]])
    with pytest.raises(ValueError, match="points"):
        align([[(0.0, 1.0)]], points=1)
