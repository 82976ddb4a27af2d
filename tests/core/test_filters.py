"""Dynamic sampling and soft overlong punishment."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.filters import Informative, Overlong
from ascent.core.returns import Score


def test_informative_groups_have_differing_scores() -> None:
    mask = torch.ones(7, 2, dtype=torch.bool)
    mask[6] = False
    reward = torch.zeros(7, 2)
    reward[:, 1] = torch.tensor([0.7, 0.7, 0.0, 1.0, 0.3, 0.7, 5.0])
    decisions = Decisions(mask=mask, reward=reward, group=torch.tensor([3, 3, 1, 1, 2, 3, 1]))
    # Group 3 is constant, group 1 differs, group 2 has one member, the last row decides nothing.
    assert Informative()(decisions).tolist() == [False, False, True, True, False, False, False]
    assert Informative(of="reward", by="batch")(decisions).tolist() == [True] * 6 + [False]
    assert Informative(of="reward").needs == {"reward", "group"}
    nobody = decisions.replace(mask=torch.zeros_like(mask))
    assert not Informative()(nobody).any()


def test_an_unscored_row_does_not_make_its_group_informative() -> None:
    mask = torch.tensor([[True], [True], [False]])
    reward = torch.tensor([[1.0], [1.0], [float("nan")]])
    decisions = Decisions(mask=mask, reward=reward, group=torch.zeros(3, dtype=torch.int64))
    assert Informative()(decisions).tolist() == [False, False, False]


def test_overlong_slope_by_hand() -> None:
    lengths = torch.tensor([1, 6, 7, 8, 10])
    mask = torch.arange(12) < lengths[:, None]
    decisions = Decisions(mask=mask, reward=torch.full((5, 12), 0.5, dtype=torch.float64))
    penalty = Overlong(limit=10, buffer=4, penalty=2.0)(decisions) - torch.where(mask, 0.5, 0.0)
    wanted = torch.zeros(5, 12, dtype=torch.float64)
    # DAPO's length reward: 0 up to 6, then (6 - length) / 4, here times 2.
    wanted[torch.arange(5), lengths - 1] = torch.tensor([0.0, 0.0, -0.5, -1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(penalty, wanted)
    share = Overlong(limit=10, buffer=0.4, penalty=2.0)(decisions)
    torch.testing.assert_close(share - torch.where(mask, 0.5, 0.0), wanted)
    beyond = Overlong(limit=8, buffer=4)(decisions)
    assert beyond[4].sum() == pytest.approx(10 * 0.5 - 1.0)


def test_overlong_feeds_a_credit_and_reads_the_budget() -> None:
    mask = torch.arange(6) < torch.tensor([[4], [6]])
    decisions = Decisions(mask=mask, reward=torch.zeros(2, 6)).with_extras({"budget": torch.tensor([4, 8])})
    part = Overlong(buffer=2)
    assert part.needs == {"reward", "budget"} and Overlong(8, 2).needs == {"reward"}
    assert Score(part)(decisions)[:, 0].tolist() == [-1.0, 0.0]
    with pytest.raises(MissingColumn, match="Overlong needs column 'budget'"):
        part(Decisions(mask=mask, reward=torch.zeros(2, 6)))


def test_range_errors() -> None:
    with pytest.raises(ValueError, match=r"buffer must be decisions in \[1, limit=4\] or a share in \(0, 1\]; got 5"):
        Overlong(4, 5)
    with pytest.raises(ValueError, match="penalty must be > 0; got -1"):
        Overlong(4, 2, -1)


def test_any_difference_is_informative() -> None:
    reward = torch.tensor([[0.5], [0.5 + 1e-9]], dtype=torch.float64)
    group = torch.zeros(2, dtype=torch.int64)
    decisions = Decisions(mask=torch.ones(2, 1, dtype=torch.bool), reward=reward, group=group)
    assert Informative()(decisions).tolist() == [True, True]
