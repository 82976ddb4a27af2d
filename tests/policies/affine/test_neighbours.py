"""Regions found across facets against enumeration, online solutions, and programs that enumeration refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ascent.policies.affine.neighbours as module
from ascent.policies.affine.critical import ball, radius
from ascent.policies.affine.neighbours import left, neighbours
from ascent.policies.affine.predictive import Program, program
from ascent.policies.affine.regions import PiecewiseAffine, Region, candidates, enumeration, explicit
from tests.policies.affine.plants import BOX, CONTROL_COST, FORCE, PENDULUM, STATE_COST, masses, pendulum, states

MOST = 100_000


def plant(seed: int, steps: int, inputs: int = 1, path_limits: bool = True) -> Program:
    """Two states, a random model with eigenvalues of size 0.5 to 1.2, random costs and limits."""
    draw = np.random.default_rng(seed)
    a = draw.normal(size=(2, 2))
    a *= draw.uniform(0.5, 1.2) / np.abs(np.linalg.eigvals(a)).max()
    root = draw.normal(size=(2, 2))
    costs = root @ root.T + 0.1 * np.eye(2), np.diag(draw.uniform(0.01, 1.0, inputs))
    bounds = -draw.uniform(0.2, 1.0, inputs), draw.uniform(0.2, 1.0, inputs)
    domain = -draw.uniform(1.0, 3.0, 2), draw.uniform(1.0, 3.0, 2)
    return program(a, draw.normal(size=(2, inputs)), *costs, steps, bounds, domain, path_limits)


def lattice(problem: Program) -> np.ndarray:
    """31 x 31 states over the domain, up to 1e-5 of its border, where slivers lie."""
    high, low = problem.domain_limits[:2] - 1e-5, 1e-5 - problem.domain_limits[2:]
    return np.stack(np.meshgrid(*np.linspace(low, high, 31).T), -1).reshape(-1, 2)


def compared(problem: Program) -> int:
    """Both searches must find the same, but for slivers thinner than a step; returns how many regions."""
    by_size, by_facet = enumeration(problem, MOST), neighbours(problem, MOST)
    assert {region.active for region in by_facet} <= {region.active for region in by_size}
    wide = [
        [one.active for one in found if radius(one.rows, one.limits) > module.STEP] for found in (by_size, by_facet)
    ]
    assert wide[0] == wide[1]
    if by_size:
        where = lattice(problem)
        assert (PiecewiseAffine(by_facet).evaluate(where) == PiecewiseAffine(by_size).evaluate(where)).all()
    return len(by_size)


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 3), path_limits=st.booleans())
@settings(max_examples=12, deadline=None)
def test_random_plants_have_the_regions_of_enumeration(seed: int, steps: int, path_limits: bool) -> None:
    compared(plant(seed, steps, path_limits=path_limits))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=5, deadline=None)
def test_random_plants_with_two_inputs_have_the_regions_of_enumeration(seed: int) -> None:
    compared(plant(seed, 1, inputs=2))


def test_a_sliver_is_all_that_may_be_missed() -> None:
    """Nearly dependent limits leave a region of radius 4e-7 at the border of this domain; a step is 1e-6."""
    problem = plant(6062, 3)
    missed = {one.active: one for one in enumeration(problem, MOST)}
    for found in neighbours(problem, MOST):
        del missed[found.active]
    assert len(missed) <= 1 and all(radius(one.rows, one.limits) < 1e-6 for one in missed.values())


@pytest.mark.parametrize("seed", [0, 1])
def test_four_steps_have_the_regions_of_enumeration(seed: int) -> None:
    assert compared(plant(seed, 4, path_limits=False)) > 5


def dependent(seed: int) -> Program:
    """Whole numbers for a model: limits coincide, facets border on several regions at once."""
    draw = np.random.default_rng(seed)
    size = 2 + seed % 2
    a, b = draw.integers(-1, 2, (size, size)).astype(float), draw.integers(-1, 2, (size, 1)).astype(float)
    one, many = np.ones(1), np.ones(size)
    return program(a, b, np.eye(size), np.eye(1), 2, (-one, one), (-2 * many, 2 * many))


@pytest.mark.parametrize("seed", [pytest.param(13, marks=pytest.mark.slow), 108])
def test_facets_that_no_single_constraint_explains_are_stepped_across(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = dependent(seed)
    by_size, by_facet = (PiecewiseAffine(found(problem, MOST)) for found in (enumeration, neighbours))
    assert {region.active for region in by_facet.regions} <= {region.active for region in by_size.regions}
    high = problem.domain_limits[: problem.domain_rows.shape[1]]
    where = states(3000, -high, high, 1)
    assert (by_facet.contains(where) == by_size.contains(where)).all()
    assert np.abs(by_facet.evaluate(where) - by_size.evaluate(where)).max() < 1e-12
    # Without the step regions stay unfound, so these programs do test it.
    whole = module.points
    monkeypatch.setattr(module, "points", lambda *given: whole(*given) if given[-1] == 0 else iter(()))
    assert len(neighbours(problem, MOST)) < len(by_facet.regions)


def test_a_limit_that_is_given_twice_is_one_limit() -> None:
    """Enumeration lists a region for each copy, this search one of them; the law is the same."""
    problem, law = pendulum()
    twice = replace(
        problem,
        rows=np.vstack((problem.rows, problem.rows[:1])),
        limits=np.append(problem.limits, problem.limits[0]),
        slopes=np.vstack((problem.slopes, problem.slopes[:1])),
    )
    found = neighbours(twice, MOST)
    assert len(found) == len(law.regions) < len(enumeration(twice, MOST))
    where = states(2000, *BOX, 3)
    assert np.abs(PiecewiseAffine(found).evaluate(where) - law.evaluate(where)).max() < 1e-12


@pytest.mark.parametrize("make", [pendulum, masses])
def test_known_controllers_are_the_same_to_the_last_bit(make: Callable[[], tuple[Program, PiecewiseAffine]]) -> None:
    problem, law = make()
    for one, other in zip(explicit(problem, search="neighbours").regions, law.regions, strict=True):
        assert one.active == other.active and one.across == other.across
        for name in ("rows", "limits", "gain", "offset"):
            assert (getattr(one, name) == getattr(other, name)).all()


def test_a_horizon_that_enumeration_refuses_is_solved() -> None:
    """Ten steps: 616,666 candidates. The law is the online solution, and there is a plan exactly in the regions."""
    short, _ = pendulum()
    assert candidates(short) == 79
    problem = plant(1, 10, path_limits=False)
    assert candidates(problem) > MOST
    with pytest.raises(ValueError, match="more than 500 candidate active sets; take search='neighbours'"):
        explicit(problem, most=500, search="enumeration")
    law = explicit(problem)
    assert len(law.regions) > 5
    inside = 0
    for state in states(300, -problem.domain_limits[2:], problem.domain_limits[:2], 2):
        plan = problem.solve(state)
        assert (plan is not None) == bool(law.contains(state))
        if plan is not None:
            inside += 1
            assert np.abs(law.evaluate(state) - plan[:1]).max() < 1e-8
    assert inside > 200


def test_long_horizons_with_limits_on_the_path() -> None:
    problem = pendulum_of(8)
    law = explicit(problem)
    met = {True: 0, False: 0}
    for state in states(300, *BOX, 2):
        plan = problem.solve(state)
        met[plan is not None] += 1
        assert (plan is not None) == bool(law.contains(state))
        if plan is not None:
            assert np.abs(law.evaluate(state) - plan[:1]).max() < 1e-8
    assert min(met.values()) > 20


def pendulum_of(steps: int) -> Program:
    """The clipped pendulum's program, not solved."""
    return program(*PENDULUM, STATE_COST, CONTROL_COST, steps, FORCE, BOX)


