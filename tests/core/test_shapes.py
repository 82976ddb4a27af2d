"""The shapes that functions of tensors state in their types are true, and are checked here at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.divergences import KINDS, estimate
from ascent.core.reductions import REDUCTIONS
from ascent.core.returns import backward_sum, discounted_sum, gae
from ascent.core.surrogates import likelihood_ratio


def checked(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    wrapped: Callable[..., Tensor] = jaxtyped(typechecker=beartype)(function)
    return wrapped


def number(columns: int = 3) -> Tensor:
    return torch.ones(2, columns)


def flag(columns: int = 3) -> Tensor:
    return torch.ones(2, columns, dtype=torch.bool)


CALLS: list[tuple[Callable[..., Tensor], Callable[[int], tuple[Any, ...]]]] = [
    (backward_sum, lambda odd: (number(), number(odd))),
    (discounted_sum, lambda odd: (number(), flag(odd), flag(), 0.9)),
    (gae, lambda odd: (number(), number(), number(odd), flag(), flag(), flag(), 0.9, 0.95)),
    (likelihood_ratio, lambda odd: (number(), number(odd), flag())),
    *((estimate, lambda odd, kind=kind: (number(), number(odd), kind)) for kind in KINDS if kind != "exact"),
]


@pytest.mark.parametrize(("function", "arguments"), CALLS)
def test_functions_of_tensors_return_the_shape_they_state_and_refuse_another(function: Any, arguments: Any) -> None:
    assert checked(function)(*arguments(3)).shape == (2, 3)
    with pytest.raises(TypeCheckError):
        checked(function)(*arguments(4))


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
def test_reductions_give_one_factor_a_row(name: str) -> None:
    decisions = Decisions(mask=flag())
    assert checked(REDUCTIONS[name])(flag(), decisions, None).shape == (2, 1)
    with pytest.raises(TypeCheckError):
        checked(REDUCTIONS[name])(number(), decisions, None)
