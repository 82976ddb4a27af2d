"""The tests check the shapes that the core states: a wrong one must be refused here."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from ascent.core.returns import backward_sum
from ascent.core.surrogates import likelihood_ratio


def test_a_wrong_shape_is_refused_in_the_tests() -> None:
    with pytest.raises(TypeCheckError):
        backward_sum(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(TypeCheckError):
        likelihood_ratio(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3))
