"""A term's factors: what counts, what is kept, where a unit's value sits."""

from __future__ import annotations

import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.part import Clock
from ascent.core.plan import Linear
from ascent.core.selectors import Top
from ascent.core.surrogates import LogProb
from ascent.core.term import Term

MASK = torch.tensor([[True, True, True, False], [True, False, True, True]])


def decisions(dtype: torch.dtype = torch.float64) -> Decisions:
    return Decisions(mask=MASK, advantage=torch.zeros(2, 4, dtype=dtype), key=torch.arange(2))


def test_kept_decisions_are_averaged_over_all_or_over_the_kept() -> None:
    half = Top(fraction=0.5, order="random")
    kept = half(None, decisions())
    assert int(kept.sum()) == 3
    share = Term(LogProb(), keep=half).weights(None, decisions(), Clock())
    torch.testing.assert_close(share, kept / 6.0, check_dtype=False)
    share = Term(LogProb(), keep=half, count="kept").weights(None, decisions(), Clock())
    torch.testing.assert_close(share, kept / 3.0, check_dtype=False)


def test_a_schedule_scales_the_weights() -> None:
    term = Term(LogProb(), Linear(1.0, 0.0), reduction="token-sum")
    for progress, factor in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (2.0, 0.0)):
        weights = term.weights(None, decisions(), Clock(progress=progress))
        assert torch.equal(weights, factor * MASK.to(torch.float64))


def test_a_row_s_value_sits_on_its_last_decision() -> None:
    weights = Term(LogProb(), unit="row").weights(None, decisions(), Clock())
    assert weights.tolist() == [[0.0, 0.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.5]]
    segmented = decisions().replace(segment=torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]]))
    weights = Term(LogProb(), unit="segment", reduction="token-sum").weights(None, segmented, Clock())
    assert weights.tolist() == [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_have_the_dtype_of_the_advantage(dtype: torch.dtype) -> None:
    assert Term(LogProb(), 0.5).weights(None, decisions(dtype), Clock()).dtype == dtype


def test_unknown_reduction() -> None:
    with pytest.raises(ValueError, match=r"reduction must be one of .*'token-mean'.*; got 'mean'"):
        Term(LogProb(), reduction="mean")
