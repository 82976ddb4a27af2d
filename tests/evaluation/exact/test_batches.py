"""Listing batches without their order must say the same as listing every ordered batch."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ascent.core.centre import Centre
from ascent.core.method import Method
from ascent.core.surrogates import LogProb
from ascent.core.term import Term
from ascent.evaluation.exact import bandit, gradient_statistics, tabular
from ascent.evaluation.exact.batches import count, every, sample
from ascent.evaluation.exact.tree import flat

F64 = torch.float64
TREE = bandit([[1.0, 0.0, 0.5], [0.0, 0.2, 1.0]])
POLICY = tabular(TREE, seed=5)
METHOD = Method("grouped", {"policy": Term(LogProb(), reduction="seq-mean-token-sum")}, advantage=Centre(scale="group"))


def log_probability() -> torch.Tensor:
    return TREE.log_probability(POLICY).detach()


@pytest.mark.parametrize(("group_size", "groups"), [(1, 1), (3, 1), (2, 2), (2, 3)])
def test_probabilities_sum_to_one_and_the_count_is_right(group_size: int, groups: int) -> None:
    batches = list(every(TREE, log_probability(), group_size, groups))
    assert len(batches) == count(TREE, group_size, groups)
    assert math.fsum(batch.probability for batch in batches) == pytest.approx(1.0, abs=1e-12)
    for batch in batches:
        assert len(batch.groups) == groups
        assert all(len(group) == group_size and len(TREE.prompt[group].unique()) == 1 for group in batch.groups)


def test_moments_equal_those_over_every_ordered_batch() -> None:
    """A plain loop over ordered draws: 2 groups of 2, each of 2 questions x 3 x 3 answers."""
    group_list = [(question, pair) for question in (0, 1) for pair in itertools.product(range(3), repeat=2)]
    answer = POLICY.logits.detach().softmax(-1)
    mean, square = torch.zeros(6, dtype=F64), 0.0
    for first, second in itertools.product(group_list, repeat=2):
        chosen, probability, scores = [], 1.0, []
        for question, pair in (first, second):
            probability *= 0.5
            for arm in pair:
                probability *= float(answer[question, arm])
                chosen.append((question, arm))
            reward = [float(TREE.reward[3 * question + arm, 0]) for arm in pair]
            centre = sum(reward) / 2
            deviation = math.sqrt(sum((one - centre) ** 2 for one in reward))
            scores += [(one - centre) / (deviation + 1e-6) if deviation else 0.0 for one in reward]
        estimate = torch.zeros(2, 3, dtype=F64)
        for (question, arm), score in zip(chosen, scores, strict=True):
            estimate[question] -= score * answer[question] / 4
            estimate[question, arm] += score / 4
        mean += probability * flat((estimate,))
        square += probability * float((estimate**2).sum())
    found = gradient_statistics(METHOD, TREE, POLICY, group_size=2, groups=2)
    torch.testing.assert_close(found.mean, mean, atol=1e-12, rtol=0)
    assert found.variance == pytest.approx(square - float(mean @ mean), abs=1e-12)
    assert found.mean_squared_error == pytest.approx(found.variance + float(found.bias @ found.bias), abs=1e-12)
    assert found.exact and not found.standard_error.any()


def test_accepted_groups_keep_their_relative_probability() -> None:
    def mixed(rows: torch.Tensor) -> torch.Tensor:
        return (TREE.reward[rows, 0] != TREE.reward[rows[0], 0]).any().expand(len(rows))

    everything = {tuple(batch.groups[0].tolist()): batch.probability for batch in every(TREE, log_probability(), 2, 1)}
    accepted = {
        tuple(batch.groups[0].tolist()): batch.probability for batch in every(TREE, log_probability(), 2, 1, mixed)
    }
    assert 0 < len(accepted) < len(everything)
    assert sum(accepted.values()) == pytest.approx(1.0)
    total = sum(everything[group] for group in accepted)
    for group, probability in accepted.items():
        assert probability == pytest.approx(everything[group] / total)


def test_sampling_agrees_with_enumeration_and_repeats_by_seed() -> None:
    exact = gradient_statistics(METHOD, TREE, POLICY, 3)
    drawn = gradient_statistics(METHOD, TREE, POLICY, 3, samples=600, seed=1)
    assert not drawn.exact and drawn.batches == 600
    assert float(((drawn.mean - exact.mean) / drawn.standard_error).abs().max()) < 4
    assert drawn.variance == pytest.approx(exact.variance, rel=0.2)
    one, two, three = (
        [batch.groups[0].tolist() for batch in sample(TREE, log_probability(), 3, 1, 20, seed)] for seed in (1, 1, 2)
    )
    assert one == two != three


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="pass samples"):
        gradient_statistics(METHOD, TREE, POLICY, group_size=8, groups=4)
    with pytest.raises(ValueError, match="group_size and groups must be >= 1"):
        gradient_statistics(METHOD, TREE, POLICY, group_size=0)
    with pytest.raises(ValueError, match="samples must be"):
        gradient_statistics(METHOD, TREE, POLICY, group_size=1, samples=1)
    with pytest.raises(ValueError, match="no group of 2"):
        list(every(TREE, log_probability(), 2, 1, lambda rows: torch.zeros(len(rows), dtype=torch.bool)))
    with pytest.raises(ValueError, match="use a larger group"):
        list(
            sample(
                TREE, log_probability(), 2, 1, 2, 0, lambda rows: torch.zeros(len(rows), dtype=torch.bool), refills=10
            )
        )
