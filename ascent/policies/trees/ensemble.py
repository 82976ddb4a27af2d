"""An additive ensemble of decision trees, F(x) = bias - sum over trees of rate * leaf(x), column by column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from ascent.core.plan import TreeAdam, TreeShape
from ascent.policies.trees import kernels
from ascent.policies.trees.grow import Tree, grow

ARRAYS = ("feature", "threshold", "equal", "value", "count", "rate")


@dataclass(frozen=True)
class Optimiser:
    """Plain gradient descent on some of an ensemble's columns, with a rate that may fall from tree to tree.

    Attributes:
        start, stop: columns start .. stop - 1.
        rate: of the first tree; tree t = 0, 1, ... has rate + min(t / trees, 1) * (final - rate).
        final: where the rate stays in the end; None keeps `rate`.
        trees: over which it moves, >= 1.
    """

    start: int
    stop: int
    rate: float
    final: float | None = None
    trees: int = 1

    def at(self, tree: int) -> float:
        """The rate of a tree."""
        final = self.rate if self.final is None else self.final
        return self.rate + min(tree / self.trees, 1.0) * (final - self.rate)


class Ensemble:
    """Trees of one shape. Leaves hold gradients; each tree's rates [D] are applied when it is read.

    Args:
        outputs: D, numbers that it gives.
        shape: of each tree.
        categorical: [F] True where a feature is a category, coded as a whole number.
        bias: [D] what it says before the first tree; 0 when not given.
        names: [F] what the features are called when trees are printed.
        words: by feature, the names of its categories by their codes.
        adam: moves the columns `adam_columns` by Adam; None is gradient descent in all.
        adam_columns: (start, stop), columns start .. stop - 1; None is all.
    """

    def __init__(
        self,
        outputs: int,
        shape: TreeShape,
        categorical: Sequence[bool],
        bias: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
        words: Mapping[int, Sequence[str]] | None = None,
        adam: TreeAdam | None = None,
        adam_columns: tuple[int, int] | None = None,
    ) -> None:
        if not 1 <= shape.depth <= 12:
            raise ValueError(f"depth must be in [1, 12]; got {shape.depth}.")
        self.shape, self.outputs = shape, outputs
        self.categorical = np.asarray(categorical, bool)
        self.bias = np.zeros(outputs) if bias is None else np.asarray(bias, np.float64)
        if len(self.bias) != outputs:
            raise ValueError(f"bias must be one number an output, {outputs}; got {len(self.bias)}.")
        self.names = tuple(names or (f"x{f}" for f in range(self.features)))
        self.words = dict(words or {})
        self.adam, self.adam_columns = adam, adam_columns or (0, outputs)
        if not 0 <= self.adam_columns[0] < self.adam_columns[1] <= outputs:
            raise ValueError(f"adam_columns must lie in 0 .. {outputs}; got {adam_columns}.")
        self.trees = 0
        self._room(16)

    @property
    def features(self) -> int:
        return len(self.categorical)

    @property
    def oblivious(self) -> bool:
        return self.shape.growth == "oblivious"

    def _room(self, trees: int) -> None:
        """Space for so many trees; what is there is kept."""
        depth = self.shape.depth
        splits, leaves = depth if self.oblivious else (1 << depth) - 1, 1 << depth
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "feature": ((splits,), np.int32),
            "threshold": ((splits,), np.float32),
            "equal": ((splits,), np.uint8),
            "value": ((leaves, self.outputs), np.float32),
            "count": ((leaves,), np.int64),
            "rate": ((self.outputs,), np.float32),
            "move": ((leaves, self.outputs), np.float32),
        }
        if self.adam is not None:
            shapes["scale"] = ((self.outputs,), np.float64)
        old = self.__dict__.get("_arrays", {})
        self._arrays = {name: np.zeros((trees, *size), kind) for name, (size, kind) in shapes.items()}
        for name, array in old.items():
            self._arrays[name][: self.trees] = array[: self.trees]
        self._read = tuple(self._arrays[name] for name in ("feature", "threshold", "equal", "move"))
        self._addresses = kernels.addresses_of(*self._read)

    def array(self, name: str) -> NDArray[Any]:
        """One of feature, threshold, equal [T, S], value [T, L, D], count [T, L], rate [T, D], move [T, L, D]."""
        return self._arrays[name][: self.trees]

    def append(self, tree: Tree, rate: NDArray[np.floating] | Sequence[float]) -> None:
        """Add a tree, whose column d moves the output by -rate[d] times its leaf."""
        if tree.oblivious != self.oblivious or tree.value.shape != (1 << self.shape.depth, self.outputs):
            raise ValueError(f"the tree must have the ensemble's shape {self.shape} and {self.outputs} outputs.")
        if self.trees == len(self._arrays["rate"]):
            self._room(2 * self.trees)
        at = self.trees
        for name in ("feature", "threshold", "equal", "value", "count"):
            self._arrays[name][at] = getattr(tree, name)
        self._arrays["rate"][at] = rate
        self._arrays["move"][at] = -self._arrays["rate"][at] * tree.value
        if self.adam is not None:
            self._arrays["scale"][at] = self._arrays["rate"][at].astype(np.float64) * self.adam.correction(at)
        self.trees += 1

    def step(
        self,
        x: NDArray[np.float32],
        gradient: NDArray[np.floating],
        rate: NDArray[np.floating] | Sequence[float] | Sequence[Optimiser],
        control_variates: float | None = None,
    ) -> Tree:
        """Grow a tree on `gradient` [n, D] at `x` [n, F] and append it; columns that no optimiser has get rate 0."""
        if control_variates is not None:
            gradient = self.calmed(x, gradient, control_variates)
        tree = grow(x, gradient, self.shape, self.categorical)
        self.append(tree, self.rates(rate))
        return tree

    def rates(self, given: NDArray[np.floating] | Sequence[float] | Sequence[Optimiser]) -> NDArray[np.floating]:
        """[D] rates of the next tree."""
        if not any(isinstance(one, Optimiser) for one in given):
            return np.asarray(given, np.float64)
        found = np.zeros(self.outputs)
        for one in given:
            assert isinstance(one, Optimiser)
            if not 0 <= one.start < one.stop <= self.outputs:
                raise ValueError(f"an optimiser's columns must lie in 0 .. {self.outputs}; got {one}.")
            found[one.start : one.stop] = one.at(self.trees)
        return found

    def calmed(self, x: NDArray[np.float32], gradient: NDArray[np.floating], decay: float) -> NDArray[np.float64]:
        """The gradient less what a decaying mean M of earlier trees' leaves explains: G - alpha (M - mean M).

        alpha = cov(G, M) / var(M) in each column, cut to [-1, 1].
        """
        found = np.asarray(gradient, np.float64)
        if not self.trees:
            return found
        leaf = self.leaves(x)
        mean = np.zeros_like(found)
        for t in range(self.trees):
            mean = decay * mean + (1 - decay) * self._arrays["value"][t][leaf[t]].astype(np.float64)
        mean = mean / np.sqrt(1 - decay**self.trees)
        mean -= mean.mean(0)
        variance = (mean**2).mean(0)
        covariance = ((found - found.mean(0)) * mean).mean(0)
        alpha = np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 0)
        return found - np.clip(alpha, -1.0, 1.0) * mean

    def leaves(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """[T, n] leaf that each sample reaches in each tree."""
        splits = (self.array("feature"), self.array("threshold"), self.array("equal"))
        return kernels.leaves(np.ascontiguousarray(x, np.float32), self.shape.depth, self.oblivious, *splits)

    def moments(self, samples: int) -> NDArray[np.float64] | None:
        """[2, n, D] Adam's moments of so many samples before the first tree; gradient descent has none."""
        return None if self.adam is None else np.zeros((2, samples, self.outputs))

    def add(
        self,
        x: NDArray[np.float32],
        out: NDArray[np.float64],
        first: int = 0,
        last: int | None = None,
        moments: NDArray[np.float64] | None = None,
    ) -> None:
        """`out` [n, C] += the first C columns of trees first .. last - 1, one after the other.

        Args:
            moments: [2, n, C] of Adam before tree `first`, which the trees move along; None reads the earlier trees for
                them.
        """
        x = np.ascontiguousarray(x, np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.categorical):
            raise ValueError(f"x must be [n, {self.features}]; got {list(x.shape)}.")
        last = self.trees if last is None else last
        if self.adam is None:
            kernels.add(x, first, last, self.shape.depth, self.oblivious, *self._read, out, self._addresses)
            return
        if moments is None:
            moments = np.zeros((2, *out.shape))
            if first:
                self.add(x, np.zeros_like(out), 0, first, moments)
        settings = np.array([*self.adam.betas, self.adam.eps])
        arrays = (*self._read, self._arrays["value"], self._arrays["scale"])
        shape = (self.shape.depth, self.oblivious)
        kernels.add_adam(x, first, last, *shape, *arrays, self.adam_columns, settings, moments, out)

    def predict(
        self,
        x: NDArray[np.float32],
        columns: int | None = None,
        trees: int | None = None,
        moments: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """[n, D] outputs at `x` [n, F]; of the first `columns`, or after the first `trees`, where given.

        `moments`, as `moments(n)` gives them, become those after the last tree.
        """
        out = np.empty((len(x), self.outputs if columns is None else columns))
        out[:] = self.bias[: out.shape[1]]
        self.add(x, out, 0, trees, moments)
        return out

    def fit(
        self,
        x: NDArray[np.float32],
        target: NDArray[np.floating],
        trees: int,
        rate: NDArray[np.floating] | Sequence[float] | Sequence[Optimiser],
        batch: int | None = None,
    ) -> float:
        """Regression on `target` [n, D]: so many trees on the gradient F(x) - target, of one batch after the other.

        Returns:
            The loss sqrt(1/2 mean_i sum_d error^2) after the last tree.
        """
        x, target = np.ascontiguousarray(x, np.float32), np.asarray(target, np.float64)
        size = len(x) if batch is None else min(batch, len(x))
        moments = self.moments(len(x))
        seen = self.predict(x, moments=moments)
        for number in range(trees):
            rows = slice(None) if size == len(x) else np.arange(number * size, (number + 1) * size) % len(x)
            self.step(x[rows], seen[rows] - target[rows], rate)
            self.add(x, seen, self.trees - 1, moments=moments)
        return float(np.sqrt(0.5 * ((seen - target) ** 2).sum(1).mean()))

    def state(self) -> dict[str, NDArray[Any]]:
        """The trees as arrays, and the bias."""
        return {"bias": self.bias} | {name: self.array(name).copy() for name in ARRAYS}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `state`."""
        fits = state["value"].shape[1:] == (1 << self.shape.depth, self.outputs)
        if not fits or state["feature"].shape[1:] != self._arrays["feature"].shape[1:]:
            raise ValueError(f"the saved trees have another shape than {self.shape} with {self.outputs} outputs.")
        self.trees = 0
        self.bias = np.asarray(state["bias"], np.float64)
        self._room(max(16, len(state["rate"])))
        self.trees = len(state["rate"])
        for name in ARRAYS:
            self.array(name)[:] = state[name]
        self.array("move")[:] = -self.array("rate")[:, None] * self.array("value")
        if self.adam is not None:
            corrections = np.array([self.adam.correction(tree) for tree in range(self.trees)])
            self.array("scale")[:] = self.array("rate").astype(np.float64) * corrections[:, None]

    def save(self, path: Path) -> None:
        """One safetensors file, which also says what the trees are."""
        said = {
            "shape": vars(self.shape),
            "outputs": self.outputs,
            "categorical": self.categorical.tolist(),
            "names": self.names,
            "words": {str(feature): list(words) for feature, words in self.words.items()},
        }
        if self.adam is not None:
            said["adam"] = {**vars(self.adam), "columns": self.adam_columns}
        save_file(self.state(), path, {"ensemble": json.dumps(said)})

    @classmethod
    def load(cls, path: Path) -> Ensemble:
        """The ensemble of a file that `save` wrote."""
        with safe_open(path, "numpy") as file:
            said = json.loads((file.metadata() or {}).get("ensemble", "null"))
            if said is None:
                raise ValueError(f"{path} holds no ensemble of trees.")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        weights = said["shape"]["feature_weights"]
        shape = TreeShape(**{**said["shape"], "feature_weights": None if weights is None else tuple(weights)})
        words = {int(feature): listed for feature, listed in said["words"].items()}
        moved = said.get("adam")
        adam = None if moved is None else TreeAdam(tuple(moved["betas"]), moved["eps"])
        columns = None if moved is None else tuple(moved["columns"])
        made = cls(said["outputs"], shape, said["categorical"], None, said["names"], words, adam, columns)
        made.load_state(state)
        return made
