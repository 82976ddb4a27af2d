"""How a method walks over a collection and how it moves parameters: data that the loop reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ascent.core.part import Clock


@dataclass(frozen=True)
class Linear:
    """A number that moves linearly with the run's progress from `start` to `end`."""

    start: float
    end: float = 0.0

    def at(self, clock: Clock) -> float:
        return self.start + (self.end - self.start) * min(max(clock.progress, 0.0), 1.0)


@dataclass(frozen=True)
class Falling:
    """A number that falls by `fall` with every optimiser step from `start` until it reaches `least`."""

    start: float
    fall: float
    least: float = 0.0

    def at(self, clock: Clock) -> float:
        return max(self.start - self.fall * clock.step, self.least)


@dataclass(frozen=True)
class Switch:
    """A number that is `before` until the share `when` of the run is done, and `after` from then on."""

    before: float
    after: float
    when: float = 0.5

    def at(self, clock: Clock) -> float:
        return self.before if clock.progress < self.when else self.after


@dataclass(frozen=True)
class Ramp:
    """A number that moves from `start` to `end` between two shares of the run: linearly, or in `stairs` equal steps."""

    start: float
    end: float
    since: float = 0.0
    until: float = 1.0
    stairs: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.since < self.until <= 1:
            raise ValueError(f"since and until must be 0 <= since < until <= 1; got {self.since!r} and {self.until!r}.")
        if self.stairs is not None and self.stairs < 1:
            raise ValueError(f"stairs must be an integer >= 1 or None; got {self.stairs!r}.")

    def at(self, clock: Clock) -> float:
        done = min(max((clock.progress - self.since) / (self.until - self.since), 0.0), 1.0)
        if self.stairs is not None:
            done = int(done * self.stairs + 1e-9) / self.stairs
        return self.start + (self.end - self.start) * done


Number = float | Linear | Falling | Switch | Ramp


def at(number: Number, clock: Clock) -> float:
    """The value of a constant or a schedule now."""
    return number.at(clock) if isinstance(number, Linear | Falling | Switch | Ramp) else number


@dataclass(frozen=True)
class Stop:
    """Ends the passes over a collection when a metric of an update exceeds `above`.

    `when="before"` drops the update that exceeds; `"after"` takes its step and then ends.
    """

    metric: str
    above: float
    when: Literal["before", "after"] = "before"


@dataclass(frozen=True)
class Plan:
    """Walks over one collection.

    Attributes:
        passes: times that the collection is walked (epochs), >= 1.
        minibatches: updates (optimiser steps) per pass, >= 1.
        unit: what is shuffled and dealt: `row` keeps streams whole, `decision` deals single decisions,
            `group` keeps the rows of a group in one update.
        stop: early end of the walk, or None.
    """

    passes: int = 1
    minibatches: int = 1
    unit: Literal["row", "decision", "group"] = "row"
    stop: Stop | None = None

    def __post_init__(self) -> None:
        for name in ("passes", "minibatches"):
            number = self.__dict__[name]
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} must be an integer >= 1; got {number!r}.")


@dataclass(frozen=True)
class Adam:
    """Adam (AdamW with `weight_decay` > 0), gradient clipped by global norm.

    Attributes:
        learning_rate: constant or schedule, > 0.
        betas: decay of the two moment estimates, each in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled decay per step and unit learning rate.
        max_gradient_norm: clip to this global norm; None does not clip.
        warmup: first steps over which the rate rises linearly from 0.
    """

    learning_rate: Number = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    max_gradient_norm: float | None = 1.0
    warmup: int = 0


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent, gradient clipped by global norm."""

    learning_rate: Number = 1e-2
    momentum: float = 0.0
    max_gradient_norm: float | None = None


@dataclass(frozen=True)
class TreeShape:
    """How one decision tree is grown on a gradient.

    Attributes:
        depth: levels of splits, in [1, 12].
        growth: "oblivious" asks one question a level, "greedy" one a node.
        score: of a split, "cosine" on the gradient or "l2" on the standardised gradient.
        candidates: thresholds of a column, at its "quantile"s or "uniform" between its ends.
        bins: thresholds tried per feature, >= 1.
        min_data: samples on either side below which no split is made, >= 0; 0 allows empty leaves.
        feature_weights: factor of each feature's scores, >= 0; None is 1 for all.
    """

    depth: int = 4
    growth: Literal["oblivious", "greedy"] = "oblivious"
    score: Literal["cosine", "l2"] = "cosine"
    candidates: Literal["quantile", "uniform"] = "quantile"
    bins: int = 250
    min_data: int = 0
    feature_weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TreeAdam:
    """Adam over the trees of an ensemble: moments of the leaves that a sample reaches, from the first tree to the last.

    Attributes:
        betas: decay of the two moment estimates, each in [0, 1).
        eps: added to the root of the second moment.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def correction(self, tree: int) -> float:
        """Of the moments' bias after trees 0 .. tree."""
        first, second = self.betas
        return float((1.0 - second ** (tree + 1)) ** 0.5 / (1.0 - first ** (tree + 1)))


@dataclass(frozen=True)
class AppendTree:
    """Gradient descent in the space of functions: each step appends one tree fitted to the gradient by the outputs.

    Attributes:
        learning_rate: factor of the tree in the policy's outputs; constant or schedule, >= 0.
        value_learning_rate: factor of the tree in the value, >= 0.
        shape: of each tree.
        shared: one tree has leaves for policy and value; else each has trees of its own.
        max_policy_gradient: a decision's policy gradient is cut to this norm; None does not cut.
        max_value_gradient: a decision's value gradient is cut to this size; None does not cut.
        control_variates: decay, in (0, 1), of the mean of earlier trees that is used to calm the gradient; None is off.
        limit: trees at which the ensemble is replaced by a smaller one that imitates it; None never.
        others: the step of parameters that are no trees (the log standard deviation of a Gaussian).
        critic: the step of a network that gives the value; None leaves the value to trees.
        adam: how moments move the outputs; None is gradient descent.

    Raises:
        ValueError: trees under Adam are to be replaced at a limit; their moments would be lost.
    """

    learning_rate: Number = 0.05
    value_learning_rate: Number = 0.005
    shape: TreeShape = TreeShape()
    shared: bool = True
    max_policy_gradient: float | None = None
    max_value_gradient: float | None = None
    control_variates: float | None = None
    limit: int | None = None
    others: Adam = Adam(Linear(1.7e-3, 4.75e-4), max_gradient_norm=None)
    critic: Adam | None = None
    adam: TreeAdam | None = None

    def __post_init__(self) -> None:
        if self.adam is not None and self.limit is not None:
            raise ValueError(
                f"limit replaces trees by others, and the moments of Adam with them; got limit={self.limit!r} beside "
                "Adam. Use None, or gradient descent."
            )


Step = Adam | SGD | AppendTree
