"""The explicit law against an online solver, its continuity, and what the paper reports of its regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ascent.policies.affine.critical import radius
from ascent.policies.affine.linear import discretise, gain, linearise, quality, riccati
from ascent.policies.affine.predictive import Program, program
from ascent.policies.affine.regions import PiecewiseAffine, Region, explicit
from tests.policies.affine.plants import (
    BOX,
    CONTROL_COST,
    FORCE,
    PENDULUM,
    REACTOR,
    STATE_COST,
    VALUE,
    masses,
    pendulum,
    states,
)

CASES = {"pendulum": (pendulum, *BOX), "masses": (masses, -np.ones(2), np.ones(2))}


def test_the_printed_pendulum_is_the_exact_discretisation() -> None:
    a, b = discretise(np.array([[0.0, 1.0], [15.0, 0.0]]), np.array([[0.0], [3.0]]), 0.05)
    assert np.allclose(a, PENDULUM[0], atol=5e-5) and np.allclose(b, PENDULUM[1], atol=5e-5)


def test_the_jacobian_of_a_pendulum_is_its_linear_model() -> None:
    import torch

    def rates(state: torch.Tensor, force: torch.Tensor) -> torch.Tensor:
        return torch.stack((state[1], 15.0 * torch.sin(state[0]) + 3.0 * force[0]))

    for angle in (0.0, 0.7):
        by_state, by_force = linearise(rates, np.array([angle, 0.3]), np.array([0.5]))
        assert np.allclose(by_state, [[0.0, 1.0], [15.0 * np.cos(angle), 0.0]], atol=1e-15)
        assert np.allclose(by_force, [[0.0], [3.0]], atol=1e-15)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_riccati_is_a_fixed_point_of_one_step_of_optimal_control(discount: float) -> None:
    """P by its own definition: iterate the Bellman equation from 0 until nothing moves."""
    a, b = PENDULUM
    value = np.zeros((2, 2))
    for _ in range(2000):
        one, two, three = quality(a, b, STATE_COST, CONTROL_COST, value, discount)
        value = one - two @ np.linalg.solve(three, two.T) / 4.0
    assert np.allclose(riccati(a, b, STATE_COST, CONTROL_COST, discount), value, rtol=1e-9)


@pytest.mark.parametrize(
    ("cost", "count", "rows"), [(np.diag([1.0, 0.1]), 7, 32), (np.eye(2), 9, None)], ids=["gym", "identity"]
)
def test_the_pendulum_has_the_reported_regions(cost: np.ndarray, count: int, rows: int | None) -> None:
    law = explicit(program(*PENDULUM, cost, CONTROL_COST, 2, FORCE, BOX))
    assert len(law.regions) == count
    if rows is not None:
        assert sum(len(region.limits) for region in law.regions) == rows
        inside = law.contains(states(20_000, *BOX)).mean()
        assert abs(inside - 0.84) < 0.01


def test_the_reactor_has_seven_regions() -> None:
    box = np.array([-2.0, -2.0, -2.0, -70.0]), np.array([2.0, 2.0, 2.0, 5.0])
    law = explicit(
        program(*REACTOR, 0.1 * np.eye(4), np.array([[1e-4]]), 2, (np.array([-55.0]), np.array([55.0])), box, False)
    )
    assert len(law.regions) == 7


def plan_by_another_solver(problem: Program, state: np.ndarray) -> np.ndarray:
    """Sequential quadratic programming."""
    found = minimize(
        problem.cost,
        np.zeros(len(problem.hessian)),
        args=(state,),
        jac=lambda plan, theta: 2.0 * problem.hessian @ plan + problem.cross @ theta,
        constraints={
            "type": "ineq",
            "fun": lambda plan: problem.limits + problem.slopes @ state - problem.rows @ plan,
            "jac": lambda plan: -problem.rows,
        },
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 200},
    )
    assert found.success or found.status == 8
    return np.asarray(found.x)


@pytest.mark.parametrize("name", CASES)
def test_two_online_solvers_agree(name: str) -> None:
    make, low, high = CASES[name]
    problem, law = make()
    for state in states(200, low, high, 1):
        plan = problem.solve(state)
        assert (plan is not None) == bool(law.contains(state))
        if plan is not None:
            assert np.allclose(plan, plan_by_another_solver(problem, state), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_explicit_law_is_the_online_solution(name: str) -> None:
    make, low, high = CASES[name]
    problem, law = make()
    solved = 0
    for state in states(400, low, high, 2):
        plan = problem.solve(state)
        if plan is None:
            assert (law.evaluate(state) == 0).all()
            continue
        solved += 1
        assert np.abs(law.evaluate(state) - plan[: problem.inputs]).max() < 1e-9
    assert solved > 200


@pytest.mark.parametrize("name", CASES)
def test_every_plan_satisfies_its_optimality_conditions(name: str) -> None:
    """Stationary with multipliers >= 0 on constraints that bind: sufficient, as the program is strictly convex."""
    make, low, high = CASES[name]
    problem, law = make()
    for state in states(100, low, high, 3):
        if not law.contains(state):
            continue
        plan = problem.solve(state)
        assert plan is not None
        slack = problem.limits + problem.slopes @ state - problem.rows @ plan
        assert slack.min() > -1e-9
        binding = law.regions[int(law.index(state))].active
        assert np.abs(slack[list(binding)]).max(initial=0.0) < 1e-8
        force = 2.0 * problem.hessian @ plan + problem.cross @ state
        if not binding:
            assert np.abs(force).max() < 1e-8
            continue
        price, *_ = np.linalg.lstsq(problem.rows[list(binding)].T, -force, rcond=None)
        assert price.min() > -1e-8
        assert np.allclose(problem.rows[list(binding)].T @ price, -force, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_regions_partition_the_feasible_states(name: str) -> None:
    make, low, high = CASES[name]
    _, law = make()
    violation = law.violation(states(5000, low, high, 4))
    inside, touching = (violation < -1e-9).sum(-1), (np.abs(violation) < 1e-9).any(-1)
    clear = ~touching
    assert set(inside[clear]) <= {0, 1}
    assert (inside[clear] == 1).mean() > 0.3


@pytest.mark.parametrize("name", CASES)
def test_the_law_is_continuous_across_facets(name: str) -> None:
    """Points on a facet that lie in two regions: both laws say the same."""
    make, _, _ = CASES[name]
    _, law = make()
    met = 0
    for place, region in enumerate(law.regions):
        for row, limit in zip(region.rows, region.limits, strict=True):
            along = np.array([-row[1], row[0]])
            for step in np.linspace(-8, 8, 97):
                point = row * limit + along * step
                shared = np.flatnonzero(law.violation(point) < 1e-9)
                if place not in shared or len(shared) < 2:
                    continue
                met += 1
                laws = law.gains[shared] @ point + law.offsets[shared]
                assert np.ptp(laws, axis=0).max() < 1e-9
    assert met > 20


def test_without_active_limits_it_is_the_linear_quadratic_regulator() -> None:
    _, law = pendulum()
    free = next(region for region in law.regions if not region.active)
    assert np.allclose(free.gain, -gain(*PENDULUM, CONTROL_COST, VALUE), atol=1e-10)
    assert np.abs(free.offset).max() < 1e-12
    _, longer = pendulum(3)
    free = next(region for region in longer.regions if not region.active)
    assert np.allclose(free.gain, -gain(*PENDULUM, CONTROL_COST, VALUE), atol=1e-10)


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=2), st.lists(st.floats(-2, 2), min_size=2, max_size=2))
@settings(max_examples=50, deadline=None)
def test_the_condensed_cost_is_the_sum_along_the_trajectory(state: list[float], plan: list[float]) -> None:
    problem, _ = pendulum()
    now, total = np.array(state), 0.0
    for control in plan:
        total += now @ STATE_COST @ now + CONTROL_COST[0, 0] * control**2
        now = PENDULUM[0] @ now + PENDULUM[1][:, 0] * control
    total += now @ VALUE @ now
    assert np.isclose(problem.cost(np.array(plan), np.array(state)), total, rtol=1e-10, atol=1e-10)


def test_one_step_without_limits_is_the_critics_cost() -> None:
    """At N = 1 and no discount the program's objective is s'Q1 s + s'Q2 u + u'Q3 u."""
    wide = np.array([-np.inf]), np.array([np.inf])
    problem = program(*PENDULUM, STATE_COST, CONTROL_COST, 1, wide, BOX, path_limits=False)
    one, two, three = quality(*PENDULUM, STATE_COST, CONTROL_COST, VALUE, 1.0)
    assert np.allclose(problem.constant, one) and np.allclose(problem.cross, two.T)
    assert np.allclose(problem.hessian, three)
    # Its least value over u is s'Ps.
    assert np.allclose(one - two @ np.linalg.solve(three, two.T) / 4.0, VALUE)


def test_outside_of_all_regions() -> None:
    _, law = pendulum()
    nearest = PiecewiseAffine(law.regions, "nearest")
    outside = np.array([1.9, 7.9])
    assert not law.contains(outside)
    assert law.index(outside) == -1 and (law.evaluate(outside) == 0).all()
    assert nearest.evaluate(outside)[0] == pytest.approx(-2.0, abs=0.5)
    inside = np.array([[0.1, 0.0], [1.0, -3.0]])
    assert (nearest.evaluate(inside) == law.evaluate(inside)).all()


def test_the_largest_ball_of_a_triangle() -> None:
    """Sides 3, 4, 5: the inscribed circle has radius 1."""
    rows = np.array([[-1.0, 0.0], [0.0, -1.0], [0.8, 0.6]])
    assert radius(rows, np.array([0.0, 0.0, 2.4])) == pytest.approx(1.0)
    assert radius(rows, np.array([0.0, 0.0, -1.0])) < 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps must be an integer >= 1; got 0"),
        ({"domain": (np.array([1.0, 1.0]), np.array([1.0, 2.0]))}, "domain must be finite bounds"),
        ({"controls": (np.array([2.0]), np.array([-2.0]))}, "controls must be bounds, low below high"),
    ],
)
def test_bad_programs_are_refused(change: dict, message: str) -> None:
    plain = {"steps": 2, "controls": FORCE, "domain": BOX}
    with pytest.raises(ValueError, match=message):
        program(*PENDULUM, STATE_COST, CONTROL_COST, **{**plain, **change})


def test_programs_that_are_too_large_or_empty_are_refused() -> None:
    problem, law = pendulum()
    with pytest.raises(ValueError, match="more than 3 candidate active sets"):
        explicit(problem, most=3, search="enumeration")
    with pytest.raises(ValueError, match="outside must be"):
        PiecewiseAffine(law.regions, "far")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        PiecewiseAffine(())
    assert isinstance(law.regions[0], Region)
