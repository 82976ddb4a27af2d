"""Bias and variance of a method's gradient estimate, measured against the exact gradient.

    statistics = gradient_statistics(ascent.method("rloo"), tree, policy, group_size=4, groups=1)

The estimate of one batch is minus the gradient of `method.loss` after `method.credit`: the direction that the
method's first optimiser step climbs, before the optimiser rescales it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ascent.core.decisions import SHAPES, Decisions
from ascent.core.method import Method
from ascent.evaluation.exact.batches import count, every, sample
from ascent.evaluation.exact.tree import Trainable, Tree, actor, flat, gradient
from ascent.policies.policy import Policy

FEASIBLE = 50_000
"""Batches that enumeration lists without complaint (about a millisecond each)."""


@dataclass(frozen=True, eq=False)
class GradientStatistics:
    """Moments of a gradient estimate g over batches. P parameters, flattened.

    Attributes:
        mean: [P] E[g].
        true: [P] the exact gradient of J.
        variance: E|g - E[g]|^2, the trace of the covariance.
        mean_squared_error: E|g - grad J|^2 = variance + |bias|^2.
        standard_error: [P] of `mean`; exactly 0 by enumeration.
        batches: how many were evaluated.
        exact: whether they are all that there are.
    """

    mean: Tensor
    true: Tensor
    variance: float
    mean_squared_error: float
    standard_error: Tensor
    batches: int
    exact: bool

    @property
    def bias(self) -> Tensor:
        """[P] E[g] - grad J."""
        return self.mean - self.true

    @property
    def relative_bias(self) -> float:
        """|E[g] - grad J| / |grad J|. A mere change of scale counts here; see `cosine`."""
        return float(self.bias.norm() / self.true.norm())

    @property
    def cosine(self) -> float:
        """Of the angle between E[g] and grad J: 1 if the method climbs J in expectation, at whatever speed."""
        return float(torch.nn.functional.cosine_similarity(self.mean, self.true, dim=0, eps=1e-300))

    @property
    def scale(self) -> float:
        """Length of E[g] along grad J, in units of |grad J|: what a learning rate would have to undo."""
        return float(self.mean @ self.true / (self.true @ self.true))

    @property
    def angle(self) -> float:
        """Between E[g] and grad J, degrees; accurate near 0 where the cosine is not."""
        one, two = self.mean / self.mean.norm(), self.true / self.true.norm()
        return float(torch.rad2deg(2.0 * torch.atan2((one - two).norm(), (one + two).norm())))

    @property
    def noise(self) -> float:
        """sqrt(variance) / |E[g]|: how many times larger one batch's noise is than its signal, whatever the scale."""
        return math.sqrt(self.variance) / float(self.mean.norm())


def gradient_statistics(
    method: Method,
    tree: Tree,
    policy: Trainable,
    group_size: int,
    groups: int = 1,
    samples: int | None = None,
    seed: int = 0,
    *,
    behaviour: Policy | None = None,
    old: Policy | None = None,
    reference: Policy | None = None,
) -> GradientStatistics:
    """Moments of the gradient that `method` estimates from one batch of `groups` x `group_size` trajectories.

    Rows that `method.accept` refuses are left out and a group left empty is drawn anew, so statistics are
    conditional on acceptance. `plan` plays no part: the batch is one update, and the first of its passes.

    Args:
        method: used through `credit` and `loss`.
        tree: the problem.
        policy: whose gradient is estimated.
        group_size: independent trajectories per group, >= 1.
        groups: independent groups per batch, >= 1.
        samples: None lists every batch (exact); a number >= 2 draws that many.
        seed: of the draws where `samples` is given.
        behaviour: who sampled; None is `policy` itself.
        old: whose log-probs stand in `old_log_prob`; None is `behaviour`.
        reference: whose log-probs stand in `reference_log_prob` (and whose logits in `reference_distribution`, for the
            exact divergences); None is `policy` itself.

    Raises:
        ValueError: sizes out of range, or too many batches to list.
        MissingColumn: the method needs a column that a tree has not.
    """
    _check(tree, group_size, groups, samples)
    behaviour = behaviour or policy
    with torch.no_grad():
        log_probability = tree.log_probability(behaviour)
    rows = _annotated(method, tree, policy, behaviour, old or behaviour, reference or policy)
    parameters = actor(tree, policy)
    true = gradient(tree, policy)

    def accept(index: Tensor) -> Tensor:
        assert method.accept is not None
        return method.accept(_batch(rows, (index,)))

    refusing = accept if method.accept is not None else None
    batches = (
        every(tree, log_probability, group_size, groups, refusing)
        if samples is None
        else sample(tree, log_probability, group_size, groups, samples, seed, refusing)
    )
    estimates, probabilities = [], []
    for batch in batches:
        decisions = method.credit(_batch(rows, batch.groups))
        loss, _ = method.loss(policy.evaluate(decisions, method.evaluates), decisions)
        slopes = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        estimates.append(-flat(slopes))
        probabilities.append(batch.probability)
    return _moments(torch.stack(estimates), torch.tensor(probabilities, dtype=torch.float64), true, samples is None)


