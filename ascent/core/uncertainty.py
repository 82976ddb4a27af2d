"""Critics that say how unsure they are: of a return's noise (a likelihood's width) and of themselves (an ensemble).

    aleatoric    the TD error's likelihood with a width that the critic predicts: Gaussian variance, or the shape of a
                 generalised Gaussian of scale 1
    epistemic    rows weigh by the inverse variance of an ensemble, p_b = (1 / (v_b + xi)) / sum of the same, with the
                 least xi >= 0 that leaves an effective batch 1 / sum p^2 of a wanted size
                 BIV:  v = discount^2 Var_k(Q_k)                                  (Mai et al. 2022)
                 BIEV: v = Var_k(delta_k) / (kappa / K + (K + 1) / (K - 1))       (arXiv:2408.02295)

The divisor of BIEV makes the sample variance the estimate of least squared error among its multiples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ascent.core.decisions import Columns, Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.generalised_gaussian import Form, gaussian_negative_log_likelihood, negative_log_likelihood
from ascent.core.part import Part, State

FLOOR = 1e-6  # of a variance
SHAPES = (1e-3, 10.0)  # of a shape: lgamma(1 / beta) grows like log(1 / beta) / beta as beta falls

Spread = Literal["none", "variance", "shape"]
Over = Literal["ensemble", "batch", "none"]
Epistemic = Literal["biv", "biev"]


def effective_batch(variance: Tensor) -> Tensor:
    """1 / sum p^2 in [1, B] of inverse-variance weights p of [B] variances > 0."""
    return 1.0 / inverse_variance_weights(variance).square().sum()


def inverse_variance_weights(variance: Tensor) -> Tensor:
    """[B] weights that add up to 1, in proportion to 1 / variance."""
    inverse = 1.0 / variance
    return inverse / inverse.sum()


def least_shift(variance: Tensor, least: float) -> Tensor:
    """The smallest xi >= 0 with `effective_batch(variance + xi) >= least`, to 1e-9 of itself; 0 where it is so already.

    Args:
        variance: [B] > 0.
        least: in [1, B - 1]; the effective batch rises to B with xi, and is never above.
    """
    if bool(effective_batch(variance) >= least):
        return variance.new_zeros(())

    def enough(shifts: Tensor) -> Tensor:
        inverse = 1.0 / (variance + shifts.unsqueeze(-1))
        found: Tensor = inverse.sum(-1).square() >= least * inverse.square().sum(-1)
        return found

    # At sqrt(B) times the largest variance no two weights differ enough to lose one row (Kantorovich's inequality).
    top = variance.max() * len(variance) ** 0.5
    halves = top * 2.0 ** torch.arange(-80, 1, dtype=variance.dtype, device=variance.device)
    high: Tensor = halves[enough(halves).int().argmax()]
    low = 0.5 * high
    parts = torch.linspace(0.0, 1.0, 65, dtype=variance.dtype, device=variance.device)
    for _ in range(5):
        shifts = low + (high - low) * parts
        place = enough(shifts).int().argmax().clamp(min=1)
        low, high = shifts[place - 1], shifts[place]
    return high


def excess_kurtosis(values: Tensor) -> Tensor:
    """Unbiased sample excess kurtosis (G2) over the last dimension of [..., K]; 0 where K < 4 or all are equal."""
    count = values.shape[-1]
    if count < 4:
        return values.new_zeros(values.shape[:-1])
    centred = values - values.mean(-1, keepdim=True)
    second, fourth = centred.square().mean(-1), centred.pow(4).mean(-1)
    plain = fourth / second.square().clamp(min=torch.finfo(values.dtype).tiny) - 3.0
    found: Tensor = (count - 1) / ((count - 2) * (count - 3)) * ((count + 1) * plain + 6.0)
    return torch.where(second > 0, found, 0.0)


def ensemble_variance(values: Tensor, discount: float) -> Tensor:
    """BIV's v [...]: discount^2 times the sample variance over the members of `values` [..., K], at least 1e-6."""
    return (discount**2 * values.var(-1)).clamp(min=FLOOR)


