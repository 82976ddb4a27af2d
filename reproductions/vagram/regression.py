"""Part A: a linear system whose model is too small, each loss on the same data; and predictions that are free.

State: 2 useful numbers, which turn and shrink, and d = 6 distractors of three times their deviation, which turn.
Value: V(s) = 1/2 s' P s on the useful numbers. Model: a matrix of rank r. Reduced-rank regression gives the best
squared error in closed form, which says whether the optimiser got there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ascent.core import dynamics
from ascent.core.random import generator

SEEDS = 10
USEFUL, DISTRACTORS, SPREAD = 2, 6, 3.0
RANKS = (1, 2, 4, 6, 8)
LOSSES = ("mse", "vagram", "taylor", "itervaml")
ROWS, UPDATES, RATE = 256, 1500, 0.05
SCALES = (1.0, 10.0, 100.0)
SIZE = USEFUL + DISTRACTORS


def system(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The matrix A [n, n], the value's matrix P [n, n], states to fit on and to judge on [ROWS, n]."""
    draw = generator(seed, "vagram", "regression")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    matrix, shape = torch.zeros(SIZE, SIZE, dtype=torch.float64), torch.zeros(SIZE, SIZE, dtype=torch.float64)
    matrix[:USEFUL, :USEFUL] = 0.9 * torch.linalg.qr(normal(USEFUL, USEFUL))[0]
    matrix[USEFUL:, USEFUL:] = torch.linalg.qr(normal(DISTRACTORS, DISTRACTORS))[0]
    root = normal(USEFUL, USEFUL)
    shape[:USEFUL, :USEFUL] = root @ root.T + 0.5 * torch.eye(USEFUL, dtype=torch.float64)
    deviation = torch.tensor([1.0] * USEFUL + [SPREAD] * DISTRACTORS, dtype=torch.float64)
    return matrix, shape, normal(ROWS, SIZE) * deviation, normal(ROWS, SIZE) * deviation


def value(state: Tensor, shape: Tensor) -> Tensor:
    """V(s) [..., B] of states [..., B, n]."""
    return 0.5 * ((state @ shape) * state).sum(-1)


def cost(loss: str, predicted: Tensor, successor: Tensor, shape: Tensor) -> Tensor:
    """[S, B] of predictions and successors [S, B, n], by the library's own losses (one member, one value function)."""
    error = (predicted - successor).unsqueeze(-2)
    if loss == "mse":
        return dynamics.squared(error).squeeze(-1)
    if loss == "itervaml":
        guessed, known = value(predicted, shape), value(successor, shape)
        return dynamics.value_difference(guessed[..., None, None], known[..., None]).squeeze(-1)
    slope = (successor @ shape).unsqueeze(-2)
    return (dynamics.weighted if loss == "vagram" else dynamics.expanded)(error, slope).squeeze(-1)


def fit(loss: str, rank: int, state: Tensor, successor: Tensor, shape: Tensor) -> Tensor:
    """Matrices [S, n, n] of the rank, one a seed, by Adam with a rate that falls along a cosine."""
    seeds = len(state)
    draw = generator("vagram", "start", rank)
    first, second = (
        (0.3 * torch.randn(seeds, *size, generator=draw, dtype=torch.float64)).requires_grad_()
        for size in ((SIZE, rank), (rank, SIZE))
    )
    optimiser = torch.optim.Adam([first, second], lr=RATE)
    scale = cost(loss, torch.zeros_like(successor), successor, shape).mean(-1).detach()
    for update in range(UPDATES):
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1.0 + math.cos(math.pi * update / UPDATES))
        optimiser.zero_grad()
        (cost(loss, state @ first @ second, successor, shape).mean(-1) / scale).sum().backward()
        optimiser.step()
    return (first @ second).detach()


def best(rank: int, state: Tensor, successor: Tensor) -> Tensor:
    """Reduced-rank regression: the least squared error of that rank, in closed form, [S, n, n]."""
    full = torch.linalg.lstsq(state, successor).solution
    directions = torch.linalg.svd(state @ full, full_matrices=False)[2][:, :rank]
    return full @ directions.mT @ directions


def regression() -> dict[str, Any]:
    """Held-out value error E (V(f) - V(s'))^2 over its variance, and squared error, of every loss, rank and seed."""
    torch.set_num_threads(1)
    matrices, shapes, fitted, judged = (torch.stack(each) for each in zip(*map(system, range(SEEDS)), strict=True))
    result: dict[str, Any] = {}
    after = judged @ matrices
    spread = value(after, shapes).var(-1)

    def measured(model: Tensor) -> dict[str, list[float]]:
        guess = judged @ model
        gap = (value(guess, shapes) - value(after, shapes)).square().mean(-1) / spread
        return {"value_error": gap.tolist(), "squared": (guess - after).square().sum(-1).mean(-1).tolist()}

    for rank in RANKS:
        for loss in LOSSES:
            result[f"{loss}/{rank}"] = measured(fit(loss, rank, fitted, fitted @ matrices, shapes))
        result[f"closed form/{rank}"] = measured(best(rank, fitted, fitted @ matrices))
    return result


def free() -> dict[str, Any]:
    """Predictions that are free numbers, begun at a distance: what is left of the useful error, as its share.

    Taylor's gradient is along g only, so its limit is known: the start without its part along g.
    """
    matrix, shape, state, _ = system(0)
    successor = (state @ matrix)[:, :USEFUL]
    shape = shape[:USEFUL, :USEFUL]
    start = torch.randn(ROWS, USEFUL, generator=generator("vagram", "free"), dtype=torch.float64)
    slope = successor @ shape
    along = (start * slope).sum(-1, keepdim=True) * slope / slope.square().sum(-1, keepdim=True)
    result = {}
    for scale in SCALES:
        for loss in ("vagram", "taylor"):
            guess = (successor + scale * start).requires_grad_()
            optimiser = torch.optim.LBFGS([guess], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)
            worth = slope.unsqueeze(-2)

            def closure(guess: Tensor = guess, loss: str = loss, worth: Tensor = worth) -> Tensor:
                guess.grad = None
                error = (guess - successor).unsqueeze(-2)
                found = (dynamics.weighted if loss == "vagram" else dynamics.expanded)(error, worth).mean()
                found.backward()
                return found

            optimiser.step(closure)
            left = (guess.detach() - successor).norm(dim=-1)
            result[f"{loss}/{scale:g}"] = {
                "error": float(left.median()),
                "at_start": float((scale * start).norm(dim=-1).median()),
                "limit": float((scale * (start - along)).norm(dim=-1).median()),
            }
    return result
