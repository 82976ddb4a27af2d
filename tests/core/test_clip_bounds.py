"""Bounds that are chosen on a whole update: constant ones are PPO's, and they travel with the rows."""

from __future__ import annotations

import pytest
import torch

from ascent.core.clip_bounds import Bounds, Constant, ControlledClip
from ascent.core.method import Method
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term


def test_constant_bounds_are_the_clipped_ratio() -> None:
    chosen = Method("c", {"policy": Term(ControlledClip(Constant(0.7, 1.3)))})
    plain = Method("p", {"policy": Term(ClippedRatio(0.3, 0.3, against="behaviour"))})
    evaluation, decisions = plain.example(8, 6, 0, torch.float64)
    decisions = decisions.replace(advantage=torch.randn(8, 6, dtype=torch.float64))
    decisions = decisions.replace(behaviour_log_prob=decisions.behaviour_log_prob * 2)
    losses = [built.loss(evaluation, decisions)[0] for built in (chosen, plain)]
    grads = [torch.autograd.grad(loss, evaluation.log_prob)[0] for loss in losses]
    assert torch.allclose(losses[0], losses[1], atol=1e-12)
    assert torch.allclose(grads[0], grads[1], atol=1e-12)


def test_bounds_and_report_are_logged() -> None:
    def controller(ratio: torch.Tensor, advantage: torch.Tensor, mask: torch.Tensor) -> Bounds:
        return Bounds(torch.tensor(0.5), torch.tensor(2.0), {"seen": mask.sum() / 10})

    built = Method("c", {"policy": Term(ControlledClip(controller))})
    evaluation, decisions = built.example(4, 5, 1, torch.float64)
    _, metrics = built.loss(evaluation, decisions.replace(advantage=torch.ones(4, 5, dtype=torch.float64)))
    assert float(metrics["clip_bound_low"]) == pytest.approx(0.5)
    assert float(metrics["clip_bound_high"]) == pytest.approx(2.0)
    assert float(metrics["seen"]) == pytest.approx(float(decisions.mask.sum()) / 10)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="low < 1 < high"):
        Constant(1.2, 0.8)
    with pytest.raises(ValueError, match="surrogate must read the bounds"):
        ControlledClip(Constant(), ClippedRatio(0.2, 0.2))
    built = Method("c", {"policy": Term(ControlledClip(Constant()))})
    _, decisions = built.example(4, 5, 1, torch.float64)
    with pytest.raises(ValueError, match="pass prepare the evaluation"):
        built.prepare(decisions.replace(advantage=torch.ones(4, 5, dtype=torch.float64)), None)
    with pytest.raises(ValueError, match="against must be"):
        ClippedRatio(against="teacher")  # type: ignore[arg-type]


def test_the_ratio_may_be_against_the_behaviour() -> None:
    """The two log-probs differ; each reading uses its own, and needs both because one may stand in for the other."""
    evaluation, decisions = Method("p", {"policy": Term(ClippedRatio(against="behaviour"))}).example(
        4, 5, 2, torch.float64
    )
    decisions = decisions.replace(advantage=torch.ones(4, 5, dtype=torch.float64))
    for name in ("old", "behaviour"):
        part = ClippedRatio(9.0, 9.0, against=name)  # type: ignore[arg-type]
        expected = -(evaluation.log_prob - decisions.column(f"{name}_log_prob")).exp()
        assert torch.allclose(part(evaluation, decisions), expected)
        assert part.needs >= {"old_log_prob", f"{name}_log_prob"}
