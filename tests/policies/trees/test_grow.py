"""Trees are what the published rules say: numbers by hand, exhaustive search, the published package, and numpy = C."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ascent.core.plan import TreeShape
from ascent.policies.trees import kernels
from ascent.policies.trees.grow import Tree, build_gradient, candidates, grow

SHAPES = [
    TreeShape(3, growth, score, kind, 16, least)  # type: ignore[arg-type]
    for growth, score, kind, least in itertools.product(
        ("oblivious", "greedy"), ("cosine", "l2"), ("quantile", "uniform"), (0, 5)
    )
]
NAMES = [f"{s.growth}-{s.score}-{s.candidates}-{s.min_data}" for s in SHAPES]


def data(seed: int, n: int = 200, features: int = 4, outputs: int = 3) -> tuple[NDArray[Any], NDArray[Any]]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, features)).astype(np.float32)
    return x, draw.normal(size=(n, outputs)) + x[:, :1] * 2 + (x[:, 1:2] > 0.3)


def said(tree: Tree, x: NDArray[Any]) -> NDArray[Any]:
    return tree.value[reached(tree, x)]


def reached(tree: Tree, x: NDArray[Any]) -> NDArray[Any]:
    return kernels.leaves(x, tree.depth, tree.oblivious, tree.feature[None], tree.threshold[None], tree.equal[None])[0]


def score(gradient: NDArray[Any], right: NDArray[Any]) -> float:
    """S = n_L |m_L|^2 + n_R |m_R|^2, from its definition."""
    sides = (gradient[~right], gradient[right])
    return sum(len(side) * float((side.mean(0) ** 2).sum()) for side in sides if len(side))


def test_a_tree_worked_by_hand() -> None:
    """Four samples on a line: the first split is 2, where gradients change sign; each leaf is a mean."""
    x = np.array([[1.0], [2.0], [3.0], [4.0]], np.float32)
    gradient = np.array([[-3.0], [-1.0], [2.0], [4.0]])
    tree = grow(x, gradient, TreeShape(1, bins=8))
    assert tree.threshold.tolist() == [2.0]
    assert tree.value.tolist() == [[-2.0], [3.0]]
    assert tree.count.tolist() == [2, 2]
    # S of thresholds 1, 2, 3: 9 + 25/3, 4 + 4 + 18 , 4/3 + 16; 26 is the largest.
    assert score(gradient, x[:, 0] > 2) == 26.0


def test_quantiles_and_uniform_thresholds_by_hand() -> None:
    x = np.array([[4.0], [1.0], [3.0], [2.0], [9.0], [6.0], [7.0]], np.float32)
    none = np.zeros(1, np.uint8)
    # 7 samples in 4 bins: counts 2, 2, 2, 1, so the ends of the first three are the 2nd, 4th and 6th.
    values, offset = candidates(x, np.zeros((7, 1)), TreeShape(bins=3), none)
    assert values.tolist() == [2.0, 4.0, 7.0]
    assert offset.tolist() == [0, 3]
    values, _ = candidates(x, np.zeros((7, 1)), TreeShape(bins=4, candidates="uniform"), none)
    assert values.tolist() == [1.0, 3.0, 5.0, 7.0]
    # Fewer samples than bins: every value, the last of which repeats and is asked once.
    values, _ = candidates(x, np.zeros((7, 1)), TreeShape(bins=20), none)
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 9.0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_the_cosine_score_is_the_root_of_the_l2_score_on_the_raw_gradient(seed: int, n: int, outputs: int) -> None:
    """(sum g.m over both sides) / sqrt(S) = sqrt(S), since g sums to n m on each side."""
    draw = np.random.default_rng(seed)
    gradient, right = draw.normal(size=(n, outputs)), draw.random(n) > 0.5
    total = score(gradient, right)
    dots = sum(float((side @ side.mean(0)).sum()) for side in (gradient[~right], gradient[right]) if len(side))
    cosine = dots / np.sqrt(total)
    assert cosine == pytest.approx(np.sqrt(total), rel=1e-12)
    places = right.astype(np.int32)[None]
    options = (np.array([0, 1]), np.zeros(1, np.uint8), np.ones(1), 0)
    empty = np.empty((1, 0, 2), np.int32)
    node = np.zeros(n, np.int32)
    for root, expected in ((True, cosine), (False, total)):
        best, _ = kernels.best_splits(gradient, places, node, 1, *options, root, True, empty)
        assert best[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("growth", ["oblivious", "greedy"])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_split_is_the_best_stump_of_an_exhaustive_search(growth: Any, seed: int) -> None:
    """D = 1, every value a candidate: minimal squared error over all features and thresholds (centred L2)."""
    x, gradient = data(seed, 60, 3, 1)
    errors = {}
    for f, value in itertools.product(range(3), range(60)):
        right = x[:, f] > x[value, f]
        parts = [gradient[side] for side in (right, ~right) if side.any()]
        errors[f, value] = sum(((part - part.mean()) ** 2).sum() for part in parts)
    f, value = min(errors, key=lambda key: errors[key])
    tree = grow(x, gradient, TreeShape(1, growth, "l2", bins=60))
    assert np.array_equal(reached(tree, x) == 1, x[:, f] > x[value, f])


def test_the_stump_is_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.tree", reason="scikit-learn is not installed")
    x, gradient = data(7, 80, 3, 1)
    other = sklearn.DecisionTreeRegressor(max_depth=1).fit(x, gradient[:, 0])
    tree = grow(x, gradient, TreeShape(1, score="l2", bins=80))
    assert np.array_equal(reached(tree, x) == 1, x[:, other.tree_.feature[0]] > other.tree_.threshold[0])


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_leaves_are_means_and_their_sum_is_the_gradients(shape: TreeShape) -> None:
    x, gradient = data(1)
    tree = grow(x, gradient, shape)
    leaf = reached(tree, x)
    assert np.array_equal(np.bincount(leaf, minlength=8), tree.count)
    for number in range(8):
        inside = gradient[leaf == number]
        expected = inside.mean(0) if len(inside) else np.zeros(3)
        np.testing.assert_allclose(tree.value[number], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(said(tree, x).sum(0), gradient.sum(0), rtol=1e-5)
    if shape.min_data:
        assert tree.count[tree.count > 0].min() >= shape.min_data


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.growth == "oblivious"])
def test_every_level_of_an_oblivious_tree_is_the_best_sum_over_its_nodes(shape: TreeShape) -> None:
    """Level by level against a plain search over all candidates; so one split a level, at most 2^depth leaves."""
    x, gradient = data(3, 60, 3, 2)
    values, offset = candidates(x, gradient, shape, np.zeros(3, np.uint8))
    built = build_gradient(gradient, shape)
    tree = grow(x, gradient, shape)
    node = np.zeros(60, int)
    used: list[tuple[int, float]] = []
    for level in range(shape.depth):
        best, found = -np.inf, (-1, 0.0)
        for f in range(3):
            for value in values[offset[f] : offset[f + 1]]:
                right = x[:, f] > value
                total = 0.0
                for k in range(1 << level):
                    mine = node == k
                    small = min((mine & right).sum(), (mine & ~right).sum()) < shape.min_data
                    single = score(built[mine], right[mine])
                    total += -np.inf if small else np.sqrt(single) if shape.score == "cosine" else single
                if total > best + 1e-9 and (f, float(value)) not in used:
                    best, found = total, (f, float(value))
        if found[0] < 0:
            assert (tree.feature[level:] == -1).all()
            break
        assert (tree.feature[level], tree.threshold[level]) == found
        used.append(found)
        node = 2 * node + (x[:, found[0]] > found[1])
    assert len(np.unique(said(tree, x), axis=0)) <= 2**shape.depth


@pytest.mark.parametrize("score_", ["cosine", "l2"])
def test_a_greedy_node_takes_its_own_best_split(score_: Any) -> None:
    x, gradient = data(4, 120, 3, 2)
    shape = TreeShape(2, "greedy", score_, bins=30)
    values, offset = candidates(x, gradient, shape, np.zeros(3, np.uint8))
    built = build_gradient(gradient, shape)
    tree = grow(x, gradient, shape)
    first = x[:, tree.feature[0]] > tree.threshold[0]
    for at, mine in ((1, ~first), (2, first)):
        scores = {
            (f, float(value)): score(built[mine], x[mine, f] > value)
            for f in range(3)
            for value in values[offset[f] : offset[f + 1]]
            if (f, value) != (tree.feature[0], tree.threshold[0])
        }
        assert (tree.feature[at], tree.threshold[at]) == max(scores, key=lambda key: scores[key])


def test_pure_leaves_repeat_the_gradient() -> None:
    """n distinct x and enough depth: every sample has a leaf of its own."""
    x = np.arange(8, dtype=np.float32)[:, None]
    gradient = np.random.default_rng(0).normal(size=(8, 2))
    tree = grow(x, gradient, TreeShape(8, "greedy", bins=8))
    np.testing.assert_allclose(said(tree, x), gradient, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_the_order_of_samples_does_not_matter(shape: TreeShape) -> None:
    x, gradient = data(5)
    order = np.random.default_rng(0).permutation(len(x))
    one, other = grow(x, gradient, shape), grow(x[order], gradient[order], shape)
    assert np.array_equal(one.feature, other.feature)
    assert np.array_equal(one.threshold, other.threshold)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_numpy_and_the_compiled_loops_give_the_same_bits(shape: TreeShape, monkeypatch: pytest.MonkeyPatch) -> None:
    if kernels.library() is None:
        pytest.skip("no C compiler here")
    x, gradient = data(6, 300, 5, 9)
    x[:, 4] = np.random.default_rng(1).integers(0, 6, 300)
    x[::17, 0] = np.nan
    kinds = np.array([False] * 4 + [True])

    def made() -> tuple[Tree, NDArray[Any]]:
        tree = grow(x, gradient, shape, kinds)
        out = np.ones((len(x), 4))
        arrays = (tree.feature[None], tree.threshold[None], tree.equal[None], tree.value[None])
        kernels.add(x, 0, 1, tree.depth, tree.oblivious, *arrays, out)
        return tree, out

    fast, read = made()
    monkeypatch.setattr(kernels, "library", lambda: None)
    plain, again = made()
    for name in ("feature", "threshold", "equal", "value", "count"):
        assert np.array_equal(getattr(fast, name), getattr(plain, name)), name
    assert np.array_equal(read, again)


def test_categories_are_asked_for_by_name() -> None:
    """Codes 0..4, of which 1 and 3 have the same gradient: no threshold tells 3 from its neighbours, equality does."""
    codes = np.repeat(np.arange(5, dtype=np.float32), 6)[:, None]
    gradient = (codes == 3) * 5.0 - 1.0
    tree = grow(codes, gradient, TreeShape(1), np.array([True]))
    assert (tree.equal[0], tree.threshold[0]) == (1, 3.0)
    np.testing.assert_allclose(said(tree, codes), gradient)
    # Which codes the words have does not matter.
    other = np.array([4, 0, 2, 1, 3], np.float32)
    named = grow(other[codes.astype(int)], gradient, TreeShape(1), np.array([True]))
    assert named.threshold[0] == 1.0
    assert np.array_equal(named.value, tree.value)


def test_of_too_many_categories_the_strongest_stay() -> None:
    codes = np.repeat(np.arange(10, dtype=np.float32), 3)[:, None]
    gradient = np.where(codes == 7, 3.0, np.where(codes == 2, -2.0, 0.1))
    values, _ = candidates(codes, gradient, TreeShape(bins=2), np.ones(1, np.uint8))
    assert values.tolist() == [2.0, 7.0]


def test_weights_choose_the_feature_and_nan_goes_left() -> None:
    x, gradient = data(8)
    assert grow(x, gradient, TreeShape(1)).feature[0] == 0
    assert grow(x, gradient, TreeShape(1, feature_weights=(0.0, 1.0, 0.0, 0.0))).feature[0] == 1
    x[:50, 0] = np.nan
    tree = grow(x, gradient, TreeShape(1, feature_weights=(1.0, 0.0, 0.0, 0.0)))
    assert (reached(tree, x)[:50] == 0).all()
    with pytest.raises(ValueError, match="feature_weights must be one number a feature, 4; got 2"):
        grow(x, gradient, TreeShape(feature_weights=(1.0, 1.0)))


def test_a_tree_that_may_not_split_says_nothing() -> None:
    x, gradient = data(9, 9)
    for growth in ("oblivious", "greedy"):
        tree = grow(x, gradient, TreeShape(2, growth, min_data=5))  # type: ignore[arg-type]
        assert (tree.feature == -1).all()
        assert (tree.value == 0).all()


def test_equal_gradients_leave_one_value() -> None:
    x, _ = data(10)
    for shape in SHAPES:
        tree = grow(x, np.full((len(x), 2), 1.5), shape)
        np.testing.assert_allclose(said(tree, x), 1.5)


def test_it_refuses_what_does_not_fit() -> None:
    x, gradient = data(11)
    with pytest.raises(ValueError, match="same number of rows"):
        grow(x, gradient[:-1], TreeShape())
