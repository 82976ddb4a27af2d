"""Exact Shapley values of an ensemble of trees: what each feature adds to each output at one sample.

The game of a set S of known features is the tree's mean where the others are not known: a split on an unknown feature
sends a sample both ways, in the proportion of the samples that the tree was grown on (path-dependent, Lundberg et al.
2020, arXiv 1905.04610). A leaf's share of the game is a product over the m <= depth features on its path, so that its
Shapley values need no sum over 2^m sets: they are weighted coefficients of a polynomial of degree m - 1.
"""

from __future__ import annotations

from math import factorial

import numpy as np
from numpy.typing import NDArray

from ascent.policies.trees.ensemble import Ensemble


def shapley(ensemble: Ensemble, x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shapley values [n, F, D] at `x` [n, F], and what is said of nothing known [D].

    They add up: `predict(x) = nothing + values.sum(1)`.

    Raises:
        ValueError: the ensemble moves by Adam, whose outputs are no sum over trees.
    """
    if ensemble.adam is not None:
        raise ValueError("Shapley values add up over trees, and Adam's moments do not; train by gradient descent.")
    x = np.ascontiguousarray(x, np.float32)
    values = np.zeros((len(x), ensemble.features, ensemble.outputs))
    nothing = ensemble.bias.copy()
    for tree in range(ensemble.trees):
        nothing += _explain(ensemble, tree, x, values)
    return values, nothing


def _explain(ensemble: Ensemble, tree: int, x: NDArray[np.float32], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add one tree's Shapley values to `values`; returns its mean [D]."""
    depth = ensemble.shape.depth
    feature, threshold, equal, count, move = (
        ensemble.array(name)[tree] for name in ("feature", "threshold", "equal", "count", "move")
    )
    # Samples below every node, level by level.
    below = [count.reshape(1 << level, -1).sum(1) for level in range(depth + 1)]
    mean = np.zeros(ensemble.outputs)
    for leaf in range(1 << depth):
        known: dict[int, NDArray[np.bool_]] = {}
        share: dict[int, float] = {}
        for level in range(depth):
            above, child = leaf >> (depth - level), leaf >> (depth - level - 1)
            at = level if ensemble.oblivious else (1 << level) - 1 + above
            f, right = int(feature[at]), bool(child & 1)
            if f < 0:
                if right:
                    break
                continue
            column = x[:, f]
            goes = (column == threshold[at] if equal[at] else column > threshold[at]) == right
            # Where nobody was, both ways are as likely.
            part = below[level + 1][child] / below[level][above] if below[level][above] else 0.5
            known[f] = goes if f not in known else known[f] & goes
            share[f] = share.get(f, 1.0) * part
        else:
            worth = move[leaf].astype(np.float64)
            mean += worth * np.prod(list(share.values()))
            for f, weight in _weights(known, share, len(x)).items():
                values[:, f] += weight[:, None] * worth
    return mean


def _weights(
    known: dict[int, NDArray[np.bool_]], share: dict[int, float], samples: int
) -> dict[int, NDArray[np.float64]]:
    """Shapley values [n] of the features of one path in the game `product of (known if in S, else share)`."""
    size = len(known)
    chance = [factorial(s) * factorial(size - s - 1) / factorial(size) for s in range(size)]
    found = {}
    for f in known:
        # Coefficient s: the sum over sets of s others of the products of `known` inside and `share` outside.
        coefficients = np.zeros((size, samples))
        coefficients[0] = 1.0
        for other in known:
            if other != f:
                shifted = np.concatenate([np.zeros((1, samples)), coefficients[:-1]])
                coefficients = coefficients * share[other] + shifted * known[other]
        found[f] = (known[f] - share[f]) * sum(c * w for c, w in zip(coefficients, chance, strict=True))
    return found