def error_variance(errors: Tensor) -> Tensor:
    """BIEV's v [...] of the members' TD errors [..., K], at least 1e-6; the population variance, as in the release."""
    count = errors.shape[-1]
    divisor = excess_kurtosis(errors) / count + (count + 1) / (count - 1)
    return (errors.var(-1, correction=0) / divisor).clamp(min=FLOOR)


def shapes(raw: Tensor) -> Tensor:
    """A shape in [1e-3, 10] of an unbounded output; `LAPLACE` gives 1."""
    return softplus(raw).clamp(*SHAPES)


def variances(raw: Tensor) -> Tensor:
    """A variance, at least 1e-3, of an unbounded output; errors may be of any size, so nothing bounds it above."""
    return softplus(raw).clamp(min=SHAPES[0])


LAPLACE = 0.5413248546129181  # softplus^-1(1): where a head of shapes begins


@dataclass(frozen=True)
class UncertainValueLoss(Part):
    """The likelihood of each critic's TD error under the width that it says itself, added over K critics [N, T].

    Attributes:
        spread: "none" is the squared error, "variance" a Gaussian's, "shape" a generalised Gaussian's of scale 1.
        form: of the shape's likelihood, "power" (a likelihood) or "product" (the released code).
        over: what the risk-averse weights beta are normalised over: the "ensemble" of a decision (to 1), the "batch"
            (to a mean of 1 / K), or "none": no weights. With "shape" only.
        detach: whether the weights are constants; the release differentiates them.
        copies: ensembles beside each other in the last dimension (two of SAC's twins); weights stay inside one.
        extremes: whether metrics tell the least and greatest width that any critic says in the update. They must be
            known before its first gradient: a forward pass more where an update is taken in micro-batches.

    Reads `value` [N, T, K] and, with a spread, the probe `value_spread` [N, T, K], unbounded; `value_target` [N, T] or
    [N, T, K].
    """

    spread: Spread = "shape"
    form: Form = "power"
    over: Over = "ensemble"
    detach: bool = False
    copies: int = 1
    extremes: bool = False

    def __post_init__(self) -> None:
        if self.extremes and self.spread == "none":
            raise ValueError("extremes must be False with spread='none'; a squared error says no width.")

    @property
    def critics(self) -> int:
        return 4 * self.copies

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"value", "value_target"} | ({"probe:value_spread"} if self.spread != "none" else set()))

    @property
    def recorded(self) -> frozenset[str]:
        return frozenset({"value_target"})

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        error = errors(evaluation, decisions)
        if self.spread == "none":
            return error.square().sum(-1)
        width = self.said(evaluation)
        if self.spread == "variance":
            return gaussian_negative_log_likelihood(error, width).sum(-1)
        return (self._weight(width, decisions) * negative_log_likelihood(error, width, self.form)).sum(-1)

    def said(self, evaluation: Evaluation) -> Tensor:
        """The shapes or variances that the critics say [N, T, K]."""
        raw = evaluation.column("value_spread", "UncertainValueLoss")
        return variances(raw) if self.spread == "variance" else shapes(raw)

    def _weight(self, width: Tensor, decisions: Decisions) -> Tensor:
        if self.over == "none":
            return torch.ones_like(width)
        width = width.detach() if self.detach else width
        if self.over == "ensemble":
            apart = ensembles(width, self.copies)
            return (apart / apart.sum(-1, keepdim=True)).flatten(-2)
        total = decisions.column("shape_mean", "UncertainValueLoss")
        return width / (total.unsqueeze(-1) * width.shape[-1])

    @property
    def prepares(self) -> frozenset[str]:
        return frozenset({"probe:value_spread"}) if self.extremes or self._over_batch else frozenset()

    @property
    def _over_batch(self) -> bool:
        return self.spread == "shape" and self.over == "batch"

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        """With `over="batch"` the mean width of the update, with `extremes` its least and greatest."""
        if not self.prepares:
            return {}
        assert evaluation is not None
        width = self.said(evaluation)[decisions.mask]
        width = width if len(width) else width.new_ones(1)
        found = {"shape_mean": width.mean()} if self._over_batch else {}
        if self.extremes:
            # The same number in every row: the mean over decisions, that metrics are, is the number.
            found |= {"spread_least": width.min(), "spread_greatest": width.max()}
        return {name: number.expand(decisions.mask.shape) for name, number in found.items()}

    def metrics(self, evaluation: Evaluation, decisions: Decisions) -> Columns:
        error = errors(evaluation, decisions).detach()
        found = {"td_error": error.abs().mean(-1)}
        if self.spread != "none":
            width = self.said(evaluation).detach()
            # Mean and mean square tell the coefficient of variation over an update.
            found |= {"spread": width.mean(-1), "spread_square": width.square().mean(-1)}
        if self.extremes:
            extremes = ("spread_least", "spread_greatest")
            found |= {name: decisions.column(name, "UncertainValueLoss") for name in extremes}
        return found


