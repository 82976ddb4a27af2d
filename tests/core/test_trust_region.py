"""The trust region by itself: thresholds on known shifts, one-sided bounds, the penalty. CAPO's tests have the rest."""

from __future__ import annotations

import math

import pytest
import torch

from ascent.core.curvature import Shifts
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.trust_region import LOGGED, WIDER, PredictedShift, TrustRegion

SHIFTS = Shifts(torch.tensor([-0.5, -0.05, 0.0, 0.05, 0.5]), torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize(
    ("region", "objective", "policy"),
    [
        (TrustRegion(objective=0.1, policy=0.25), [1, 0, 0, 0, 1], [0, 0, 0, 1, 1]),
        (TrustRegion(objective=0.1, policy=0.25, symmetric=False), [1, 1, 0, 0, 1], [0, 0, 0, 1, 1]),
        (TrustRegion(objective=0.1, policy=math.inf, floor=-0.01), [1, 1, 0, 0, 1], [0, 0, 0, 0, 0]),
        (TrustRegion(objective=math.inf, policy=0.2), [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]),
    ],
)
def test_what_fails_which_test(region: TrustRegion, objective: list[int], policy: list[int]) -> None:
    found = region.refused(SHIFTS)
    assert [flags.int().tolist() for flags in found] == [objective, policy]


def batch() -> tuple[Evaluation, Decisions]:
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(4, 3, 5, dtype=torch.float64, generator=draw).requires_grad_()
    features = torch.randn(4, 3, 2, dtype=torch.float64, generator=draw)
    decisions = Decisions(
        mask=torch.tensor([[True, True, True], [True, True, False], [True, False, False], [False] * 3]),
        action=torch.randint(5, (4, 3), generator=draw),
        advantage=torch.randn(4, 3, dtype=torch.float64, generator=draw),
    )
    return Evaluation(outputs=outputs, features=features), decisions


@pytest.mark.parametrize("model", ["sgd", "adam"])
def test_it_accepts_no_masked_decision_and_all_others_where_it_is_open(model: str) -> None:
    evaluation, decisions = batch()
    region = TrustRegion(model=model, objective=math.inf, policy=math.inf, diagnostics=True)  # type: ignore[arg-type]
    columns = region.prepare(decisions, evaluation, region.start())
    kept = region(None, decisions.with_extras(columns))
    assert torch.equal(kept, decisions.mask)
    assert columns["curvature_logged"].shape == (4, len(LOGGED) + len(WIDER))
    assert columns["curvature_logged"][0, LOGGED.index("rejected")].item() == 0.0


def test_the_penalty_is_what_the_region_predicted() -> None:
    evaluation, decisions = batch()
    region = TrustRegion(model="sgd", objective=math.inf, policy=math.inf, bends=True, learning_rate=0.1)
    prepared = decisions.with_extras(region.prepare(decisions, evaluation, region.start()))
    for of in ("objective", "policy"):
        value = PredictedShift(of)(evaluation, prepared)  # type: ignore[arg-type]
        torch.testing.assert_close(value, prepared.column(f"curvature_{of}"))
        assert value.requires_grad and bool((value[~decisions.mask] == 0).all())


def test_the_rate_warms_up() -> None:
    _, decisions = batch()
    region = TrustRegion(learning_rate=0.2, warmup=4)
    assert [region.rate(decisions, step) for step in (0, 1, 3, 9)] == pytest.approx([0.05, 0.1, 0.2, 0.2])
