"""Vertices, areas and changes of a law of two states."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from ascent.evaluation.regions import change, corners, draw_law, draw_regions
from ascent.policies.affine.regions import PiecewiseAffine, Region
from tests.policies.affine.plants import BOX, pendulum, states

matplotlib.use("Agg")


def test_corners_of_a_square() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    square = Region(rows, np.array([2.0, 1.0, 3.0, 0.0]), np.zeros((1, 2)), np.zeros(1))
    assert corners(square).tolist() == [[-1.0, 0.0], [2.0, 0.0], [2.0, 3.0], [-1.0, 3.0]]
    with pytest.raises(ValueError, match="two states; this region has 3"):
        corners(Region(np.eye(3), np.ones(3), np.zeros((1, 3)), np.zeros(1)))


def test_areas_add_up_to_the_feasible_share() -> None:
    law = pendulum()[1]
    areas = []
    for region in law.regions:
        x, y = corners(region).T
        areas.append(0.5 * np.abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
    share = law.contains(states(40_000, *BOX)).mean()
    assert sum(areas) / 64.0 == pytest.approx(share, abs=0.01)


def test_the_change_of_each_region() -> None:
    law = pendulum()[1]

    def moved(state: np.ndarray) -> np.ndarray:
        return law.evaluate(state) + 0.25 * (law.index(state) == 2)[:, None]

    found = change(law, moved, *BOX)
    assert np.abs(found - 0.25 * (np.arange(7) == 2)).max() < 1e-12
    assert np.isnan(change(law, moved, np.array([1.9, 7.8]), BOX[1])).any()


def test_pictures_show_every_region() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots(1, 2)
    law = pendulum()[1]
    draw_regions(axes[0], law, "regions")
    assert [text.get_text() for text in axes[0].texts] == [str(k) for k in range(7)]
    draw_law(axes[1], law.evaluate, *BOX, "law", points=11)
    assert np.abs(axes[1].collections[0].get_array()).max() == pytest.approx(2.0, abs=1e-6)


def test_a_law_of_one_region() -> None:
    whole = PiecewiseAffine(
        (Region(np.vstack((np.eye(2), -np.eye(2))), np.ones(4), np.array([[1.0, 0.0]]), np.zeros(1)),)
    )
    assert change(whole, lambda state: state[:, :1] + 1.0, -np.ones(2), np.ones(2)).tolist() == pytest.approx([1.0])
