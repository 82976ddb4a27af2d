"""SAC: targets, entropy term, temperature by hand; the density of a squashed draw; the gradient through the critics."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from ascent.core.decisions import Decisions
from ascent.core.densities import SquashedGaussian
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method
from ascent.methods.sac import TemperatureLoss
from ascent.policies.continuous import ContinuousActor, ContinuousHead, Judged, Temperature
from ascent.policies.critics import Critics


def column(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def transitions() -> Decisions:
    """A plain one, a terminated one and a truncated one, each with two target critics."""
    flag = torch.tensor([[False], [True], [False]])
    return Decisions(
        mask=torch.ones(3, 1, dtype=torch.bool),
        action=torch.zeros(3, 1, 2, dtype=torch.float64),
        reward=column(1.0, 2.0, 3.0),
        terminated=flag,
        truncated=torch.tensor([[False], [False], [True]]),
        next_value=torch.tensor([[[4.0, 6.0]], [[8.0, 9.0]], [[7.0, 5.0]]], dtype=torch.float64),
    ).with_extras({"next_log_prob": column(-1.0, 2.0, 0.5), "temperature": column(0.2, 0.2, 0.2)})


def test_the_target_by_hand() -> None:
    critic = method("sac", discount=0.5).companions["critic"]
    # 1 + .5 (min(4, 6) + .2), 2 with nothing after it, 3 + .5 (min(7, 5) - .1): truncation bootstraps.
    expected = [[3.1], [2.0], [5.45]]
    assert critic.credit(transitions()).value_target.tolist() == [[pytest.approx(x) for x in row] for row in expected]


def test_the_critics_loss_adds_up_half_squared_errors() -> None:
    critic = method("sac", discount=0.5).companions["critic"]
    value = torch.tensor([[[3.1, 5.1]], [[2.0, 1.0]], [[5.45, 5.45]]], dtype=torch.float64, requires_grad=True)
    loss, _ = critic.loss(Evaluation(value=value), transitions())
    assert float(loss.detach()) == pytest.approx((0.5 * 4.0 + 0.5 * 1.0) / 3)
    loss.backward()
    assert torch.allclose(value.grad, torch.tensor([[[0, 2.0]], [[0, -1.0]], [[0, 0]]], dtype=torch.float64) / 3)


def test_the_policy_pays_for_what_is_likely_and_is_judged_by_the_smaller_critic() -> None:
    evaluation = Evaluation(
        outcome=torch.tensor([[[4.0, 5.0]], [[2.0, 1.0]], [[0.0, 0.0]]], dtype=torch.float64, requires_grad=True),
        probes={"own_log_prob": column(-1.0, 0.5, 2.0).requires_grad_()},
    )
    loss, metrics = method("sac").loss(evaluation, transitions())
    assert float(loss.detach()) == pytest.approx((0.2 * 1.5 - (4.0 + 1.0 + 0.0)) / 3)
    assert float(metrics["entropy"]) == pytest.approx(-0.5)
    assert float(metrics["temperature"]) == pytest.approx(0.2)


@pytest.mark.parametrize(("form", "slope"), [("temperature", 0.5), ("log", 1.0)])
def test_the_temperature_rises_while_the_entropy_is_too_low(form: str, slope: float) -> None:
    """By log alpha, the slope is -(log pi + H), times alpha = 0.5 in the paper's form."""
    model = Temperature(0.5).double()
    temperature = method("sac", temperature_form=form).companions["temperature"]
    decisions = transitions().with_extras({"own_log_prob": column(3.0, 2.0, 4.0)})
    loss, _ = temperature.loss(model.evaluate(decisions, temperature.evaluates), decisions)
    loss.backward()
    # Two numbers in an action: H = -2, so the mean bracket is 3 - 2 = 1.
    assert float(model.log.grad) == pytest.approx(-slope)


def test_a_given_target_entropy_replaces_minus_the_dimensions() -> None:
    decisions = transitions().with_extras({"own_log_prob": column(3.0, 2.0, 4.0)})
    now = Evaluation(probes={"temperature": torch.ones(3, 1, dtype=torch.float64)})
    assert torch.equal(TemperatureLoss(target_entropy=-7.0)(now, decisions), column(4.0, 5.0, 3.0))


def test_the_log_prob_of_a_draw_is_that_of_torch_distributions() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, log_std, noise = (torch.randn(50, 3, generator=draw, dtype=torch.float64) for _ in range(3))
    action, log_prob = SquashedGaussian(mean, log_std).drawn(noise)
    whole = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    before = mean + log_std.exp() * noise
    expected = Normal(mean, log_std.exp()).log_prob(before) - TanhTransform().log_abs_det_jacobian(
        before, before.tanh()
    )
    assert torch.allclose(action, before.tanh(), atol=1e-14)
    assert torch.allclose(log_prob, expected.sum(-1), atol=1e-12)
    inside = action.abs().amax(-1) < 0.999
    assert torch.allclose(log_prob[inside], whole.log_prob(action).sum(-1)[inside], atol=1e-8)


def test_a_far_draw_stays_finite() -> None:
    mean = torch.tensor([[40.0], [-40.0]], dtype=torch.float64, requires_grad=True)
    _, log_prob = SquashedGaussian(mean, torch.zeros(1, dtype=torch.float64)).drawn(
        torch.zeros(2, 1, dtype=torch.float64)
    )
    log_prob.sum().backward()
    assert bool(torch.isfinite(log_prob).all()) and bool(torch.isfinite(mean.grad).all())
    assert float(log_prob[0].detach()) == pytest.approx(80.0 - 2 * math.log(2.0) - 0.5 * math.log(2 * math.pi))


def test_the_policys_gradient_by_finite_differences_and_none_for_the_critics() -> None:
    actor = ContinuousActor(3, ContinuousHead(2, soft=True), (5,), "tanh", seed=1).double()
    critics = Critics(3, 2, 2, (6,), "tanh", seed=2).double()
    draw = torch.Generator().manual_seed(0)
    observation, noise = (torch.randn(4, 1, n, generator=draw, dtype=torch.float64) for n in (3, 2))
    decisions = Decisions(
        mask=torch.ones(4, 1, dtype=torch.bool),
        context={"observation": observation},
        reward=torch.zeros(4, 1, dtype=torch.float64),
    ).with_extras({"action_noise": noise, "temperature": torch.full((4, 1), 0.3, dtype=torch.float64)})
    sac, model = method("sac"), Judged(actor, critics)

    def loss() -> torch.Tensor:
        return sac.loss(model.evaluate(decisions, sac.evaluates), decisions)[0]

    loss().backward()
    assert all(parameter.grad is None for parameter in critics.parameters())
    for parameter in actor.parameters():
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)
        for place in range(0, len(flat), 3):
            with torch.no_grad():
                ends = []
                for shift in (1e-6, -2e-6):
                    flat[place] += shift
                    ends.append(float(loss()))
                flat[place] += 1e-6
            assert float(grad[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batch": 64, "capacity": 32, "start": 64}, "capacity must be an integer >= 64; got 32"),
        ({"batch": 64, "start": 63}, "start must be an integer >= 64; got 63"),
        ({"target_rate": 0.0}, r"target_rate must be a number in \(0, 1\]; got 0.0"),
        ({"target_entropy": math.nan}, "target_entropy must be a number"),
        ({"learn_temperature": "no"}, "learn_temperature must be one of"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method("sac", **parameters)


def test_a_fixed_temperature_has_no_companion() -> None:
    assert set(method("sac", learn_temperature=False).companions) == {"critic"}
