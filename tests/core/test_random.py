"""Hash draws: equal everywhere, uniform, and free of collisions between small numbers."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from ascent.core.random import Ahead, generator, key, mix, uniform


def test_keys_are_the_same_on_every_machine() -> None:
    assert key(1, 2, "sample") == 1062835293701069934
    assert uniform(torch.tensor([1, 2]), 3).tolist() == [0.5267179955718279, 0.7083260617097036]
    assert key(1, 2) == key(1, 2) and key(1, 2) != key(2, 1)
    # Words do not run into one another.
    assert key("ab", "c") != key("a", "bc") and key(12) != key(1, 2)
    assert -(2**63) <= key("x") < 2**63


def test_generators_follow_their_words() -> None:
    first, second, other = (torch.rand(4, generator=generator(*words)) for words in ((1, "a"), (1, "a"), (2, "a")))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_small_keys_and_words_do_not_collide() -> None:
    rows, columns, more = torch.arange(100)[:, None, None], torch.arange(50)[:, None], torch.arange(20)
    assert len(mix(rows, columns, more).unique()) == 100 * 50 * 20
    assert len(mix(torch.arange(1000)).unique()) == 1000
    # The order of words matters.
    assert mix(torch.tensor(0), 1, 2) != mix(torch.tensor(0), 2, 1)


def test_draws_do_not_depend_on_their_neighbours() -> None:
    keys = torch.arange(30)
    order = torch.randperm(30, generator=generator("order"))
    assert torch.equal(uniform(keys, 3)[order], uniform(keys[order], 3))
    assert torch.equal(uniform(keys, 3)[4:5], uniform(keys[4:5], 3))


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    numbers = uniform(torch.arange(400)[:, None], torch.arange(250))
    assert numbers.dtype == torch.float64 and bool(((numbers >= 0) & (numbers < 1)).all())
    assert kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    for pair in ((numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])):
        table = torch.stack([part.flatten() for part in pair])
        assert abs(float(torch.corrcoef(table)[0, 1])) < 0.015


def test_draws_ahead_are_the_draws_of_each_turn() -> None:
    calls = []

    def draw(turns: Tensor) -> Tensor:
        calls.append(turns.tolist())
        return uniform(turns[:, None], torch.arange(3))

    ahead = Ahead(draw, 4)
    for turn in (0, 1, 3, 4, 9, 2):
        assert torch.equal(ahead(turn), draw(torch.tensor([turn]))[0])
    assert [each for each in calls if len(each) > 1] == [[0, 1, 2, 3], [4, 5, 6, 7], [9, 10, 11, 12], [2, 3, 4, 5]]
    for turn, count in ((3, 2), (5, 4), (20, 7)):
        assert torch.equal(ahead(turn, count), draw(torch.arange(turn, turn + count)))
    with pytest.raises(ValueError, match="turns must be an integer >= 1; got 0"):
        Ahead(draw, 0)
