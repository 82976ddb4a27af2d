"""The hot loops of decision trees: compiled C where the machine has a compiler, else numpy. Both give the same bits."""

from __future__ import annotations

import ctypes
import logging
from ctypes import c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ascent.policies.compiled import compiled

SOURCE = Path(__file__).with_name("trees.c")
_LOG = logging.getLogger(__name__)
_SIGNATURES: dict[str, str] = {
    "bin": "p i i p p p p",
    "split": "p p p i i i i p p p i c c p i p p p p p",
    "add": "p i i i i i c p p p p i i p",
    "add_adam": "p i i i i i c p p p p p p i i i i p p p",
}
_TYPES = {"p": c_void_p, "i": c_int64, "c": c_int}
CHUNK = 64  # trees that numpy reads together

Ints, Floats, Bytes = NDArray[np.int32], NDArray[np.float64], NDArray[np.uint8]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None where there are none, and the log says so once."""
    # Without contraction, so that numpy's separate rounding is repeated.
    found = compiled(SOURCE, ("-ffp-contract=off",), _LOG, "trees are grown and read by numpy")
    if found is not None:
        for name, kinds in _SIGNATURES.items():
            function = getattr(found, name)
            function.argtypes, function.restype = [_TYPES[kind] for kind in kinds.split()], None
    return found


def _at(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def addresses_of(*arrays: NDArray[Any]) -> tuple[int, ...]:
    """Where arrays lie in memory, for as long as somebody holds them."""
    return tuple(_at(array) for array in arrays)


def bins(x: NDArray[np.float32], values: NDArray[np.float32], offset: NDArray[np.int64], equal: Bytes) -> Ints:
    """[F, n] place of every sample among the candidates of each feature; those of feature f are
    `values[offset[f]:offset[f + 1]]`, ascending.

    A number's place is how many thresholds lie below it (NaN: 0), a category's is its own, or their count if not there.
    """
    n, features = x.shape
    found = np.empty((features, n), np.int32)
    if (native := library()) is not None:
        native.bin(_at(x), n, features, _at(values), _at(offset), _at(equal), _at(found))
        return found
    for f in range(features):
        listed, column = values[offset[f] : offset[f + 1]], x[:, f]
        place = np.where(np.isnan(column), 0, np.searchsorted(listed, column))
        if equal[f]:
            known = np.append(listed, np.float32(np.nan))[place] == column
            place = np.where(known, place, len(listed))
        found[f] = place
    return found


def best_splits(
    gradient: Floats,
    places: Ints,
    node: Ints,
    nodes: int,
    offset: NDArray[np.int64],
    equal: Bytes,
    weight: Floats,
    least: int,
    root: bool,
    shared: bool,
    used: Ints,
) -> tuple[Floats, Ints]:
    """The best split of each node, or the one split whose score summed over the nodes is best.

    Args:
        gradient: [n, D] that the split should tell apart.
        places: [F, n] of `bins`.
        node: [n] that each sample is in.
        nodes: K of them.
        offset, equal, weight: [F + 1], [F], [F] candidates, kind and weight of each feature.
        least: samples on either side below which a split is forbidden.
        root: score by the root of the sum (cosine), else by the sum.
        shared: one split for all nodes.
        used: [K, levels, 2] (feature, candidate) pairs on each node's path.

    Returns:
        Scores [K] (or [1]), -inf where nothing is allowed, and the (feature, candidate) pairs [K, 2].
    """
    answers = 1 if shared else nodes
    best = np.full(answers, -np.inf)
    chosen = np.full((answers, 2), -1, np.int32)
    n, outputs = gradient.shape
    if (native := library()) is not None:
        width = outputs + 1
        cells = int(np.diff(offset).max(initial=0)) + 1
        room = np.empty(nodes * width * (cells + 2))
        hist, whole, running = (
            _at(room) + 8 * start for start in (0, nodes * width * cells, nodes * width * (cells + 1))
        )
        native.split(
            *(_at(gradient), _at(places), _at(node), n, len(places), outputs, nodes, _at(offset), _at(equal)),
            *(_at(weight), least, root, shared, _at(used), used.shape[1], hist, whole, running, _at(best), _at(chosen)),
        )
        return best, chosen
    for f in range(len(places)):
        count = int(offset[f + 1] - offset[f])
        if not count:
            continue
        cell = node.astype(np.int64) * (count + 1) + places[f]
        size = nodes * (count + 1)
        columns = [np.bincount(cell, gradient[:, d], size) for d in range(outputs)] + [np.bincount(cell, None, size)]
        hist = np.stack([column.reshape(nodes, count + 1) for column in columns], 2).astype(np.float64)
        running = hist.cumsum(1)
        left = hist[:, :count] if equal[f] else running[:, :count]
        found = _score(left, running[:, -1:], least, root)
        for k, level in zip(*np.nonzero(used[:, :, 0] == f), strict=True):
            found[k, used[k, level, 1]] = -np.inf
        found = np.where(found == -np.inf, found, found * weight[f])
        # Sums go node by node, as the compiled loop's do.
        scores = found.cumsum(0)[-1:] if shared else found
        place = scores.argmax(1)
        score = scores[np.arange(answers), place]
        better = score > best
        best[better] = score[better]
        chosen[better, 0], chosen[better, 1] = f, place[better]
    return best, chosen


def _score(left: Floats, whole: Floats, least: int, root: bool) -> Floats:
    """[K, candidates] n_L |m_L|^2 + n_R |m_R|^2 out of sums with the counts as last column, or its root."""
    on_left, on_right = np.zeros(left.shape[:2]), np.zeros(left.shape[:2])
    for d in range(left.shape[2] - 1):
        on_left += left[..., d] ** 2
        on_right += (whole[..., d] - left[..., d]) ** 2
    n_left = left[..., -1]
    n_right = whole[..., -1] - n_left
    found = np.divide(on_left, n_left, out=np.zeros_like(on_left), where=n_left > 0)
    found += np.divide(on_right, n_right, out=np.zeros_like(on_right), where=n_right > 0)
    found = np.sqrt(found) if root else found
    return np.where((n_left < least) | (n_right < least), -np.inf, found)


def add(
    x: NDArray[np.float32],
    first: int,
    last: int,
    depth: int,
    oblivious: bool,
    feature: Ints,
    threshold: NDArray[np.float32],
    equal: Bytes,
    step: NDArray[np.float32],
    out: Floats,
    addresses: tuple[int, ...] | None = None,
) -> None:
    """`out` [n, C] += the first C columns of `step` [T, 2^depth, D] at the leaves of trees first .. last - 1.

    Args:
        x: [n, F] rows without gaps.
        feature, threshold, equal: [T, S] splits: one a level where oblivious, else one an inner node, level by level;
            feature -1 sends everybody left.
        addresses: of feature, threshold, equal and step, where the caller keeps them; to look them up costs as much as
            to read a tree at a few samples.
    """
    if (native := library()) is not None:
        n, features = x.shape
        places = addresses or addresses_of(feature, threshold, equal, step)
        native.add(_at(x), n, features, first, last, depth, oblivious, *places, step.shape[2], out.shape[1], _at(out))
        return
    for start in range(first, last, CHUNK):
        part = slice(start, min(start + CHUNK, last))
        leaf = leaves(x, depth, oblivious, feature[part], threshold[part], equal[part])
        moves = step[part, :, : out.shape[1]]
        gathered = moves[np.arange(len(moves))[:, None], leaf].astype(np.float64)
        # Down the first axis numpy adds one after the other, as the compiled loop does.
        out[:] = np.concatenate([out[None], gathered]).sum(0) if len(moves) else out


def add_adam(
    x: NDArray[np.float32],
    first: int,
    last: int,
    depth: int,
    oblivious: bool,
    feature: Ints,
    threshold: NDArray[np.float32],
    equal: Bytes,
    step: NDArray[np.float32],
    value: NDArray[np.float32],
    scale: Floats,
    columns: tuple[int, int],
    settings: Floats,
    moments: Floats,
    out: Floats,
) -> None:
    """As `add`, and the columns from columns[0] to columns[1] - 1 move by Adam.

    Args:
        value: [T, 2^depth, D] gradients at the leaves.
        scale: [T, D] rate times the correction of the moments' bias.
        settings: [3] decay of the first moment, of the second, and eps.
        moments: [2, n, C] of each sample before the first tree; they become those after the last.
    """
    width = out.shape[1]
    start, stop = columns[0], min(columns[1], width)
    if (native := library()) is not None:
        places = addresses_of(feature, threshold, equal, step, value, scale)
        sizes = (step.shape[2], width, start, stop)
        native.add_adam(
            _at(x), *x.shape, first, last, depth, oblivious, *places, *sizes, _at(settings), _at(moments), _at(out)
        )
        return
    decay, second_decay, eps = settings.tolist()
    for t in range(first, last):
        leaf = leaves(x, depth, oblivious, feature[t : t + 1], threshold[t : t + 1], equal[t : t + 1])[0]
        for d in range(width):
            if not start <= d < stop:
                out[:, d] += step[t, leaf, d]
                continue
            g = value[t, leaf, d].astype(np.float64)
            m = decay * moments[0, :, d] + (1.0 - decay) * g
            v = second_decay * moments[1, :, d] + (1.0 - second_decay) * (g * g)
            moments[0, :, d], moments[1, :, d] = m, v
            out[:, d] -= scale[t, d] * m / (np.sqrt(v) + eps)


def leaves(
    x: NDArray[np.float32], depth: int, oblivious: bool, feature: Ints, threshold: NDArray[np.float32], equal: Bytes
) -> NDArray[np.int64]:
    """[T, n] leaf that each sample reaches: the first split is its most significant bit, right is 1."""
    trees = np.arange(len(feature))[:, None]
    leaf = np.zeros((len(feature), len(x)), np.int64)
    for level in range(depth):
        at = np.full_like(leaf, level) if oblivious else (1 << level) - 1 + leaf
        f, value = feature[trees, at], threshold[trees, at]
        number = x[np.arange(len(x)), np.maximum(f, 0)]
        right = (f >= 0) & np.where(equal[trees, at] != 0, number == value, number > value)
        leaf = 2 * leaf + right
    return leaf
