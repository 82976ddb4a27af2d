"""What model losses look like around one observed state, and where value functions are steep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ascent.core import dynamics

Slopes = Callable[[Tensor], tuple[Tensor, Tensor]]
"""States [..., n] -> values [..., V] and their gradients [..., V, n]."""


def landscape(
    slopes: Slopes, observe: Callable[[Tensor], Tensor], centre: Tensor, span: Tensor, points: int = 61
) -> dict[str, Tensor]:
    """Each loss of predictions on a square around an observed next state.

    Args:
        slopes: the value functions.
        observe: coordinates [..., 2] -> states [..., n].
        centre: [2] coordinates of the observed next state.
        span: [2] half widths of the square.
        points: of each side, >= 2.

    Returns:
        "mse", "itervaml", "taylor", "vagram" [points, points], and the axes "first" and "second" [points]; entry
        [i, j] is the loss of predicting (first[j], second[i]).
    """
    sides = [torch.linspace(-1.0, 1.0, points, dtype=centre.dtype) * span[place] + centre[place] for place in (0, 1)]
    second, first = torch.meshgrid(sides[1], sides[0], indexing="ij")
    predicted = observe(torch.stack((first, second), -1)).view(1, 1, points * points, -1)
    observed = observe(centre).view(1, 1, -1)
    values, slope = slopes(observed)
    error = predicted - observed.unsqueeze(-2)
    found = {
        "mse": dynamics.squared(error),
        "itervaml": dynamics.value_difference(slopes(predicted)[0], values),
        "taylor": dynamics.expanded(error, slope),
        "vagram": dynamics.weighted(error, slope),
    }
    square = {name: loss.view(points, points) for name, loss in found.items()}
    return {**square, "first": sides[0], "second": sides[1]}


def spectrum(slope: Tensor) -> Tensor:
    """[n] root mean squares of slopes [..., n], one for each number of the state: what VaGraM's weights say matters."""
    return slope.flatten(0, -2).square().mean(0).sqrt()


def draw(found: Mapping[str, Tensor], path: Path, names: tuple[str, str] = ("angle", "speed")) -> None:
    """The landscapes side by side, each on a logarithmic scale of its own; a cross marks the observed state."""
    from matplotlib.figure import Figure

    titles = {"mse": "MSE", "itervaml": "IterVAML", "taylor": "Taylor VAML", "vagram": "VaGraM"}
    figure = Figure(figsize=(14, 3.6), dpi=150, layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 4), titles.items(), strict=True):
        loss = found[name].clamp(min=1e-12)
        top = float(loss.max())
        shown = (loss / top).clamp(min=1e-4).log10().numpy()
        edges = [float(found[side][place]) for side in ("first", "second") for place in (0, -1)]
        picture = axes.imshow(shown, origin="lower", extent=edges, aspect="auto", cmap="viridis", vmin=-4, vmax=0)
        axes.plot((edges[0] + edges[1]) / 2, (edges[2] + edges[3]) / 2, "x", color="#ff4444", markersize=9)
        axes.set(title=title, xlabel=f"predicted {names[0]}", ylabel=f"predicted {names[1]}")
    figure.colorbar(picture, ax=figure.axes, label="log10 of loss / largest loss")
    figure.savefig(path)
