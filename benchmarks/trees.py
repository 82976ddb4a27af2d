"""Growing and reading trees against the published package `gbrl`, on the same data in one run.

    python benchmarks/trees.py [--repeats 7] [--output trees.json]

First the gate: both must predict the same, else nothing is timed. Then each side grows 100 trees, one on each of 100
minibatches (`fit`), and reads them at a whole collection and at the few observations of one step of acting
(`predict`); the sides take turns. Medians of the repeats and their ratio; above 1 this library is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ascent.core.plan import TreeShape
from ascent.policies.trees import kernels
from ascent.policies.trees.ensemble import Ensemble

TREES = 100
# samples, features, outputs, growth, score
SIZES = (
    (64, 4, 3, "oblivious", "cosine"),
    (512, 4, 3, "oblivious", "cosine"),
    (512, 27, 7, "oblivious", "cosine"),
    (512, 27, 7, "greedy", "l2"),
    (2048, 8, 3, "oblivious", "cosine"),
)
SAME = 1e-6  # of values of size RATE in float32
RATE, GATE = 0.05, 10
NOISE, SHAKES = 1e-5, 40  # of the gradient; float32 sums of thousands err by about as much


def theirs(features: int, outputs: int, shape: TreeShape) -> Any:
    """An empty model of the published package; it may use as many threads as this process has cores."""
    from gbrl.models.gbt import GBTModel

    struct = {
        "max_depth": shape.depth,
        "n_bins": shape.bins,
        "min_data_in_leaf": shape.min_data,
        "par_th": 10,
        "grow_policy": shape.growth,
    }
    params = {
        "control_variates": False,
        "split_score_func": shape.score,
        "generator_type": shape.candidates,
    }
    optimiser = {"algo": "SGD", "init_lr": RATE, "start_idx": 0, "stop_idx": outputs}
    model = GBTModel(struct, features, outputs, [optimiser], params, 0, "cpu")
    model.set_bias(np.zeros(outputs, np.float32))
    return model


def data(samples: int, features: int, outputs: int, trees: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observations [trees, samples, features] and gradients that depend on them."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(trees, samples, features)).astype(np.float32)
    gradient = draw.normal(size=(trees, samples, outputs)) + np.tanh(x[..., :1] - x[..., 1:2])
    return x, gradient.astype(np.float32)


def gate(x: NDArray[np.float32], gradient: NDArray[np.float32], shape: TreeShape) -> tuple[float, int]:
    """Largest difference of what single trees say where they were grown, and how many trees were left out of it.

    Where they were grown, because splits that divide these samples alike score alike: rounding says which of them is
    taken, and they differ elsewhere only. Left out are trees that hang on the last bits of the published package's
    float32 sums: some change of the gradient by NOISE of itself gives another tree here too.

    Raises:
        AssertionError: another tree differs, or more than a quarter were left out: the sides do not do the same work.
    """
    away, unequal = 0.0, 0
    for rows, wanted in zip(x, gradient, strict=True):
        model = theirs(rows.shape[1], wanted.shape[1], shape)
        model.learner.step(rows, wanted.copy())
        found = np.asarray(model.learner.predict(rows, requires_grad=False, tensor=False)).reshape(wanted.shape)
        off = float(np.abs(said(rows, wanted, shape) - found).max())
        if off > SAME and unstable(rows, wanted, shape):
            unequal += 1
        else:
            away = max(away, off)
    if away > SAME or unequal > len(x) / 4:
        raise AssertionError(
            f"trees of {shape} at {x.shape} differ from the published package's by {away:.2g}, and {unequal} more hang "
            "on rounding."
        )
    return away, unequal


def said(x: NDArray[np.float32], gradient: NDArray[np.floating], shape: TreeShape) -> NDArray[np.float64]:
    """What one tree says where it was grown."""
    made = Ensemble(gradient.shape[1], shape, [False] * x.shape[1])
    made.step(x, gradient, [RATE] * gradient.shape[1])
    return made.predict(x)


def unstable(x: NDArray[np.float32], gradient: NDArray[np.float32], shape: TreeShape) -> bool:
    """Whether a change of the gradient that float32 sums cannot tell changes the tree."""
    draw = np.random.default_rng(0)
    plain = said(x, gradient, shape)
    for _ in range(SHAKES):
        shaken = gradient * (1 + NOISE * draw.normal(size=gradient.shape))
        if np.abs(said(x, shaken, shape) - plain).max() > SAME:
            return True
    return False


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it gave."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def measured(size: tuple[int, int, int, str, str], repeats: int, trees: int = TREES) -> dict[str, Any]:
    """Gate and times of one size.

    Raises:
        AssertionError: the two sides do not predict the same.
    """
    samples, features, outputs, growth, score = size
    shape = TreeShape(4, growth, score)  # type: ignore[arg-type]
    x, gradient = data(samples, features, outputs, trees)

    def grow_theirs() -> Any:
        model = theirs(features, outputs, shape)
        for rows, wanted in zip(x, gradient, strict=True):
            model.learner.step(rows, wanted.copy())
        return model

    def grow_ours() -> Ensemble:
        made = Ensemble(outputs, shape, [False] * features)
        for rows, wanted in zip(x, gradient, strict=True):
            made.step(rows, wanted, [RATE] * outputs)
        return made

    away, unequal = gate(x[:GATE], gradient[:GATE], shape)
    model, made = grow_theirs(), grow_ours()
    whole, few = np.ascontiguousarray(x[:8].reshape(-1, features)[:2048]), np.ascontiguousarray(x[0, :8])

    def read_theirs(points: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model.learner.predict(points, requires_grad=False, tensor=False)
        return found

    times: dict[str, tuple[list[float], list[float]]] = {}
    works: dict[str, tuple[Callable[[], Any], Callable[[], Any], int]] = {
        "fit": (grow_theirs, grow_ours, 1),
        "predict 2048": (lambda: read_theirs(whole), lambda: made.predict(whole), 5),
        "predict 8": (lambda: read_theirs(few), lambda: made.predict(few), 50),
    }
    for name, (other, own, calls) in works.items():
        times[name] = ([], [])
        for _ in range(repeats):
            for place, work in enumerate((other, own)):
                times[name][place].append(min(timed(work)[0] for _ in range(calls)))
    rows = {}
    for name, (other_times, own_times) in times.items():
        each = trees if name == "fit" else 1
        a, b = statistics.median(other_times) / each, statistics.median(own_times) / each
        rows[name] = {"gbrl_ms": 1e3 * a, "ascent_ms": 1e3 * b, "ratio": a / b}
    return {"size": list(size), "trees": trees, "largest_difference": away, "unequal": unequal, **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--trees", type=int, default=TREES)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    import gbrl

    found = []
    for size in SIZES:
        found.append(measured(size, given.repeats, given.trees))
        row = found[-1]
        words = "  ".join(
            f"{name} {row[name]['gbrl_ms']:.3f} / {row[name]['ascent_ms']:.3f} ms = {row[name]['ratio']:.1f}x"
            for name in ("fit", "predict 2048", "predict 8")
        )
        print(f"{size}: differ by {row['largest_difference']:.1g}, {row['unequal']} on rounding  {words}", flush=True)
    result = {"gbrl": gbrl.__version__, "compiled": kernels.library() is not None, "sizes": found}
    if given.output is not None:
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
