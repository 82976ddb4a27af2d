"""What the TD errors of a run look like: a histogram with the Gaussian and the generalised Gaussian that fit it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ascent.core.generalised_gaussian import fitted


@dataclass(frozen=True)
class Fit:
    """Two laws of greatest likelihood for the same errors, centred on their mean.

    Attributes:
        deviation: of the Gaussian.
        scale, shape: alpha and beta of the generalised Gaussian.
        gain: by how many nats an error its log-likelihood exceeds the Gaussian's, >= 0 up to rounding.
        kurtosis: excess kurtosis of the errors; 0 for a Gaussian.
    """

    deviation: float
    scale: float
    shape: float
    gain: float
    kurtosis: float


def fit(errors: Tensor) -> Fit:
    """Fit both to errors [n]. Raises ValueError where they are all equal."""
    centred = errors.double().flatten()
    centred = centred - centred.mean()
    law = fitted(centred)
    deviation = float(centred.square().mean().sqrt())
    gaussian = -0.5 * (1.0 + math.log(2 * math.pi * deviation**2))
    general = float(law.log_prob(centred).mean())
    kurtosis = float(centred.pow(4).mean() / deviation**4 - 3.0)
    return Fit(deviation, float(law.scale), float(law.shape), general - gaussian, kurtosis)


def histogram(errors: Tensor, bins: int = 61) -> dict[str, list[float]]:
    """Density of the centred errors over their central 99.5%: "edges" and "density"."""
    centred = (errors.double() - errors.double().mean()).flatten().numpy()
    reach = max(float(np.quantile(np.abs(centred), 0.995)), 1e-12)
    counts, edges = np.histogram(centred, bins, (-reach, reach))
    width = edges[1] - edges[0]
    return {"edges": edges.tolist(), "density": (counts / (len(centred) * width)).tolist()}


def draw_errors(axes: Any, bars: dict[str, list[float]], law: Fit, title: str) -> None:
    """Histogram on a logarithmic axis with both laws."""
    edges = np.asarray(bars["edges"])
    axes.stairs(bars["density"], edges, fill=True, color="lightgrey")
    x = np.linspace(edges[0], edges[-1], 400)
    gaussian = np.exp(-0.5 * (x / law.deviation) ** 2) / (law.deviation * math.sqrt(2 * math.pi))
    constant = law.shape / (2 * law.scale * math.gamma(1 / law.shape))
    axes.plot(x, gaussian, color="tab:orange", label="Gaussian")
    axes.plot(
        x, constant * np.exp(-((np.abs(x) / law.scale) ** law.shape)), color="tab:blue", label=f"shape {law.shape:.2f}"
    )
    axes.set_yscale("log")
    seen = [density for density in bars["density"] if density > 0]
    axes.set_ylim(min(seen) / 2, max(seen) * 2)
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)

