"""Set functions: by hand, by property, and the running value against bitmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ascent.worlds.submodular import fields
from ascent.worlds.submodular.set_functions import (
    Collected,
    Coverage,
    FacilityLocation,
    InformationGain,
    Modular,
    SetFunction,
    curvature,
    gains,
    violations,
)


def functions() -> dict[str, SetFunction]:
    draw = np.random.default_rng(0)
    return {
        "coverage": Coverage(draw.random((12, 20)) < 0.2, draw.random(20)),
        "collected": Collected(draw.random((3, 12)) < 0.4, np.array((1, 2, 3))),
        "facility": FacilityLocation(draw.random((12, 7))),
        "information": InformationGain(fields.matern(3, 4, 1.5), noise=0.3),
        "modular": Modular(draw.random(12)),
    }


NAMES = tuple(functions())


@pytest.mark.parametrize("name", NAMES)
def test_it_is_monotone_submodular_and_zero_on_the_empty_set(name: str) -> None:
    assert violations(functions()[name], draws=300) == {"monotone": 0, "submodular": 0, "empty": 0}


class Squared:
    """|A|^2: monotone and supermodular."""

    elements = 6

    def value(self, members: np.ndarray) -> np.ndarray:
        return members.sum(-1).astype(float) ** 2

    def begin(self) -> None:
        raise AssertionError("not asked for")


def test_the_check_finds_a_function_that_is_not_submodular() -> None:
    found = violations(Squared(), draws=200)  # type: ignore[arg-type]
    assert found["submodular"] > 50 and found["monotone"] == 0


@pytest.mark.parametrize("name", NAMES)
@given(path=st.lists(st.integers(0, 11), min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_running_gains_telescope_to_the_value_and_repeats_add_nothing(name: str, path: list[int]) -> None:
    function = functions()[name]
    running = function.begin()
    members = np.zeros(12, bool)
    total = 0.0
    for element in path:
        expected = gains(function, members)[element]
        assert running.gain(element) == pytest.approx(expected, abs=1e-9)
        total += running.add(element)
        members[element] = True
        assert running.gain(element) == pytest.approx(0.0, abs=1e-12)
    assert total == pytest.approx(float(function.value(members)), abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_bitmaps_are_valued_one_by_one(name: str) -> None:
    function = functions()[name]
    members = np.random.default_rng(1).random((3, 5, 12)) < 0.4
    expected = [[float(function.value(members[i, j])) for j in range(5)] for i in range(3)]
    np.testing.assert_allclose(function.value(members), expected, atol=1e-12)


def test_a_running_value_leaves_its_function_as_it_was() -> None:
    function = functions()["coverage"]
    function.begin().add(3)
    other = function.begin()
    assert other.add(3) > 0


def test_coverage_by_hand() -> None:
    covers = np.array(((True, True, False), (False, True, True)))
    function = Coverage(covers, np.array((1.0, 2.0, 4.0)))
    assert function.value(np.array((True, False))) == 3.0
    assert function.value(np.array((True, True))) == 7.0
    assert gains(function, np.array((True, False))).tolist() == [0.0, 4.0]


def test_collected_by_hand() -> None:
    function = Collected(np.array(((True, True, True, False), (False, False, True, True))), np.array((2, 1)))
    assert function.value(np.array((True, True, True, False))) == 3.0  # min(3, 2) + min(1, 1)
    assert function.value(np.array((False, False, True, True))) == 2.0


def test_an_information_gain_is_half_the_log_of_one_plus_the_posterior_variance() -> None:
    kernel, noise = fields.matern(3, 4, 1.5), 0.3
    function = InformationGain(kernel, noise)
    seen = [1, 6, 7]
    members = np.zeros(12, bool)
    members[seen] = True
    inner = kernel[np.ix_(seen, seen)] + noise**2 * np.eye(3)
    across = kernel[:, seen]
    posterior = kernel.diagonal() - np.einsum("vi,ij,vj->v", across, np.linalg.inv(inner), across)
    expected = 0.5 * np.log1p(posterior / noise**2)
    found = gains(function, members)
    outside = ~members
    np.testing.assert_allclose(found[outside], expected[outside], rtol=1e-9)


def test_curvature_of_additive_is_zero_and_of_full_overlap_one() -> None:
    assert curvature(functions()["modular"]) == pytest.approx(0.0, abs=1e-12)
    assert curvature(Coverage(np.ones((4, 3), bool), np.ones(3))) == 1.0
    half = Coverage(np.array(((True, True, False), (False, True, True))), np.ones(3))
    assert curvature(half) == pytest.approx(0.5)  # alone 2, last 1


def test_the_additive_counterpart_pays_every_visit() -> None:
    function = functions()["coverage"]
    running = Modular.of(function).begin()
    alone = float(function.value(np.eye(12, dtype=bool))[4])
    assert running.add(4) == pytest.approx(alone) and running.add(4) == pytest.approx(alone)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Coverage(np.ones((2, 3), bool), -np.ones(3)), "weight must be"),
        (lambda: Collected(np.ones((2, 3), bool), np.array((1,))), "limits must be"),
        (lambda: FacilityLocation(-np.ones((2, 2))), "similarity must be >= 0"),
        (lambda: InformationGain(np.eye(2), 0.0), "noise must be > 0"),
        (lambda: InformationGain(np.array(((1.0, 0.5), (0.0, 1.0)))), "symmetric"),
        (lambda: fields.items(2, 2, (3, 3)), "sizes must add up"),
    ],
)
def test_bad_input_is_refused_by_name(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]
