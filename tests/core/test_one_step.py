"""One-step targets and K critics as one number: by hand, with termination, truncation and masks."""

from __future__ import annotations

import pytest
import torch

from ascent.core.critics import ValueLoss, pooled
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.returns import LambdaReturn, OneStep
from ascent.core.surrogates import Outcome


def decisions(critics: int | None) -> Decisions:
    """Two rows of three decisions; the first row's last is masked, the second's ends for good."""
    following = torch.tensor([[4.0, 2.0, 9.0], [1.0, 3.0, 8.0]], dtype=torch.float64)
    if critics is not None:
        following = following[..., None] + torch.arange(critics, dtype=torch.float64)
    return Decisions(
        mask=torch.tensor([[True, True, False], [True, True, True]]),
        reward=torch.tensor([[1.0, 2.0, 5.0], [0.0, -1.0, 3.0]], dtype=torch.float64),
        terminated=torch.tensor([[False, False, False], [False, False, True]]),
        truncated=torch.tensor([[False, True, False], [False, False, False]]),
        value=torch.zeros(2, 3, dtype=torch.float64),
        next_value=following,
    )


ONE = [[3.0, 3.0, 0.0], [0.5, 0.5, 3.0]]


@pytest.mark.parametrize(("pool", "shift"), [("min", 0.0), ("mean", 0.5)])
def test_targets_by_hand(pool: str, shift: float) -> None:
    """Nothing follows the end, truncation bootstraps, what is masked is 0."""
    assert OneStep(0.5)(decisions(None)).tolist() == ONE
    bootstraps = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor(ONE, dtype=torch.float64) + 0.5 * shift * bootstraps
    assert torch.equal(OneStep(0.5, pool=pool)(decisions(2)), expected)  # type: ignore[arg-type]


def test_a_target_for_each_critic() -> None:
    targets = OneStep(0.5, pool="none")(decisions(3))
    assert targets.shape == (2, 3, 3)
    assert targets[..., 0].tolist() == ONE
    assert targets[0, 0].tolist() == [3.0, 3.5, 4.0] and targets[1, 2].tolist() == [3.0, 3.0, 3.0]


def test_it_is_the_lambda_return_with_trace_0() -> None:
    assert torch.equal(OneStep(0.7)(decisions(None)), LambdaReturn(0.7, trace=0.0)(decisions(None)))


def test_what_follows_may_be_a_function() -> None:
    twice = OneStep(0.5, following=lambda given: 2.0 * given.next_value)
    assert twice(decisions(None))[0, 0] == 5.0
    assert twice.needs == {"reward", "terminated"}


@pytest.mark.parametrize(("changes", "message"), [({"discount": 1.1}, "discount"), ({"pool": "max"}, "pool must be")])
def test_wrong_targets_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneStep(**changes)  # type: ignore[arg-type]


def test_pools_of_critics() -> None:
    values = torch.tensor([[[1.0, 3.0, 8.0]]])
    assert pooled(values, "min").tolist() == [[1.0]] and pooled(values, "mean").tolist() == [[4.0]]
    assert pooled(values, "none") is values and pooled(values[..., 0], "min").tolist() == [[1.0]]


def test_an_outcome_is_pooled() -> None:
    evaluation = Evaluation(outcome=torch.tensor([[[1.0, 3.0]]]))
    assert Outcome()(evaluation, decisions(None)).tolist() == [[-1.0]]
    assert Outcome("mean")(evaluation, decisions(None)).tolist() == [[-2.0]]
    with pytest.raises(ValueError, match="pool must be 'min' or 'mean'"):
        Outcome("none")  # type: ignore[arg-type]


def test_critics_share_a_target_or_have_each_their_own() -> None:
    value = torch.tensor([[[1.0, 3.0]]])
    shared = Decisions(mask=torch.ones(1, 1, dtype=torch.bool), value_target=torch.tensor([[2.0]]))
    own = shared.replace(value_target=torch.tensor([[[1.0, 1.0]]]))
    assert ValueLoss()(Evaluation(value=value), shared).tolist() == [[1.0]]
    assert ValueLoss()(Evaluation(value=value), own).tolist() == [[2.0]]


def test_a_value_that_is_only_evaluated_need_not_be_recorded() -> None:
    assert ValueLoss().recorded == {"value_target"}
    assert ValueLoss(clip=0.2).recorded == {"value", "value_target"}
