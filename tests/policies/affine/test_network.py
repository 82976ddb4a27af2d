"""The literal five layers, the injected networks, the actor and the critic: equal to what they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.random import generator
from ascent.policies.affine.actor import AffineActor, Inward, QuadraticCritic
from ascent.policies.affine.injected import Injected
from ascent.policies.affine.linear import quality
from ascent.policies.affine.network import AffineNetwork, smallest_large
from ascent.policies.affine.regions import PiecewiseAffine, Region
from ascent.policies.continuous import Judged
from tests.policies.affine.plants import (
    BOX,
    CONTROL_COST,
    FORCE,
    PENDULUM,
    STATE_COST,
    VALUE,
    masses,
    pendulum,
    states,
)

CASES = {
    "pendulum": (pendulum, (np.array([-3.2, -8.0]), np.array([3.2, 8.0]))),
    "masses": (masses, (-np.ones(2) * 2, np.ones(2) * 2)),
}
MASSES_FORCE = np.array([-0.4, -0.6]), np.array([0.5, 0.3])
QUALITY = quality(*PENDULUM, STATE_COST, CONTROL_COST, VALUE, 0.99)


def square() -> PiecewiseAffine:
    """max(x1, x2) on the unit square, cut along its diagonal."""
    diagonal = np.array([-1.0, 1.0]) / np.sqrt(2)
    upper = np.vstack((-diagonal, [-1.0, 0.0], [0.0, 1.0])), np.array([0.0, 0.0, 1.0])
    lower = np.vstack((diagonal, [0.0, -1.0], [1.0, 0.0])), np.array([0.0, 0.0, 1.0])
    return PiecewiseAffine(
        (
            Region(*lower, np.array([[1.0, 0.0]]), np.zeros(1)),
            Region(*upper, np.array([[0.0, 1.0]]), np.zeros(1)),
        )
    )


def test_the_worked_example() -> None:
    law = square()
    domain = np.zeros(2), np.ones(2)
    assert smallest_large(law, domain) == 1.0
    network = AffineNetwork(law, (np.zeros(2), np.full(2, 2.0)))
    points = torch.tensor([[0.5, 0.4], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5], [2.0, 2.0]], dtype=torch.float64)
    _, within, first, _, value = network.layers(points)
    assert value[:, 0].tolist() == [0.5, 1.0, 1.0, 1.0, 0.5, 0.0]
    assert within[4].tolist() == [1.0, 1.0] and first[4].tolist() == [1.0, 0.0]
    assert within[5].tolist() == [0.0, 0.0]


def test_too_small_a_large_number_is_refused_and_would_leak() -> None:
    law = square()
    domain = np.zeros(2), np.ones(2)
    with pytest.raises(ValueError, match="large must be at least 1"):
        AffineNetwork(law, domain, 0.9)
    network = AffineNetwork(law, domain, 1.0)
    corner = torch.tensor([[0.9, 1.0]], dtype=torch.float64)
    assert float(network(corner)) == 1.0
    network.large = 0.5
    assert float(network(corner)) > 1.3


@pytest.mark.parametrize("name", CASES)
def test_the_layers_equal_the_law_and_the_online_solution(name: str) -> None:
    make, domain = CASES[name]
    problem, law = make()
    network = AffineNetwork(law, domain)
    points = states(4000, *domain, 5)
    layers = network(torch.from_numpy(points)).numpy()
    assert layers.shape == (4000, problem.inputs)
    assert np.abs(layers - law.evaluate(points)).max() < 1e-10
    assert 0.1 < law.contains(points).mean() < 0.9  # both inside and outside are met
    for point, said in zip(points[:150], layers[:150], strict=True):
        plan = problem.solve(point) if (problem.domain_rows @ point <= problem.domain_limits).all() else None
        wanted = np.zeros(problem.inputs) if plan is None else plan[: problem.inputs]
        assert np.abs(said - wanted).max() < 1e-9


def test_points_on_facets_count_once() -> None:
    """Where two regions meet, both are active in the second layer and one after the third."""
    _, law = pendulum()
    low, high = CASES["pendulum"][1]
    network = AffineNetwork(law, (low, high))
    met = 0
    for region in law.regions:
        for row, limit in zip(region.rows, region.limits, strict=True):
            line = row * limit + np.linspace(-8, 8, 65)[:, None] * np.array([-row[1], row[0]])
            line = line[((line > low) & (line < high)).all(-1)]
            _, within, first, _, value = network.layers(torch.from_numpy(line))
            met += int((within.sum(-1) > 1).sum())
            assert (first.sum(-1) <= 1.0).all()
            assert np.abs(value.numpy() - law.evaluate(line)).max(initial=0.0) < 1e-9
    assert met > 20


def actor(zero: str = "first", seed: int = 0, bound: float = 0.01) -> AffineActor:
    return AffineActor(pendulum()[1], FORCE, 16, bound, zero, seed).double()  # type: ignore[arg-type]


def moved(module: torch.nn.Module, seed: int = 1) -> None:
    """Random weights instead of the zero start."""
    draw = generator(seed, "moved")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype))


@pytest.mark.parametrize("zero", ["first", "second"])
def test_the_actor_begins_as_the_law(zero: str) -> None:
    law, points = pendulum()[1], states(1000, *BOX, 6)
    found = actor(zero).control(torch.from_numpy(points)).detach().numpy()
    assert np.abs(found - law.evaluate(points)).max() < 1e-10
    single = AffineActor(law, FORCE)
    acted = single.numpy_actor().outputs(points.astype(np.float32)) * 2.0
    assert acted.dtype == np.float32
    assert np.abs(acted - law.evaluate(points.astype(np.float32).astype(float))).max() < 2e-7


def test_two_inputs_begin_as_the_law_in_an_uneven_box() -> None:
    law, points = masses()[1], states(500, -np.ones(2), np.ones(2), 7)
    controller = AffineActor(law, MASSES_FORCE, 8).double()
    assert np.abs(controller.control(torch.from_numpy(points)).detach().numpy() - law.evaluate(points)).max() < 1e-10
    action = controller.fresh(torch.from_numpy(points), None)[0]
    assert float(action.detach().abs().max()) <= 1.0
    moved(controller)
    assert torch.from_numpy(controller.numpy_actor().outputs(points)).allclose(
        controller.before_bounds(torch.from_numpy(points)).detach(), atol=1e-12
    )


@pytest.mark.parametrize("zero", ["first", "second"])
def test_zero_start(zero: str) -> None:
    """0 exactly for 1000 inputs; small weights; every parameter has a gradient by the second update."""
    nets = Injected(3, 2, 2, 5, 0.01, generator(0, "test"), zero).double()  # type: ignore[arg-type]
    x = torch.from_numpy(states(1000, *BOX, 8))
    assert (nets(x) == 0).all()
    assert max(float(p.detach().abs().max()) for p in nets.parameters()) <= 0.01
    assert max(float(p.detach().abs().max()) for p in nets.parameters()) > 0.009
    optimiser = torch.optim.SGD(nets.parameters(), 0.1)
    goal = torch.sin(x[:, :1]) + torch.arange(3.0).double()[:, None, None] + 1.0
    for _ in range(2):
        optimiser.zero_grad()
        ((nets(x) - goal) ** 2).mean().backward()
        optimiser.step()
    assert all((p.grad != 0).all() for p in nets.parameters())


def test_both_layers_zero_would_never_learn() -> None:
    """The control: only the last biases get a gradient."""
    nets = Injected(1, 2, 1, 5, 0.0, generator(0, "test"))
    for _ in range(2):
        ((nets(torch.ones(4, 2)) - 1.0) ** 2).mean().backward()
    assert (nets.first_weight.grad == 0).all() and (nets.second_weight.grad == 0).all()


def test_only_the_active_regions_network_is_evaluated_and_trained() -> None:
    controller, law = actor(), pendulum()[1]
    moved(controller)
    for point in states(40, *BOX, 9):
        controller.zero_grad()
        x = torch.from_numpy(point[None])
        region = int(law.index(point))
        value = controller.control(x)
        value.sum().backward()
        gradients = controller.networks.second_weight.grad
        if region < 0:
            assert float(value.detach()) == 0.0 and not gradients.any()
            continue
        others = [i for i in range(len(law.regions)) if i != region]
        assert gradients[region].any() and not gradients[others].any()
        wanted = law.evaluate(point) + controller.networks(x)[region, 0].detach().numpy()
        assert np.abs(value.detach().numpy() - wanted).max() < 1e-12


def test_the_actors_gradients_are_right() -> None:
    controller = actor()
    moved(controller)
    x = torch.from_numpy(states(20, *BOX, 10))
    parameters = list(controller.parameters())

    def said(*values: torch.Tensor) -> torch.Tensor:
        names = dict(zip([n for n, _ in controller.named_parameters()], values, strict=True))
        return torch.func.functional_call(controller, names, (x,))

    controller.forward = controller.control  # type: ignore[method-assign]
    assert torch.autograd.gradcheck(said, parameters, fast_mode=True)


def test_the_bounds_let_gradients_back_in_only() -> None:
    x = torch.tensor([-2.0, -1.0, 0.5, 1.0, 2.0], requires_grad=True)
    for sign, wanted in ((1.0, [0, 0, 1, 1, 1]), (-1.0, [-1, -1, -1, 0, 0])):
        (gradient,) = torch.autograd.grad((sign * Inward.apply(x)).sum(), x)
        assert gradient.tolist() == wanted
    assert Inward.apply(x).tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]


def critic(zero: str = "first") -> QuadraticCritic:
    return QuadraticCritic(QUALITY, FORCE, 16, 0.01, zero).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("zero", ["first", "second"])
def test_the_critic_begins_as_the_regulators_cost(zero: str) -> None:
    """Of single precision numbers, as it is stored: compared with the same rounded."""
    one, two, three = (part.astype(np.float32).astype(float) for part in QUALITY)
    points, controls = states(1000, *BOX, 11), states(1000, *FORCE, 12)
    wanted = (
        np.einsum("bi,ij,bj->b", points, one, points)
        + np.einsum("bi,ij,bj->b", points, two, controls)
        + np.einsum("bi,ij,bj->b", controls, three, controls)
    )
    said = critic(zero)(torch.from_numpy(points), torch.from_numpy(controls / 2.0))
    assert said.shape == (1000, 1)
    assert np.abs(-said[:, 0].detach().numpy() / wanted - 1.0).max() < 1e-10


def test_the_least_cost_is_the_regulators_value_without_discount() -> None:
    parts = quality(*PENDULUM, STATE_COST, CONTROL_COST, VALUE, 1.0)
    judge = QuadraticCritic(parts, FORCE).double()
    with torch.no_grad():
        for parameter, part in zip((judge.state_cost, judge.mixed_cost, judge.control_cost), parts, strict=True):
            parameter.copy_(torch.from_numpy(part))
    for point in states(50, *BOX, 13):
        best = -0.5 * np.linalg.solve(parts[2], parts[1].T @ point)
        x = torch.from_numpy(point[None])
        least = float(judge.cost(x, torch.from_numpy(best[None])).detach())
        assert least == pytest.approx(point @ VALUE @ point, rel=1e-9)
        for other in (best + 0.1, best - 0.1):
            assert float(judge.cost(x, torch.from_numpy(other[None])).detach()) > least


def test_critics_gradients_and_frozen_weights() -> None:
    judge = critic()
    moved(judge)
    x = torch.from_numpy(states(6, *BOX, 14)).requires_grad_()
    u = torch.from_numpy(states(6, *FORCE, 15) / 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, a: judge(s, a), (x, u))
    judge.zero_grad()
    judge(x, u, frozen=True).sum().backward()
    assert all(parameter.grad is None for parameter in judge.parameters())
    assert u.grad is not None and u.grad.abs().min() > 0


def test_the_actors_loss_points_down_the_cost() -> None:
    """A step of gradient descent on minus the outcome lowers the critic's cost of the actor's actions."""
    controller, judge = actor(), critic()
    moved(judge)
    x = torch.from_numpy(states(200, -np.array([0.3, 1.0]), np.array([0.3, 1.0]), 16))[:, None]
    batch = Decisions(
        mask=torch.ones(200, 1, dtype=torch.bool),
        context={"observation": x, "next_observation": x},
        action=torch.zeros(200, 1, 1).double(),
    )
    judged = Judged(controller, judge, 1)
    costs = []
    optimiser = torch.optim.SGD(controller.parameters(), 1e-4)
    for _ in range(3):
        optimiser.zero_grad()
        outcome = judged.evaluate(batch, frozenset()).outcome
        assert outcome is not None
        loss = -outcome.mean()
        costs.append(float(loss.detach()))
        loss.backward()
        optimiser.step()
    assert costs[2] < costs[1] < costs[0]


def test_bad_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="zero must be"):
        Injected(1, 2, 1, 4, 0.01, generator(0, "x"), "third")  # type: ignore[arg-type]