@dataclass(frozen=True)
class InverseVarianceLoss(Part):
    """p_b times the members' losses, with p the inverse-variance weights of the whole update, constants [N, T].

    Attributes:
        kind: what is uncertain: "biv" the values, "biev" the TD errors.
        loss: "squared" or "absolute" error of a member.
        least: m, the wanted effective batch, >= 1; cut to the update's size minus 1.
        discount: gamma, of "biv".
        copies: ensembles beside each other in the last dimension; each has weights of its own.
    """

    kind: Epistemic = "biev"
    loss: Literal["squared", "absolute"] = "absolute"
    least: int = 16
    discount: float = 0.99
    copies: int = 1
    needs = frozenset({"value", "value_target"})
    prepares = frozenset({"value"})

    @property
    def critics(self) -> int:
        return 4 * self.copies

    @property
    def recorded(self) -> frozenset[str]:
        return frozenset({"value_target"})

    def prepare(self, decisions: Decisions, evaluation: Evaluation | None, state: State) -> Columns:
        """The weights [N, T, copies], which add up to 1 over the update."""
        assert evaluation is not None
        apart = (evaluation.value if self.kind == "biv" else errors(evaluation, decisions)).detach()
        apart = ensembles(apart, self.copies)[decisions.mask]
        if apart.shape[-1] < 2:
            raise ValueError(f"an ensemble needs two or more members to differ; got {apart.shape[-1]}.")
        weight = apart.new_zeros(*decisions.mask.shape, self.copies)
        if not len(apart):
            return {"epistemic_weight": weight}
        variance = ensemble_variance(apart, self.discount) if self.kind == "biv" else error_variance(apart)
        least = min(self.least, len(variance) - 1)
        columns = [inverse_variance_weights(one + least_shift(one, least)) for one in variance.unbind(-1)]
        weight[decisions.mask] = torch.stack(columns, -1)
        return {"epistemic_weight": weight}

    def __call__(self, evaluation: Evaluation, decisions: Decisions) -> Tensor:
        error = ensembles(errors(evaluation, decisions), self.copies)
        cost = (error.square() if self.loss == "squared" else error.abs()).sum(-1)
        return (decisions.column("epistemic_weight", "InverseVarianceLoss") * cost).sum(-1)


def ensembles(values: Tensor, copies: int) -> Tensor:
    """[..., copies, K] of `copies` ensembles of K members that stand beside each other in [..., copies * K]."""
    return values.reshape(*values.shape[:-1], copies, -1)


def errors(evaluation: Evaluation, decisions: Decisions) -> Tensor:
    """Every critic's value minus its target [N, T, K]; gradient to the value only."""
    value, target = evaluation.value, decisions.value_target
    value = value.unsqueeze(-1) if value.dim() == 2 else value
    return value - (target.unsqueeze(-1) if target.dim() < value.dim() else target)
