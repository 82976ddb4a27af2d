"""Shaped rewards: by hand, and by what their gradient is."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.method import Method
from ascent.core.returns import RewardToGo, Score
from ascent.core.shaping import Constant, Penalised
from ascent.core.surrogates import LogProb
from ascent.core.term import Term
from ascent.evaluation.exact import gradient, gradient_statistics, sequence, tabular

F64 = torch.float64
MASK = torch.tensor([[True, True, False], [True, True, True]])


def decisions(**columns: torch.Tensor) -> Decisions:
    return Decisions(mask=MASK, **columns)


def test_constant_has_the_number_the_shape_and_the_type_of_the_other_columns() -> None:
    reward = torch.zeros(2, 3, dtype=F64)
    assert torch.equal(Constant(2.5)(decisions(reward=reward)), torch.full((2, 3), 2.5, dtype=F64))
    assert Constant()(decisions()).dtype == torch.get_default_dtype()
    assert Constant().needs == frozenset()


def test_penalised_by_hand_leaves_the_reward_as_it_was() -> None:
    reward = torch.tensor([[0.0, 1.0, 9.0], [0.0, 0.0, -1.0]], dtype=F64)
    old = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, -0.25, -3.0]], dtype=F64)
    reference = torch.tensor([[-1.5, -1.0, 5.0], [-0.5, -0.75, -1.0]], dtype=F64)
    given = decisions(reward=reward, old_log_prob=old, reference_log_prob=reference)
    expected = torch.tensor([[-0.05, 1.1, 0.0], [0.0, -0.05, -0.8]], dtype=F64)
    torch.testing.assert_close(Penalised(0.1)(given), expected)
    assert given.reward is reward


def test_another_scorer_and_another_reward_can_be_named() -> None:
    teacher = {"teacher_log_prob": torch.full((2, 3), -1.0, dtype=F64), "shaped": torch.ones(2, 3, dtype=F64)}
    given = decisions(old_log_prob=torch.zeros(2, 3, dtype=F64)).with_extras(teacher)
    part = Penalised(0.5, against="teacher", reward="shaped")
    assert part.needs == {"shaped", "old_log_prob", "teacher_log_prob"}
    torch.testing.assert_close(part(given), torch.where(MASK, 0.5, 0.0).to(F64))


def test_without_a_coefficient_no_reference_is_needed() -> None:
    reward = torch.ones(2, 3, dtype=F64)
    assert Penalised().needs == {"reward"}
    assert torch.equal(Penalised()(decisions(reward=reward)), reward)
    with pytest.raises(MissingColumn, match="reference_log_prob"):
        Penalised(0.1)(decisions(reward=reward, old_log_prob=reward))
    with pytest.raises(ValueError, match="coefficient must be >= 0"):
        Penalised(-0.1)


@pytest.mark.parametrize("credit", [Score, RewardToGo])
def test_its_expected_gradient_is_that_of_return_minus_the_divergence_of_sequences(credit: type) -> None:
    """Over every batch: grad J - beta grad KL(pi || reference) of whole responses, to 1e-10."""
    tree = sequence(lambda tokens: float(tokens[-1] == 0) + 0.5 * tokens.count(1), vocabulary=3, horizon=2)
    policy, reference, beta = tabular(tree, seed=1), tabular(tree, seed=2), 0.3
    method = Method(
        "penalised",
        {"policy": Term(LogProb(), reduction="seq-mean-token-sum")},
        advantage=credit(reward=Penalised(beta)),
    )
    found = gradient_statistics(method, tree, policy, 2, reference=reference)
    mine, other = tree.log_probability(policy), tree.log_probability(reference).detach()
    (slope,) = torch.autograd.grad((mine.exp() * (mine - other)).sum(), policy.logits)
    expected = gradient(tree, policy) - beta * slope.reshape(-1)
    torch.testing.assert_close(found.mean, expected, atol=1e-10, rtol=0)
