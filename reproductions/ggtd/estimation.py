"""A: regression with errors whose tails vary with x. Which head says the mean and the spread better?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from ascent.core.generalised_gaussian import (
    GeneralisedGaussian,
    gaussian_negative_log_likelihood,
    negative_log_likelihood,
)
from ascent.core.random import generator
from ascent.core.uncertainty import LAPLACE, shapes, variances
from ascent.policies.actor_critic import MLP

SAMPLES, TEST, STEPS, BATCH = 4000, 4000, 1000, 128
LAWS = {"varying": (0.7, 2.0), "laplace": (1.0, 1.0), "gaussian": (2.0, 2.0)}
HEADS = ("variance", "shape", "shape, product", "shape and scale")


def data(law: str, size: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x in [-1, 1] [n, 1], y = sin(3 x) + e, the mean, the true shape beta(x) of e ~ GGD(0, 1, beta)."""
    low, high = LAWS[law]
    x = 2 * torch.rand(size, 1, generator=draw) - 1
    mean = torch.sin(3 * x[:, 0])
    shape = low + (high - low) * (x[:, 0] + 1) / 2
    noise = GeneralisedGaussian(shape.double()).sample(draw).float()
    return x, mean + noise, mean, shape


def estimate(law: str, head: str, seed: int) -> dict[str, Any]:
    """Fit one network of mean and spread, and what it is worth on fresh data.

    Returns:
        mean_error: root mean square to the true mean; nll: nats an error under the head's own law (with its constant);
        correlation: of the said and the true shape (of minus the deviation for a variance), where that varies;
        said: mean of what is said; variation: its coefficient of variation, by tenth of the training.
    """
    draw = generator(seed, "estimation", law)
    x, y, _, _ = data(law, SAMPLES, draw)
    fresh, seen, true, shape = data(law, TEST, draw)
    network = MLP((1, 64, 64, 3 if head == "shape and scale" else 2), 1.0, generator(seed, "network"))
    with torch.no_grad():
        network.layers[-1].get_parameter("bias")[1:] = LAPLACE
    step = torch.optim.Adam(network.parameters(), 1e-3)
    variation = []
    for turn in range(STEPS):
        rows = torch.randint(SAMPLES, (BATCH,), generator=draw)
        outputs = network(x[rows])
        loss = cost(head, outputs[:, 0] - y[rows], outputs[:, 1:]).mean()
        step.zero_grad()
        loss.backward()
        step.step()
        if (turn + 1) % (STEPS // 10) == 0:
            width = said(head, outputs[:, 1].detach())
            variation.append(round(float(width.std() / width.mean()), 4))
    with torch.no_grad():
        outputs = network(fresh)
        value, width = outputs[:, 0], said(head, outputs[:, 1])
        # Every head is judged by the density that it means, the product form by the power's.
        judged = head.removesuffix(", product")
        constant = 0.5 * math.log(2 * math.pi) if head == "variance" else math.log(2)
        found = {
            "mean_error": float((value - true).square().mean().sqrt()),
            "nll": float(cost(judged, seen - value, outputs[:, 1:]).mean()) + constant,
            "said": float(width.mean()),
            "variation": variation,
        }
        if float(shape.std()) > 0:
            narrow = -width.sqrt() if head == "variance" else width
            found["correlation"] = float(torch.corrcoef(torch.stack([narrow, shape]))[0, 1])
    return found


def said(head: str, raw: Tensor) -> Tensor:
    """The variance or the shape that a head says [n]."""
    return variances(raw) if head == "variance" else shapes(raw)


def cost(head: str, error: Tensor, raw: Tensor) -> Tensor:
    """The training loss of a head [n], without its constant."""
    width = said(head, raw[:, 0])
    if head == "variance":
        return gaussian_negative_log_likelihood(error, width)
    if head == "shape and scale":
        return -GeneralisedGaussian(width, softplus(raw[:, 1])).log_prob(error) - math.log(2)
    return negative_log_likelihood(error, width, "product" if head.endswith("product") else "power")
