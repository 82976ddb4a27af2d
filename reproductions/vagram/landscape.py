"""Part C: the losses around one observed state of the pendulum, for the critics of a short SAC run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ascent.evaluation.model_losses import draw, landscape, spectrum
from ascent.policies.dynamics import StateValues
from ascent.systems import off_policy
from ascent.systems.config import ControlConfig
from ascent.training.loop import Loop
from ascent.training.processes import Processes

CENTRE, SPAN, NEAR = (1.0, -1.0), (1.5, 5.0), 0.01
UPDATES = 3000


def observe(coordinates: Tensor) -> Tensor:
    """(angle, speed) [..., 2] as the pendulum's observation [..., 3]."""
    angle, speed = coordinates.unbind(-1)
    return torch.stack((angle.cos(), angle.sin(), speed), -1)


def landscapes(folder: Path) -> dict[str, Any]:
    """Draws landscape.png; the share of the square where each loss is below 1% of its largest, and slopes by number."""
    config = ControlConfig(
        method="sac",
        env="Pendulum-v1",
        set=("start=300", "batch=64", "updates=3", "learning_rate=0.001", "critic_learning_rate=0.001"),
        steps=UPDATES // 300,
        environments=1,
        horizon=100,
        hidden=(64, 64),
        quiet=True,
    )
    assembly = off_policy.build(config, config.composed(), Processes())
    Loop(assembly.system).run()
    models = assembly.system.models
    values = StateValues(models["policy"], [models["critic"], models["critic_target"]])  # type: ignore[arg-type, list-item]
    found = landscape(values.slopes, observe, torch.tensor(CENTRE), torch.tensor(SPAN), 121)
    draw(found, folder / "landscape.png")
    content = assembly.system.memories["replay"].content()  # type: ignore[attr-defined]
    slopes = values.slopes(content.context["next_observation"])[1]
    losses = ("mse", "itervaml", "taylor", "vagram")
    return {
        "low": {name: float((found[name] < NEAR * found[name].max()).float().mean()) for name in losses},
        "slopes": dict(zip(("cos angle", "sin angle", "speed"), spectrum(slopes).tolist(), strict=True)),
    }
