"""Trees are numerically those of the published package `gbrl` (extra `trees`)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ascent.core.plan import TreeAdam, TreeShape
from ascent.policies.trees.ensemble import Ensemble, Optimiser

published = pytest.importorskip("gbrl.models.gbt", reason="the published package gbrl is not installed")

KINDS = list(itertools.product(("oblivious", "greedy"), ("cosine", "l2"), ("quantile", "uniform"), (0, 5)))


def model(
    features: int, outputs: int, shape: TreeShape, optimisers: list[dict[str, Any]], control_variates: bool = False
) -> Any:
    struct = {
        "max_depth": shape.depth,
        "n_bins": shape.bins,
        "min_data_in_leaf": shape.min_data,
        "par_th": 10**9,
        "grow_policy": shape.growth,
    }
    params: dict[str, Any] = {
        "control_variates": control_variates,
        "split_score_func": shape.score,
        "generator_type": shape.candidates,
    }
    if shape.feature_weights is not None:
        params["feature_weights"] = np.array(shape.feature_weights, np.float32)
    made = published.GBTModel(struct, features, outputs, optimisers, params, 0, "cpu")
    made.set_bias(np.zeros(outputs, np.float32))
    return made


def sgd(start: int, stop: int, rate: float, **more: Any) -> dict[str, Any]:
    return {"algo": "SGD", "init_lr": rate, "start_idx": start, "stop_idx": stop, **more}


def said(made: Any, x: NDArray[Any]) -> NDArray[Any]:
    found = np.asarray(made.learner.predict(x, requires_grad=False, tensor=False))
    return found.reshape(len(x), -1)


def data(seed: int, n: int = 400, features: int = 5, outputs: int = 3) -> tuple[NDArray[Any], ...]:
    draw = np.random.default_rng(seed)
    x, fresh = (draw.normal(size=(size, features)).astype(np.float32) for size in (n, 100))
    gradient = (draw.normal(size=(n, outputs)) + np.tanh(x[:, :1] + x[:, 1:2])).astype(np.float32)
    return x, gradient, fresh


@pytest.mark.parametrize(("growth", "score", "candidates", "least"), KINDS)
def test_trees_of_numbers(growth: Any, score: Any, candidates: Any, least: int) -> None:
    """Five trees on fresh gradients; predictions where they grew and elsewhere, to float32's rounding."""
    shape = TreeShape(4, growth, score, candidates, 64, least)
    theirs = model(5, 3, shape, [sgd(0, 3, 0.3)])
    ours = Ensemble(3, shape, [False] * 5)
    for seed in range(5):
        x, gradient, fresh = data(seed)
        theirs.learner.step(x, gradient.copy())
        ours.step(x, gradient, [0.3] * 3)
    for points in (x, fresh):
        np.testing.assert_allclose(ours.predict(points), said(theirs, points), atol=3e-6)


@pytest.mark.parametrize("growth", ["oblivious", "greedy"])
def test_trees_of_words_and_numbers(growth: Any) -> None:
    draw = np.random.default_rng(3)
    numbers = draw.normal(size=(300, 2)).astype(np.float32)
    codes = draw.integers(0, 6, (300, 2))
    gradient = (draw.normal(size=(300, 2)) + 2 * (codes[:, :1] == 4) - (codes[:, 1:] == 2)).astype(np.float32)
    words = np.array([f"word {code}" for code in range(6)])[codes]
    shape = TreeShape(4, growth, bins=64)
    theirs = model(4, 2, shape, [sgd(0, 2, 1.0)])
    mixed = np.concatenate([numbers.astype(object), words.astype(object)], 1)
    theirs.learner.step(mixed, gradient.copy())
    ours = Ensemble(2, shape, [False, False, True, True])
    x = np.concatenate([numbers, codes], 1).astype(np.float32)
    ours.step(x, gradient, [1.0, 1.0])
    np.testing.assert_allclose(ours.predict(x), said(theirs, mixed), atol=2e-6)


def test_feature_weights() -> None:
    x, gradient, fresh = data(0)
    shape = TreeShape(3, bins=64, feature_weights=(0.2, 1.0, 0.5, 1.0, 0.0))
    theirs = model(5, 3, shape, [sgd(0, 3, 1.0)])
    ours = Ensemble(3, shape, [False] * 5)
    theirs.learner.step(x, gradient.copy())
    ours.step(x, gradient, [1.0] * 3)
    np.testing.assert_allclose(ours.predict(fresh), said(theirs, fresh), atol=2e-6)


def test_two_optimisers_and_a_linear_schedule() -> None:
    shape = TreeShape(3, bins=64)
    falling = sgd(0, 2, 0.5, scheduler="linear", stop_lr=0.1, T=10)
    theirs = model(5, 3, shape, [falling, sgd(2, 3, 0.05)])
    ours = Ensemble(3, shape, [False] * 5)
    optimisers = [Optimiser(0, 2, 0.5, 0.1, 10), Optimiser(2, 3, 0.05)]
    for seed in range(12):
        x, gradient, fresh = data(seed)
        theirs.learner.step(x, gradient.copy())
        ours.step(x, gradient, optimisers)
    np.testing.assert_allclose(ours.predict(fresh), said(theirs, fresh), atol=5e-6)


@pytest.mark.parametrize("growth", ["oblivious", "greedy"])
def test_adam_of_some_columns(growth: Any) -> None:
    """Adam with a falling rate on two columns, gradient descent on the third."""
    shape = TreeShape(3, growth, bins=64)
    falling = sgd(0, 2, 0.05, scheduler="linear", stop_lr=0.01, T=10) | {"algo": "Adam", "beta_1": 0.8, "beta_2": 0.95}
    theirs = model(5, 3, shape, [{**falling, "eps": 1e-3}, sgd(2, 3, 0.3)])
    ours = Ensemble(3, shape, [False] * 5, adam=TreeAdam((0.8, 0.95), 1e-3), adam_columns=(0, 2))
    for seed in range(12):
        x, gradient, fresh = data(seed)
        theirs.learner.step(x, gradient.copy())
        ours.step(x, gradient, [Optimiser(0, 2, 0.05, 0.01, 10), Optimiser(2, 3, 0.3)])
    for points in (x, fresh):
        np.testing.assert_allclose(ours.predict(points), said(theirs, points), atol=5e-6)


def test_control_variates_of_one_output() -> None:
    """With several outputs the released code adds the trees' mean into other samples' places; one output is sound."""
    shape = TreeShape(3, bins=64)
    theirs = model(5, 1, shape, [sgd(0, 1, 0.1)], control_variates=True)
    ours = Ensemble(1, shape, [False] * 5)
    for seed in range(6):
        x, gradient, fresh = data(seed, outputs=1)
        theirs.learner.step(x, gradient.copy())
        ours.step(x, gradient, [0.1], control_variates=0.9)
    np.testing.assert_allclose(ours.predict(fresh), said(theirs, fresh), atol=5e-6)
