"""An ensemble of dynamics models, and the slopes of value functions at states."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.registry import method
from ascent.policies.continuous import ContinuousActor, ContinuousHead
from ascent.policies.critics import Critics
from ascent.policies.dynamics import HIGHEST, LOWEST, Dynamics, Predicted, StateValues
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System

STATE, ACTION = 3, 2


def values() -> StateValues:
    actor = ContinuousActor(STATE, ContinuousHead(ACTION, True), (8,), "tanh").double()
    return StateValues(actor, [Critics(STATE, ACTION, 2, (8,), "tanh", seed).double() for seed in (1, 2)])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_member_is_a_network_of_its_own() -> None:
    model = Dynamics(STATE, ACTION, 3, 2, (5, 4)).double()
    state, action = normal(7, STATE), normal(7, ACTION, seed=1)
    model.standardise(state, action)
    said = model(state, action)
    inputs = torch.cat((state, action), -1)
    x0 = (inputs - inputs.mean(0)) / inputs.std(0, unbiased=False)
    for member in range(3):
        x = x0
        for place, (weight, bias) in enumerate(model.layers):
            x = x @ weight[member] + bias[member]
            x = torch.nn.functional.silu(x) if place < 2 else x
        torch.testing.assert_close(said[member], x)
    which = torch.tensor([2, 0])
    asked = model(torch.stack((state, state)), torch.stack((action, action)), which)
    torch.testing.assert_close(asked, said[which])


def test_a_constant_input_is_only_shifted() -> None:
    model = Dynamics(2, 1, 1, 1, (4,)).double()
    model.standardise(torch.ones(5, 2).double(), normal(5, 1))
    assert model.deviation[:2].tolist() == [1.0, 1.0] and model.mean[:2].tolist() == [1.0, 1.0]


def test_log_variances_stay_within_their_limits() -> None:
    model = Dynamics(STATE, ACTION, 2, 1, (5,), gaussian=True).double()
    said = model(1e6 * normal(50, STATE), 1e6 * normal(50, ACTION))
    assert said.shape[-1] == 2 * STATE + 1
    assert (said[..., STATE + 1 :] >= LOWEST).all() and (said[..., STATE + 1 :] <= HIGHEST).all()


def test_slopes_are_those_of_finite_differences_with_the_action_held() -> None:
    judges, state = values(), normal(4, 1, STATE)
    worth, slope = judges.slopes(state)
    assert worth.shape == (4, 1, 4) and slope.shape == (4, 1, 4, STATE)
    action = judges.action(state)

    def held(where: Tensor) -> Tensor:
        return torch.cat([critics(where, action) for critics in judges.critics], -1)

    torch.testing.assert_close(worth, held(state))
    step = 1e-6
    for place in range(STATE):
        moved = torch.zeros(STATE).double()
        moved[place] = step
        found = (held(state + moved) - held(state - moved)) / (2 * step)
        torch.testing.assert_close(slope[..., place], found, rtol=1e-6, atol=1e-8)


def test_slopes_are_kept_apart_by_value_function() -> None:
    judges, state = values(), normal(4, STATE)
    together = judges.slopes(state)[1]
    first = StateValues(judges.actor, judges.critics[:1]).slopes(state)[1]
    torch.testing.assert_close(together[:, :2], first)


@pytest.mark.parametrize("loss", ["vagram", "itervaml", "taylor"])
def test_no_gradient_reaches_critics_or_actor(loss: str) -> None:
    judges, model = values(), Dynamics(STATE, ACTION, 2, 1, (8,)).double()
    built = method("vagram", loss=loss).companions["model"]
    state, after = normal(6, 1, STATE), normal(6, 1, STATE, seed=3)
    worth, slope = judges.slopes(after)
    assert not slope.requires_grad and not worth.requires_grad
    decisions = Decisions(
        mask=torch.ones(6, 1, dtype=torch.bool),
        context={"observation": state, "next_observation": after},
        action=normal(6, 1, ACTION, seed=4),
        reward=normal(6, 1, seed=5),
        extras={
            "change": after - state,
            "value_slope": slope,
            "state_value": worth,
            "bootstrap": torch.ones(6, 1, 2).double(),
            "warm_up": torch.zeros(6, 1).double(),
        },
    )
    evaluation = Predicted(model, judges).evaluate(decisions, built.evaluates)
    built.loss(evaluation, decisions)[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    others = [*judges.actor.parameters(), *(one for critics in judges.critics for one in critics.parameters())]
    assert all(parameter.grad is None for parameter in others)


def test_the_ensemble_learns_a_linear_system() -> None:
    model = Dynamics(2, 1, 3, 2, (16,))
    state, action = normal(256, 1, 2).float(), normal(256, 1, 1, seed=1).float()
    change = state @ torch.tensor([[-0.5, 0.3], [0.1, -0.4]]) + action @ torch.tensor([[1.0, 0.5]])
    rows = Decisions(
        mask=torch.ones(256, 1, dtype=torch.bool),
        context={"observation": state, "next_observation": state + change},
        action=action,
        reward=state[..., 0],
        extras={
            "change": change,
            "value_slope": torch.ones(256, 1, 2, 2),
            "bootstrap": torch.ones(256, 1, 3),
            "warm_up": torch.zeros(256, 1),
        },
    )

    class Table:
        def draw(self, round_: int) -> Decisions:
            return rows

    built = method("vagram", model_learning_rate=1e-2).companions["model"]
    learn = Learn("model", model, built, Table())  # type: ignore[arg-type]
    loop = Loop(System({}, {}, ()))
    for turn in range(150):
        learn.run(loop, turn)
    losses = loop.recorded["model/loss"]
    assert float(losses[-1]) < 0.02 * float(losses[0])


def test_bad_elites_are_refused() -> None:
    with pytest.raises(ValueError, match="elites must be in"):
        Dynamics(2, 1, members=2, elites=3)
