"""How far a step in the last linear layer would move the objective and the policy: second-order, token by token.

For one decision: logits z = W h, pi = softmax(z), sampled action a, residual u = e_a - pi, advantage A, a step U of W,
v = U h:

    gradient  g = A u h^T                                        of A log pi(a) by W
    <g, U>    = A (u . v)
    Fisher    U^T F U = (u . v)^2                                one sampled action; its mean over actions is v^T F v
    Hessian   U^T H U = A ((u . v)^2 - v^T F v),                 v^T F v = sum_k pi_k v_k^2 - (sum_k pi_k v_k)^2
    m_H = <g, U> + 1/2 U^T H U       m_F = 1/2 U^T F U

Only dot products: the matrices never exist. (Curvature-aware policy optimization, arXiv 2510.00819.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Numbers in the steps [m, K, d] of one chunk of decisions.
CHUNK = 2**22


@dataclass(frozen=True)
class Shifts:
    """Predicted shifts of M decisions.

    Attributes:
        objective: [M] m_H.
        policy: [M] m_F >= 0.
    """

    objective: Tensor
    policy: Tensor


def residual(logits: Float[Tensor, "M K"], action: Tensor, top_k: int = 0) -> tuple[Tensor, Tensor]:
    """pi [M, K] and u = e_a - pi [M, K].

    With `top_k` > 0 the softmax is over the `top_k` greatest logits only, and u is 0 elsewhere; an action that is not
    among them has no one-hot, as in the official code.
    """
    actions = torch.arange(logits.shape[-1], device=logits.device)
    hot = (actions == action[:, None]).to(logits.dtype)
    if 0 < top_k < logits.shape[-1]:
        listed = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, logits.topk(top_k, -1).indices, True)
        logits, hot = logits.masked_fill(~listed, -torch.inf), hot * listed
    chance = logits.softmax(-1)
    return chance, hot - chance


def shifts(u: Tensor, chance: Tensor, along: Tensor, advantage: Tensor, expected: bool = False) -> Shifts:
    """m_H and m_F of steps that change the logits by `along`.

    Args:
        u, chance, along: [M, K]; along is v = U h.
        advantage: [M].
        expected: the Fisher term is v^T F v instead of that of the sampled action.
    """
    taken = (u * along).sum(-1)
    spread = (chance * along.square()).sum(-1) - (chance * along).sum(-1).square()
    fisher = spread if expected else taken.square()
    return Shifts(advantage * taken + 0.5 * advantage * (taken.square() - spread), 0.5 * fisher)


def sgd_shifts(
    u: Tensor, chance: Tensor, hidden: Tensor, advantage: Tensor, rate: float, expected: bool = False
) -> Shifts:
    """Of each decision's own step U = rate g, in closed form: v = rate A |h|^2 u."""
    along = (rate * advantage * hidden.square().sum(-1))[:, None] * u
    return shifts(u, chance, along, advantage, expected)


@dataclass(frozen=True)
class Moments:
    """What Adam remembers of the last layer.

    Attributes:
        first, second: [K, d] running means of gradient and squared gradient; None before the first update.
        step: updates so far.
    """

    first: Tensor | None
    second: Tensor | None
    step: int


@dataclass(frozen=True)
class AdamModel:
    """Adam's step on a gradient, without taking it.

    Attributes:
        betas, eps: of the optimiser that is mirrored.
        raw_start: before the first update return the gradient itself (official code) instead of Adam's first step.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    raw_start: bool = False

    def direction(self, gradient: Tensor, moments: Moments) -> Tensor:
        """[..., K, d] Adam's direction for each gradient [..., K, d], before the learning rate."""
        if self.raw_start and moments.first is None:
            return gradient
        one, two = self.betas
        first, second = (1 - one) * gradient, (1 - two) * gradient.square()
        if moments.first is not None and moments.second is not None:
            first, second = first + one * moments.first, second + two * moments.second
        number = moments.step + 1
        return (first / (1 - one**number)) / ((second / (1 - two**number)).sqrt() + self.eps)

    def after(self, mean: Tensor, moments: Moments) -> Moments:
        """The moments after an update by the gradient `mean` [K, d]."""
        one, two = self.betas
        zero = torch.zeros_like(mean)
        first = moments.first if moments.first is not None else zero
        second = moments.second if moments.second is not None else zero
        new = one * first + (1 - one) * mean, two * second + (1 - two) * mean.square()
        return Moments(*new, moments.step + 1)

    def shifts(
        self,
        u: Tensor,
        chance: Tensor,
        hidden: Tensor,
        advantage: Tensor,
        rate: float,
        moments: Moments,
        expected: bool = False,
    ) -> Shifts:
        """Of each decision's own step, [M]; steps [m, K, d] exist for a chunk of decisions only."""
        size = max(CHUNK // max(u.shape[-1] * hidden.shape[-1], 1), 1)
        objective, policy = [], []
        for start in range(0, len(u), size):
            part = slice(start, start + size)
            gradient = (advantage[part, None] * u[part])[:, :, None] * hidden[part, None, :]
            along = rate * torch.einsum("mkd,md->mk", self.direction(gradient, moments), hidden[part])
            found = shifts(u[part], chance[part], along, advantage[part], expected)
            objective.append(found.objective)
            policy.append(found.policy)
        if not objective:
            return Shifts(advantage, advantage)
        return Shifts(torch.cat(objective), torch.cat(policy))


def mean_gradient(u: Tensor, hidden: Tensor, advantage: Tensor) -> Tensor:
    """[K, d] each row's mean gradient over the decisions whose softmax holds that row (u is not exactly 0 there)."""
    count = (u != 0).sum(0).clamp(min=1)
    return (advantage[:, None] * u).T @ hidden / count[:, None]
