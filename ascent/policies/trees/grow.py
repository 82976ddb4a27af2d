"""Growing one regression tree on vector gradients, by the rules of Fuhrer et al. 2024 (arXiv 2407.08250, GBRL).

    score of a split   S = n_L |m_L|^2 + n_R |m_R|^2   of the means of B on both sides; L2: S, cosine: sqrt(S)
    B                  cosine: the gradient G itself;  L2: each column of G centred, divided by its deviation (n - 1)
    leaf               mean of G over its samples, 0 where there are none

An oblivious tree takes one split a level, the best by the sum of its nodes' scores; a greedy one the best of each node
by `w S - S(parent)`. Numbers above a threshold and equal categories go right; NaN goes left. A feature's weight w
multiplies its scores. Ties go to the first feature, then to the lowest candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ascent.core.plan import TreeShape
from ascent.policies.trees import kernels

# Gains below 0 by rounding alone do not forbid a greedy split.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Tree:
    """Splits and leaves; children of a greedy node at place p of its level stand at 2 p and 2 p + 1 of the next.

    Attributes:
        feature: [S] column that a split asks; -1 sends everybody left. S is depth, or 2^depth - 1 where greedy.
        threshold: [S] number above which, or category at which, a sample goes right.
        equal: [S] 1 where a split asks for a category.
        value: [2^depth, D] mean gradient of each leaf.
        count: [2^depth] samples that it was the mean of.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    equal: NDArray[np.uint8]
    value: NDArray[np.float32]
    count: NDArray[np.int64]
    oblivious: bool

    @property
    def depth(self) -> int:
        """Levels of splits that the tree has room for."""
        return len(self.value).bit_length() - 1


def grow(
    x: NDArray[np.float32],
    gradient: NDArray[np.floating],
    shape: TreeShape,
    categorical: NDArray[np.bool_] | None = None,
) -> Tree:
    """The tree that fits `gradient` [n, D] best, split by split.

    Args:
        x: [n, F] features; categories as whole numbers.
        gradient: of the loss by the n samples' outputs, not averaged.
        shape: how the tree is grown.
        categorical: [F] True where a column holds categories; None: nowhere.
    """
    x = np.ascontiguousarray(x, np.float32)
    samples, features = x.shape
    raw = np.ascontiguousarray(gradient, np.float64)
    if not samples or len(raw) != samples:
        raise ValueError(f"x and gradient must have the same number of rows, >= 1; got {samples} and {len(raw)}.")
    equal = np.zeros(features, np.uint8) if categorical is None else np.asarray(categorical).astype(np.uint8)
    weight = np.ones(features) if shape.feature_weights is None else np.asarray(shape.feature_weights, np.float64)
    if len(weight) != features:
        raise ValueError(f"feature_weights must be one number a feature, {features}; got {len(weight)}.")
    values, offset = candidates(x, raw, shape, equal)
    places = kernels.bins(x, values, offset, equal)
    built, root = build_gradient(raw, shape), shape.score == "cosine"
    oblivious = shape.growth == "oblivious"
    splits = shape.depth if oblivious else (1 << shape.depth) - 1
    feature, threshold = np.full(splits, -1, np.int32), np.zeros(splits, np.float32)
    node, used = np.zeros(samples, np.int32), np.empty((1, 0, 2), np.int32)
    split_once = False
    for level in range(shape.depth):
        nodes = 1 << level
        best, chosen = kernels.best_splits(
            built, places, node, nodes, offset, equal, weight, shape.min_data, root, oblivious, used
        )
        taken = np.isfinite(best)
        if oblivious:
            chosen = np.repeat(chosen, nodes, 0)
            at = np.array([level])
        else:
            taken &= best >= _floor(built, node, nodes, root, level)
            at = nodes - 1 + np.arange(nodes)
        if not taken.any():
            break
        split_once = True
        chosen = np.where(taken[:, None], chosen, -1).astype(np.int32)
        mine = chosen[: len(at)]
        split = mine[:, 0] >= 0
        feature[at[split]] = mine[split, 0]
        threshold[at[split]] = values[offset[mine[split, 0]] + mine[split, 1]]
        asked = chosen[node]
        place = places[asked[:, 0], np.arange(samples)]
        right = np.where(equal[asked[:, 0]] != 0, place == asked[:, 1], place > asked[:, 1]) & (asked[:, 0] >= 0)
        node = (2 * node + right).astype(np.int32)
        used = np.repeat(np.concatenate([used, chosen[:, None]], 1), 2, 0)
    asks = (feature >= 0) & (equal[feature] != 0)
    # Levels below the last split have one child, the left one.
    node = node << (shape.depth - (used.shape[1]))
    value, count = leaf_means(raw, node, 1 << shape.depth)
    if not split_once:  # as in the released code: a tree without a split says nothing
        value = np.zeros_like(value)
    return Tree(feature, threshold, asks.astype(np.uint8), value, count, oblivious)


