"""A: regression with errors whose tails vary with x. Which head says the mean and the spread better?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ascent.core.generalised_gaussian import (
    GeneralisedGaussian,
    gaussian_negative_log_likelihood,
    negative_log_likelihood,
)
from ascent.core.random import generator
from ascent.core.uncertainty import LAPLACE, widths
from ascent.policies.actor_critic import MLP

SAMPLES, TEST, STEPS, BATCH = 4000, 4000, 1500, 128
LAWS = {"varying": (0.7, 2.0), "gaussian": (2.0, 2.0), "laplace": (1.0, 1.0)}
HEADS = ("variance", "shape", "shape, product")


def data(law: str, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x in [-1, 1] [n, 1], y = sin(3 x) + e, the mean, the true shape beta(x) of e ~ GGD(0, 1, beta)."""
    low, high = LAWS[law]
    x = 2 * torch.rand(size, 1, generator=draw) - 1
    mean = torch.sin(3 * x[:, 0])
    shape = low + (high - low) * (x[:, 0] + 1) / 2
    noise = GeneralisedGaussian(shape.double()).sample(draw).float()
    return x, mean + noise, mean, shape


def estimate(law: str, head: str, seed: int) -> dict[str, Any]:
    """Fit one network of two outputs, and what it is worth on fresh data.

    Returns:
        mean_error: root mean square to the true mean; nll: nats an error under the head's own law (with its constant);
        correlation: of the said and the true shape (of minus the deviation for a variance); variation: coefficient of
        variation of the said spread, by tenth of the training.
    """
    draw = generator(seed, "estimation", law)
    x, y, _, _ = data(law, SAMPLES, draw)
    fresh, seen, true, shape = data(law, TEST, draw)
    torch.manual_seed(seed)
    network = MLP((1, 64, 64, 2), 1.0, generator(seed, "network"))
    with torch.no_grad():
        network.layers[-1].get_parameter("bias")[1] = LAPLACE
    step = torch.optim.Adam(network.parameters(), 1e-3)
    variation = []
    for turn in range(STEPS):
        rows = torch.randint(SAMPLES, (BATCH,), generator=draw)
        value, raw = network(x[rows]).unbind(-1)
        loss = cost(head, value - y[rows], raw).mean()
        step.zero_grad()
        loss.backward()
        step.step()
        if (turn + 1) % (STEPS // 10) == 0:
            width = widths(raw.detach())
            variation.append(float(width.std() / width.mean()))
    with torch.no_grad():
        value, raw = network(fresh).unbind(-1)
        width, error = widths(raw), seen - value
        # Every head is judged by the density that it means, the product form by the power's.
        nll = gaussian_negative_log_likelihood(error, width) + 0.9189385332046727
        if head != "variance":
            nll = negative_log_likelihood(error, width) + 0.6931471805599453
        said = width if head != "variance" else -width.sqrt()
        pair = torch.stack([said, shape])
        return {
            "mean_error": float((value - true).square().mean().sqrt()),
            "nll": float(nll.mean()),
            "correlation": float(torch.corrcoef(pair)[0, 1]) if float(shape.std()) > 0 else 0.0,
            "spread": float(width.mean()),
            "variation": variation,
        }


def cost(head: str, error: Tensor, raw: Tensor) -> Tensor:
    """The training loss of a head [n]."""
    if head == "variance":
        return gaussian_negative_log_likelihood(error, widths(raw))
    return negative_log_likelihood(error, widths(raw), "product" if head.endswith("product") else "power")