def _check(tree: Tree, group_size: int, groups: int, samples: int | None) -> None:
    if group_size < 1 or groups < 1:
        raise ValueError(f"group_size and groups must be >= 1; got {group_size} and {groups}.")
    if samples is not None and samples < 2:
        raise ValueError(f"samples must be None or >= 2 (a standard error needs two); got {samples}.")
    listed = count(tree, group_size, groups)
    if samples is None and listed > FEASIBLE:
        raise ValueError(
            f"{tree.name!r} has {listed} batches of {groups} x {group_size}, more than {FEASIBLE}; "
            "take smaller groups, or pass samples=2000 to estimate with standard errors."
        )


def _annotated(
    method: Method, tree: Tree, policy: Policy, behaviour: Policy, old: Policy, reference: Policy
) -> Decisions:
    """Every trajectory of the tree with the columns that the method reads, and no others."""

    def log_prob(who: Policy) -> Tensor:
        return who.evaluate(decisions, frozenset({"log_prob"})).log_prob.detach()

    decisions = tree.decisions()
    decisions = policy.annotate(decisions, method.needs & {"value", "next_value"})
    decisions = decisions.replace(
        behaviour_log_prob=log_prob(behaviour), old_log_prob=log_prob(old), reference_log_prob=log_prob(reference)
    )
    if method.needs & {"reference_distribution", "probe:kl_reference", "probe:reverse_kl_reference"}:
        outputs = reference.evaluate(decisions, frozenset({"outputs"})).outputs.detach()
        decisions = decisions.with_extras({"reference_distribution": outputs})
    kept = method.needs | {"mask", "action", "group", "behaviour_log_prob", "old_log_prob"}
    return decisions.replace(**{name: None for name in list(decisions) if name in SHAPES and name not in kept})


def _batch(rows: Decisions, groups: tuple[Tensor, ...]) -> Decisions:
    """The rows of one batch, with the identities of a fresh draw."""
    index = torch.cat(groups)
    number = torch.arange(len(index))
    fresh = {"group": torch.repeat_interleave(torch.tensor([len(group) for group in groups]))}
    fresh |= {name: number for name in ("trajectory", "key") if name in rows}
    return rows.rows(index).with_extras(fresh)


def _moments(estimates: Tensor, probability: Tensor, true: Tensor, exact: bool) -> GradientStatistics:
    weight = probability[:, None]
    mean = (weight * estimates).sum(0)
    spread = (weight * (estimates - mean) ** 2).sum(0)
    error = torch.zeros_like(mean)
    if not exact:
        spread = spread * len(estimates) / (len(estimates) - 1)
        error = (spread / len(estimates)).sqrt()
    squared = float((weight * (estimates - true) ** 2).sum())
    return GradientStatistics(mean, true, float(spread.sum()), squared, error, len(estimates), exact)
