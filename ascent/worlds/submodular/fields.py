"""What lies on the maps: weights, regions, Gaussian-process covariances, groups of items, sightings of species.

A map of R x C cells numbers them row by row, cell = row * C + column.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ascent.worlds.submodular.set_functions import Bitmap, Floats


def centres(rows: int, columns: int) -> Floats:
    """[R*C, 2] positions (row, column) of the cells."""
    grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1)
    return grid.reshape(-1, 2).astype(np.float64)


def seen_from(rows: int, columns: int, times: int = 1) -> Bitmap:
    """[V, V] the cells that each cell covers: itself, its right, lower and lower-right neighbours, cut at borders.

    Args:
        rows, columns: of the map.
        times: how often the neighbourhood is applied, >= 1; 2 covers up to 3 x 3 cells.
    """
    places = centres(rows, columns)
    step = places[None, :, :] - places[:, None, :]
    found: Bitmap = ((step >= 0) & (step <= times)).all(-1)
    return found


def bimodal(rows: int, columns: int) -> Floats:
    """[V] weights 1 / (1 + exp(-x y)) with x, y in [-1, 1] across the map: two opposite corners weigh more."""
    x, y = np.linspace(-1, 1, rows), np.linspace(-1, 1, columns)
    found: Floats = (1.0 / (1.0 + np.exp(-np.outer(x, y)))).reshape(-1)
    return found


def bumps(rows: int, columns: int, places: tuple[tuple[float, float], ...], width: float) -> Floats:
    """[V] sum of Gaussian bumps of deviation `width` cells round `places` (row, column)."""
    gaps = centres(rows, columns)[:, None, :] - np.asarray(places, np.float64)[None]
    found: Floats = np.exp(-(gaps**2).sum(-1) / (2 * width**2)).sum(-1)
    return found


def matern(rows: int, columns: int, length: float = 1.0, variance: float = 1.0) -> Floats:
    """[V, V] Matern-5/2 covariance between cells, with length scale `length` in cells."""
    places = centres(rows, columns)
    gap = np.sqrt(5.0) * np.linalg.norm(places[:, None] - places[None], axis=-1) / length
    found: Floats = variance * (1 + gap + gap**2 / 3) * np.exp(-gap)
    return found


def drawn(rows: int, columns: int, length: float = 2.0, seed: int = 0) -> Floats:
    """[V] a positive sample of a Gaussian process with that covariance, shifted so that its least weight is 0."""
    covariance = matern(rows, columns, length) + 1e-9 * np.eye(rows * columns)
    sample = np.linalg.cholesky(covariance) @ np.random.default_rng(seed).standard_normal(rows * columns)
    found: Floats = sample - sample.min()
    return found


def items(rows: int, columns: int, sizes: tuple[int, ...], seed: int = 0) -> Bitmap:
    """[G, V] disjoint groups of `sizes` cells on a random map."""
    if sum(sizes) > rows * columns:
        raise ValueError(f"sizes must add up to at most {rows * columns} cells; got {sum(sizes)}.")
    order = np.random.default_rng(seed).permutation(rows * columns)
    groups = np.zeros((len(sizes), rows * columns), bool)
    for group, (first, size) in enumerate(zip(np.cumsum((0, *sizes[:-1])), sizes, strict=True)):
        groups[group, order[first : first + size]] = True
    return groups


def sightings(rows: int, columns: int, species: int = 12, seed: int = 0) -> Floats:
    """[V, species] how likely each species is seen from each cell: one habitat each, wide or narrow."""
    draw = np.random.default_rng(seed)
    habitats = draw.uniform((0, 0), (rows - 1, columns - 1), (species, 2))
    widths = np.geomspace(max(rows, columns) / 3, 0.7, species)
    gaps = centres(rows, columns)[:, None, :] - habitats[None]
    found: NDArray[np.float64] = np.exp(-(gaps**2).sum(-1) / (2 * widths**2))
    return found
