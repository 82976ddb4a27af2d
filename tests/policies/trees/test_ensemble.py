"""Several trees: rates by columns, the sum, saving, Shapley values, text and C."""

from __future__ import annotations

import ctypes
import itertools
import math
import shutil
import subprocess
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ascent.core.plan import TreeAdam, TreeShape
from ascent.policies.trees import kernels
from ascent.policies.trees.ensemble import Ensemble, Optimiser
from ascent.policies.trees.export import header, text
from ascent.policies.trees.policy import distilled
from ascent.policies.trees.shap import shapley

GROWTHS = ["oblivious", "greedy"]


def points(seed: int, n: int = 120) -> NDArray[np.float32]:
    """Three numbers and a category of four words."""
    draw = np.random.default_rng(seed)
    return np.concatenate([draw.normal(size=(n, 3)), draw.integers(0, 4, (n, 1))], 1).astype(np.float32)


def grown(growth: Any = "oblivious", trees: int = 6, depth: int = 3, min_data: int = 0) -> Ensemble:
    shape = TreeShape(depth, growth, bins=20, min_data=min_data)
    words = {3: ("wall", "key", "door", "goal")}
    made = Ensemble(2, shape, [False] * 3 + [True], [0.5, -2.0], ["left", "right", "speed", "cell"], words)
    for seed in range(trees):
        x = points(seed)
        noise = np.random.default_rng(seed + 100).normal(size=(len(x), 2))
        made.step(x, noise + (x[:, 3:] == 2) * 2 + x[:, :1], [0.3, 0.05])
    return made