def candidates(
    x: NDArray[np.float32], gradient: NDArray[np.float64], shape: TreeShape, equal: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Thresholds and categories that may split, ascending within each feature, and where each feature's begin [F + 1].

    quantile: the last values of the first q of q + 1 bins of equally many sorted samples, the first bins taking the
    remainder. uniform: min + j (max - min) / q, j = 0 .. q - 1. Categories: all that occur, or, if they are more than q
    a feature, those whose samples have the largest mean squared gradient. What occurs twice is asked once.
    """
    q, (samples, features) = shape.bins, x.shape
    ordered = np.sort(np.ascontiguousarray(x.T), axis=1)
    if shape.candidates == "quantile":
        size, rest = divmod(samples, q + 1)
        ends = np.cumsum(size + (np.arange(q + 1) < rest))[:q] - 1
        picked = ordered[:, ends]
    else:
        low, high = ordered[:, :1], np.nanmax(ordered, axis=1, initial=-np.inf)[:, None]
        picked = low + np.arange(q, dtype=np.float32) * ((high - low) / np.float32(q))
    lists = []
    for f in range(features):
        column = ordered[f] if equal[f] else picked[f]
        fresh = np.append(True, column[1:] != column[:-1]) & ~np.isnan(column)
        lists.append(column[fresh])
    if equal.any():
        _keep_strongest(lists, x, gradient, np.flatnonzero(equal), q)
    offset = np.zeros(features + 1, np.int64)
    offset[1:] = np.cumsum([len(found) for found in lists])
    return np.concatenate(lists).astype(np.float32), offset


def _keep_strongest(
    lists: list[NDArray[np.float32]],
    x: NDArray[np.float32],
    gradient: NDArray[np.float64],
    columns: NDArray[np.int64],
    q: int,
) -> None:
    """Cut the categories of all `columns` together to q a feature, by mean squared gradient."""
    total, limit = sum(len(lists[f]) for f in columns), len(columns) * q
    if total <= limit:
        return
    norm = (gradient**2).sum(1)
    strength = []
    for f in columns:
        place = np.searchsorted(lists[f], x[:, f])
        strength.append(np.bincount(place, norm, len(lists[f])) / np.bincount(place, None, len(lists[f])))
    bound = np.sort(np.concatenate(strength))[total - limit]
    for f, strong in zip(columns, strength, strict=True):
        lists[f] = lists[f][strong >= bound]


def build_gradient(gradient: NDArray[np.float64], shape: TreeShape) -> NDArray[np.float64]:
    """[n, D] what the splits are chosen by; the leaves take the gradient itself."""
    if shape.score == "cosine":
        return gradient
    centred = gradient - gradient.mean(0)
    deviation = np.sqrt((centred**2).sum(0) / max(len(gradient) - 1, 1))
    return np.ascontiguousarray(centred / np.where(deviation > 0, deviation, 1.0))


def _floor(
    built: NDArray[np.float64], node: NDArray[np.int32], nodes: int, root: bool, level: int
) -> NDArray[np.float64]:
    """[nodes] the score that a greedy split must reach: the node's own, 0 at the root; inf where nobody is."""
    count = np.bincount(node, minlength=nodes)
    if level == 0:
        return np.zeros(1)
    square = sum(np.bincount(node, built[:, d], nodes) ** 2 for d in range(built.shape[1])) / np.maximum(count, 1)
    own = np.sqrt(square) if root else square
    return np.where(count > 0, own * (1 - ROUNDING), np.inf)


def leaf_means(
    gradient: NDArray[np.float64], leaf: NDArray[np.int32], leaves: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """[leaves, D] means of the gradient, 0 in empty leaves, and how many samples each has."""
    count = np.bincount(leaf, minlength=leaves)
    sums = [np.bincount(leaf, gradient[:, d], leaves) for d in range(gradient.shape[1])]
    means = np.stack(sums, 1) / np.maximum(count, 1)[:, None]
    return means.astype(np.float32), count
