"""K critics as one: values and gradients of every one of them as if it stood alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.policies.critics import Critics


def alone(critics: Critics, k: int, observation: Tensor, action: Tensor) -> Tensor:
    """Q_k by plain layers."""
    x = torch.cat((observation, action), -1)
    activate = torch.relu if critics.activation == "relu" else torch.tanh
    for place, (weight, bias) in enumerate(zip(critics.weight, critics.bias, strict=True)):
        x = x @ weight[k] + bias[k, 0]
        x = activate(x) if place < len(critics.weight) - 1 else x
    return x.squeeze(-1)


def inputs(lead: tuple[int, ...] = (7, 1)) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*lead, n, generator=draw, dtype=torch.float64) for n in (3, 2))  # type: ignore[return-value]


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_values_and_gradients_equal_a_loop_over_critics(count: int, hidden: tuple[int, ...], activation: str) -> None:
    critics = Critics(3, 2, count, hidden, activation, seed=4).double()  # type: ignore[arg-type]
    observation, action = inputs()
    weights = torch.randn(7, 1, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batched = critics(observation, action)
    assert batched.shape == (7, 1, count)
    (batched * weights).sum().backward()
    ours = [parameter.grad.clone() for parameter in critics.parameters()]
    critics.zero_grad()
    looped = torch.stack([alone(critics, k, observation, action) for k in range(count)], -1)
    (looped * weights).sum().backward()
    assert torch.allclose(batched, looped, rtol=0, atol=1e-12)
    for mine, parameter in zip(ours, critics.parameters(), strict=True):
        assert torch.allclose(mine, parameter.grad, rtol=0, atol=1e-12)


def test_frozen_critics_pass_the_gradient_to_the_action_only() -> None:
    critics = Critics(3, 2, 2, (8, 6), seed=4).double()
    observation, action = inputs()
    mine, theirs = action.clone().requires_grad_(), action.clone().requires_grad_()
    critics(observation, mine, frozen=True).sum().backward()
    assert all(parameter.grad is None for parameter in critics.parameters())
    sum(alone(critics, k, observation, theirs).sum() for k in range(2)).backward()
    assert torch.allclose(mine.grad, theirs.grad, rtol=0, atol=1e-12)


def test_the_first_critics_alone() -> None:
    critics = Critics(3, 2, 3, (8,), seed=4).double()
    whole = critics(*inputs())
    assert torch.allclose(critics(*inputs(), first=1), whole[..., :1], rtol=0, atol=1e-12)
    assert torch.allclose(critics(*inputs(), frozen=True, first=2), whole[..., :2], rtol=0, atol=1e-12)


def test_members_begin_apart_and_the_last_layer_within_its_bound() -> None:
    critics = Critics(3, 2, 2, (8,), seed=4, final=3e-3)
    assert not torch.equal(critics.weight[0][0], critics.weight[0][1])
    assert float(critics.weight[-1].detach().abs().max()) <= 3e-3 < float(critics.weight[0].detach().abs().max())


def test_evaluation_is_of_the_recorded_action() -> None:
    critics = Critics(3, 2, 2, (8,), seed=4).double()
    observation, action = inputs()
    decisions = Decisions(mask=torch.ones(7, 1, dtype=torch.bool), context={"observation": observation}, action=action)
    now = critics.evaluate(decisions, frozenset({"value"}))
    assert torch.equal(now.value, critics(observation, action))


@pytest.mark.parametrize(
    ("changes", "message"), [({"count": 0}, "count must be"), ({"activation": "sine"}, "activation")]
)
def test_what_it_cannot_build_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Critics(3, 2, **changes)  # type: ignore[arg-type]


def test_a_copy_computes_with_its_own_weights() -> None:
    critics = Critics(3, 2, 2, (8,), seed=4).double()
    other = copy.deepcopy(critics)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2.0)
    before = critics(*inputs()).detach()
    assert torch.equal(before, Critics(3, 2, 2, (8,), seed=4).double()(*inputs()))
    assert torch.allclose(other(*inputs())[..., 1], alone(other, 1, *inputs()), rtol=0, atol=1e-12)
    critics.load_state_dict(other.state_dict())
    assert torch.equal(critics(*inputs()), other(*inputs())) and not torch.equal(critics(*inputs()), before)