@pytest.mark.parametrize("growth", GROWTHS)
def test_it_is_the_bias_less_the_rates_times_the_leaves(growth: Any) -> None:
    made, x = grown(growth), points(50)
    leaf = made.leaves(x)
    expected = np.tile([0.5, -2.0], (len(x), 1))
    for tree in range(made.trees):
        expected -= np.float32([0.3, 0.05]) * made.array("value")[tree][leaf[tree]]
    np.testing.assert_allclose(made.predict(x), expected, atol=1e-6)
    np.testing.assert_array_equal(made.predict(x, columns=1), made.predict(x)[:, :1])
    assert (Ensemble(2, made.shape, made.categorical, [1.0, 2.0]).predict(x) == [1.0, 2.0]).all()


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("compiled", [True, False])
def test_tree_by_tree_is_all_at_once_bit_for_bit(growth: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = grown(growth, 80), points(51)
    whole = made.predict(x)
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    kept = made.predict(x, trees=0)
    for tree in range(made.trees):
        made.add(x, kept, tree, tree + 1)
    assert np.array_equal(kept, whole)
    assert np.array_equal(made.predict(x), whole)


def test_one_step_with_pure_leaves_is_exact_functional_gradient_descent() -> None:
    """Every sample in a leaf of its own: F <- F - rate G, column by column."""
    x = np.arange(16, dtype=np.float32)[:, None]
    gradient = np.random.default_rng(0).normal(size=(16, 3))
    made = Ensemble(3, TreeShape(12, "greedy", bins=16), [False])
    before = made.predict(x)
    made.step(x, gradient, [Optimiser(0, 2, 0.1), Optimiser(2, 3, 0.7)])
    np.testing.assert_allclose(made.predict(x), before - [0.1, 0.1, 0.7] * gradient, rtol=1e-5, atol=1e-7)


def test_adam_with_pure_leaves_is_adam_on_the_functions_values() -> None:
    """Every sample in a leaf of its own: its outputs move as torch's Adam moves them, and the third by descent."""
    x = np.arange(16, dtype=np.float32)[:, None]
    made = Ensemble(3, TreeShape(12, "greedy", bins=16), [False], adam=TreeAdam((0.8, 0.9), 1e-4), adam_columns=(0, 2))
    value = torch.zeros(16, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([value], betas=(0.8, 0.9), lr=0.05, eps=0.0)
    descended = np.zeros(16)
    for seed in range(5):
        gradient = np.random.default_rng(seed).normal(size=(16, 3)).astype(np.float32)
        made.step(x, gradient, [0.05, 0.05, 0.7])
        # Here eps joins the root before its bias is corrected, in torch after.
        optimiser.param_groups[0]["eps"] = 1e-4 / (1 - 0.9 ** (seed + 1)) ** 0.5
        value.grad = torch.from_numpy(gradient[:, :2].astype(np.float64))
        optimiser.step()
        descended -= 0.7 * gradient[:, 2]
    np.testing.assert_allclose(made.predict(x)[:, :2], value.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(made.predict(x)[:, 2], descended, rtol=1e-6)


def under_adam(growth: Any = "oblivious") -> Ensemble:
    """Adam on the second of two columns."""
    plain = grown(growth, 20)
    made = Ensemble(2, plain.shape, plain.categorical, [0.5, -2.0], adam=TreeAdam(), adam_columns=(1, 2))
    made.load_state(plain.state())
    return made


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("compiled", [True, False])
def test_adam_by_a_plain_loop(growth: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sample by sample; tree by tree it is the same bit for bit, compiled or not, with moments kept or read again."""
    made, x = under_adam(growth), points(51, 40)
    whole = made.predict(x)
    leaf, values = made.leaves(x), made.array("value").astype(np.float64)
    for sample in range(len(x)):
        output, m, v = -2.0, 0.0, 0.0
        for tree in range(made.trees):
            g = values[tree, leaf[tree, sample], 1]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            rate = float(np.float32(0.05)) * math.sqrt(1 - 0.999 ** (tree + 1)) / (1 - 0.9 ** (tree + 1))
            output -= rate * m / (math.sqrt(v) + 1e-8)
        assert whole[sample, 1] == pytest.approx(output, rel=1e-12)
    assert np.array_equal(whole[:, 0], grown(growth, 20).predict(x)[:, 0])
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    moments = made.moments(len(x))
    kept, again = made.predict(x, trees=0), made.predict(x, trees=0)
    for tree in range(made.trees):
        made.add(x, kept, tree, tree + 1, moments)
        made.add(x, again, tree, tree + 1)
    assert np.array_equal(kept, whole)
    assert np.array_equal(again, whole)
    assert np.array_equal(made.predict(x, columns=1), whole[:, :1])
    made.save(tmp_path / "trees.safetensors")
    assert np.array_equal(Ensemble.load(tmp_path / "trees.safetensors").predict(x), whole)


def test_adam_fits_and_refuses_what_adds_up() -> None:
    x = points(3)
    target = np.stack([np.sin(x[:, 0]), x[:, 3]], 1)
    made = Ensemble(2, TreeShape(4), [False] * 3 + [True], adam=TreeAdam())
    loss = made.fit(x, target, 60, [0.05, 0.05])
    assert loss == pytest.approx(np.sqrt(0.5 * ((made.predict(x) - target) ** 2).sum(1).mean()))
    assert loss < 0.5 * np.sqrt(0.5 * (target**2).sum(1).mean())
    with pytest.raises(ValueError, match="Shapley values add up over trees"):
        shapley(made, x)
    with pytest.raises(ValueError, match="a C header adds up trees"):
        header(made)
    with pytest.raises(ValueError, match=r"adam_columns must lie in 0 \.\. 2; got \(1, 3\)"):
        Ensemble(2, TreeShape(4), [False], adam=TreeAdam(), adam_columns=(1, 3))


def test_a_rate_of_zero_leaves_its_columns_alone() -> None:
    made, x = grown(), points(52)
    before = made.predict(x)
    made.step(x, np.ones((len(x), 2)) * x[:, :1], [0.0, 0.1])
    assert np.array_equal(made.predict(x)[:, 0], before[:, 0])
    assert not np.array_equal(made.predict(x)[:, 1], before[:, 1])
    # Columns that no optimiser has stay too.
    before = made.predict(x)
    made.step(x, np.ones((len(x), 2)) * x[:, :1], [Optimiser(0, 1, 0.1)])
    assert np.array_equal(made.predict(x)[:, 1], before[:, 1])


def test_a_linear_rate_by_hand() -> None:
    falling = Optimiser(0, 1, 0.5, 0.1, 4)
    assert [falling.at(tree) for tree in range(6)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
    assert Optimiser(0, 1, 0.5).at(99) == 0.5
    with pytest.raises(ValueError, match=r"columns must lie in 0 \.\. 2"):
        grown().rates([Optimiser(1, 3, 0.1)])


def test_fitting_lowers_the_loss_and_reports_it() -> None:
    x = points(3)
    target = np.stack([np.sin(x[:, 0]), x[:, 3]], 1)
    made = Ensemble(2, TreeShape(4), [False] * 3 + [True])
    losses = [made.fit(x, target, 10, [0.3, 0.3]) for _ in range(5)]
    assert losses == sorted(losses, reverse=True)
    error = made.predict(x) - target
    assert losses[-1] == pytest.approx(np.sqrt(0.5 * (error**2).sum(1).mean()))
    assert losses[-1] < 0.1
    batched = Ensemble(2, TreeShape(4), [False] * 3 + [True])
    assert batched.fit(x, target, 60, [0.3, 0.3], batch=50) < 0.3


def test_control_variates_leave_a_gradient_that_is_not_like_the_trees() -> None:
    """One tree: M is 0.1 / sqrt(0.1) of its leaves; alpha is M's share in the gradient by least squares."""
    x = points(4)
    made = Ensemble(1, TreeShape(3), [False] * 3 + [True])
    gradient = x[:, :1].astype(np.float64)
    assert np.array_equal(made.calmed(x, gradient, 0.9), gradient)
    made.step(x, gradient, [0.1])
    leaf = made.array("value")[0][made.leaves(x)[0]].astype(np.float64)
    momentum = 0.1 * leaf / np.sqrt(0.1)
    momentum -= momentum.mean(0)
    alpha = float(np.clip((gradient - gradient.mean()).T @ momentum / (momentum.T @ momentum), -1, 1)[0, 0])
    np.testing.assert_allclose(made.calmed(x, gradient, 0.9), gradient - alpha * momentum, rtol=1e-10)


@pytest.mark.parametrize("growth", GROWTHS)
def test_what_is_saved_comes_back(growth: Any, tmp_path: Path) -> None:
    made, x = grown(growth), points(53)
    made.save(tmp_path / "trees.safetensors")
    again = Ensemble.load(tmp_path / "trees.safetensors")
    assert np.array_equal(again.predict(x), made.predict(x))
    assert (again.shape, again.names, again.words[3][2]) == (made.shape, made.names, "door")
    # It can go on growing, the same.
    for one in (made, again):
        one.step(x, x[:, :2], [0.1, 0.1])
    assert np.array_equal(again.predict(x), made.predict(x))
    with pytest.raises(ValueError, match="another shape"):
        Ensemble(3, made.shape, made.categorical).load_state(made.state())


@pytest.mark.parametrize("growth", GROWTHS)
@pytest.mark.parametrize("min_data", [0, 20])
def test_shapley_values_are_the_exact_ones(growth: Any, min_data: int) -> None:
    """Against the definition: every set of known features, every order's weight; depth 3 repeats features on a path."""
    made, x = grown(growth, 4, 3, min_data), points(54, 7)

    def game(tree: int, known: frozenset[int], row: NDArray[np.float32], level: int = 0, node: int = 0) -> Any:
        if level == made.shape.depth:
            return made.array("move")[tree, node].astype(np.float64)
        at = level if made.oblivious else (1 << level) - 1 + node
        f = int(made.array("feature")[tree, at])
        if f < 0:
            return game(tree, known, row, level + 1, 2 * node)
        value, equal = made.array("threshold")[tree, at], made.array("equal")[tree, at]
        if f in known:
            right = row[f] == value if equal else row[f] > value
            return game(tree, known, row, level + 1, 2 * node + int(right))
        counts = made.array("count")[tree].reshape(1 << (level + 1), -1).sum(1)[2 * node : 2 * node + 2]
        parts = counts / counts.sum() if counts.sum() else np.array([0.5, 0.5])
        return sum(parts[side] * game(tree, known, row, level + 1, 2 * node + side) for side in (0, 1))

    values, nothing = shapley(made, x)
    np.testing.assert_allclose(nothing + values.sum(1), made.predict(x), atol=1e-9)
    for place, f in itertools.product(range(len(x)), range(4)):
        others = [other for other in range(4) if other != f]
        expected = np.zeros(2)
        for size in range(4):
            for chosen in itertools.combinations(others, size):
                weight = factorial(size) * factorial(3 - size) / factorial(4)
                for tree in range(made.trees):
                    with_it = game(tree, frozenset(chosen) | {f}, x[place])
                    expected += weight * (with_it - game(tree, frozenset(chosen), x[place]))
        np.testing.assert_allclose(values[place, f], expected, atol=1e-9)


def test_a_tree_in_words() -> None:
    made = Ensemble(1, TreeShape(1), [True], None, ["cell"], {0: ("wall", "key")})
    codes = np.array([[0], [0], [1]], np.float32)
    made.step(codes, np.array([[1.0], [1.0], [-2.0]]), [0.5])
    assert text(made, 0).splitlines() == [
        "tree 0, rates 0.5",
        '  cell = "wall"?',
        "    yes:",
        "      [+1] of 2",
        "    no:",
        "      [-2] of 1",
    ]
    with pytest.raises(ValueError, match=r"tree must be in 0 \.\. 0"):
        text(made, 1)


@pytest.mark.parametrize("growth", GROWTHS)
def test_the_header_compiles_and_says_the_same(growth: Any, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    made, x = grown(growth), points(55)
    (tmp_path / "policy.h").write_text(header(made))
    source = '#include "policy.h"\nvoid run(const float *x, double *out) { policy(x, out); }\n'
    (tmp_path / "run.c").write_text(source)
    command = [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "run.c", "-o", "run.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "run.so"))
    out = np.zeros_like(made.predict(x))
    for row, place in zip(x, out, strict=True):
        library.run(ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(place.ctypes.data))
    assert np.array_equal(out, made.predict(x))
    with pytest.raises(ValueError, match="C identifier"):
        header(made, "my policy")


def test_a_student_imitates_with_fewer_trees() -> None:
    teacher, x = grown(trees=60), points(56, 400)
    student = distilled(teacher, x, 30)
    assert student.trees == 30
    away = student.predict(x) - teacher.predict(x)
    spread = teacher.predict(x) - teacher.predict(x).mean(0)
    assert (away**2).mean() < 0.05 * (spread**2).mean()


def test_it_refuses_what_does_not_fit() -> None:
    made = grown()
    with pytest.raises(ValueError, match=r"x must be \[n, 4\]"):
        made.predict(points(0)[:, :3])
    with pytest.raises(ValueError, match=r"depth must be in \[1, 12\]"):
        Ensemble(1, TreeShape(13), [False])
    with pytest.raises(ValueError, match="bias must be one number an output"):
        Ensemble(2, TreeShape(), [False], [0.0])