def test_binding_rows_are_those_with_a_price() -> None:
    """Far to the right the first push is at its low limit, row 1 of the inputs' rows; at rest nothing binds."""
    problem = pendulum_of(1)
    assert problem.binding(np.zeros(2)) == ()
    low = int(np.flatnonzero((problem.rows[:2] < 0).ravel())[0])
    assert problem.binding(np.array([0.5, 0.0])) == (low,)
    assert problem.binding(np.array([2.0, 8.0])) is None


def test_across_names_what_changes_at_each_facet() -> None:
    """The facet's own constraint leaves or joins; the other side's region, where there is one, leads back."""
    _, law = pendulum()
    known = {region.active: region for region in law.regions}
    pairs = 0
    for region in law.regions:
        assert len(region.across) == len(region.limits)
        for joined in region.across:
            assert joined is None or len(set(joined) ^ set(region.active)) == 1
            if joined in known:
                pairs += 1
                assert region.active in known[joined].across
    assert pairs >= 2 * (len(known) - 1)


def test_the_largest_ball_in_a_hyperplane() -> None:
    """The unit square cut by y = 0.25: an interval of length 1. Cut along its diagonal: one of length sqrt(2)."""
    rows, limits = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.array([1.0, 0.0, 1.0, 0.0])
    middle, size = ball(rows, limits, (np.array([0.0, 1.0]), 0.25))
    assert np.allclose(middle, [0.5, 0.25]) and size == pytest.approx(0.5)
    middle, size = ball(rows, limits, (np.array([1.0, -1.0]) / np.sqrt(2), 0.0))
    assert np.allclose(middle, [0.5, 0.5]) and size == pytest.approx(np.sqrt(0.5))
    assert ball(rows, limits, (np.array([0.0, 1.0]), 2.0))[1] <= 0


def test_what_a_region_leaves_of_a_facet() -> None:
    """The facet x = 0, 0 <= y <= 3; a region beyond it with 1 <= y <= 2 leaves two pieces of length 1."""
    rows, limits = np.array([[0.0, 1.0], [0.0, -1.0]]), np.array([3.0, 0.0])
    beyond = Region(np.array([[-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.array([0.0, 2.0, -1.0]), *np.zeros((2, 1, 1)))
    normal = np.array([1.0, 0.0])
    pieces = [ball(*piece, (normal, 0.0)) for piece in left(rows, limits, normal, beyond)]
    assert sorted(float(middle[1]) for middle, _ in pieces) == pytest.approx([0.5, 2.5])
    assert [size for _, size in pieces] == pytest.approx([0.5, 0.5])


def test_bad_searches_are_refused() -> None:
    problem, _ = pendulum()
    with pytest.raises(ValueError, match="search must be 'auto', 'enumeration' or 'neighbours'; got 'both'"):
        explicit(problem, search="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="search of neighbours looked at more than 3 active sets"):
        explicit(problem, most=3)
    never = replace(problem, limits=problem.limits - 100.0)
    for search in ("enumeration", "neighbours"):
        with pytest.raises(ValueError, match="no state admits a plan"):
            explicit(never, search=search)  # type: ignore[arg-type]
