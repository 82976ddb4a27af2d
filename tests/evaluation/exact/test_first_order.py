"""The token objective as a first-order approximation, enumerated: three tokens, at most four of them."""

from __future__ import annotations

import math

import pytest
import torch

from ascent.core.registry import method
from ascent.core.term import Term
from ascent.evaluation.exact.first_order import agreement, expected_gradient, token_objective
from ascent.evaluation.exact.policy import TabularPolicy, tabular
from ascent.evaluation.exact.problems import bandit, sequence
from ascent.evaluation.exact.tree import Tree, gradient


def worth(response: tuple[int, ...]) -> float:
    return {1: 0.2, 2: 1.0, 3: 0.4, 4: 0.7}[len(response)] * (1.0 if 2 in response else 0.3)


TREE = sequence(worth, vocabulary=3, horizon=4)
STEPS = (0.2, 0.1, 0.05, 0.025, 0.0125)


def moved(start: TabularPolicy, size: float, seed: int) -> TabularPolicy:
    """Logits `size` away along a fixed direction."""
    way = torch.randn(start.logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return TabularPolicy(start.logits.detach() + size * way)


def term(**parameters: object) -> Term:
    built = method("stabilizing_rl", truncation=None, clip_low=None, clip_high=None, **parameters)
    return built.losses["policy"]


def errors(seed: int, **parameters: object) -> list[tuple[float, float]]:
    """Cosine and relative error at every distance between sampler and policy."""
    mu = tabular(TREE, seed=seed)
    policies = [moved(mu, size, seed + 100) for size in STEPS]
    return [
        agreement(expected_gradient(term(**parameters), TREE, policy, mu), gradient(TREE, policy)[: mu.logits.numel()])
        for policy in policies
    ]


def slope(numbers: list[float]) -> float:
    """Power of the distance with which numbers fall, at the near end."""
    return math.log(numbers[-2] / numbers[-1]) / math.log(STEPS[-2] / STEPS[-1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_token_gradient_approaches_the_sequence_gradient_linearly(seed: int) -> None:
    found = errors(seed)
    cosines, relative = [pair[0] for pair in found], [pair[1] for pair in found]
    assert cosines == sorted(cosines) and cosines[-1] > 0.9999
    assert slope(relative) == pytest.approx(1.0, abs=0.1)
    assert relative[0] > 0.02, "far apart the two differ"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_objectives_differ_by_second_order(seed: int) -> None:
    mu = tabular(TREE, seed=seed)
    gaps = []
    for size in STEPS:
        policy = moved(mu, size, seed + 100)
        token = token_objective(TREE, policy, mu) - token_objective(TREE, mu, mu)
        gaps.append(abs(float(token.detach() - (TREE.objective(policy) - TREE.objective(mu)).detach())))
    assert slope(gaps) == pytest.approx(2.0, abs=0.2)


def test_the_expected_gradient_is_that_of_the_token_objective() -> None:
    mu = tabular(TREE, seed=0)
    policy = moved(mu, 0.7, 5)
    by_autograd = torch.autograd.grad(token_objective(TREE, policy, mu), policy.logits)[0].reshape(-1)
    torch.testing.assert_close(expected_gradient(term(), TREE, policy, mu), by_autograd, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_length_normalisation_does_not_converge(seed: int) -> None:
    """Neither in size nor in direction, where lengths vary."""
    found = errors(seed, length_norm=True)
    assert found[-1][1] > 0.3 and found[-1][0] < 0.995
    assert found[-1][1] == pytest.approx(found[-2][1], rel=0.05)


def test_without_varying_lengths_the_norm_is_only_a_scale() -> None:
    fixed = sequence(lambda response: float(sum(response)), vocabulary=3, horizon=3, end=None)
    mu = tabular(fixed, seed=0)
    cosine, error = agreement(expected_gradient(term(length_norm=True), fixed, mu, mu), gradient(fixed, mu)[:39])
    assert cosine == pytest.approx(1.0) and error == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_the_engine_correction_a_gap_between_engines_stays(seed: int) -> None:
    """pi_old = pi approaches nothing but itself: the gradient is that of mu's samples taken for pi's."""
    policy = tabular(TREE, seed=seed)
    true = gradient(TREE, policy)[: policy.logits.numel()]
    mu = moved(policy, 0.3, seed + 100)
    bias = []
    for size in STEPS:
        old = moved(policy, size, seed + 200)
        bias.append(
            agreement(expected_gradient(term(engine_correction=False), TREE, policy, mu, old), true)[1],
        )
    assert bias[-1] > 0.05 and slope(bias) < 0.2, "no freshness repairs it"
    exact = agreement(expected_gradient(term(engine_correction=False), TREE, policy, policy, policy), true)[1]
    assert exact < 1e-12, "with one engine there is nothing to correct"


@pytest.mark.parametrize("gap", [0.3, 1.0])
def test_for_single_tokens_the_correction_is_exact_at_any_gap(gap: float) -> None:
    tree: Tree = bandit([[0.0, 0.5, 1.0]])
    policy = tabular(tree, seed=1)
    mu, true = moved(policy, gap, 3), gradient(tree, policy)[:3]
    assert agreement(expected_gradient(term(), tree, policy, mu), true)[1] < 1e-12
    assert agreement(expected_gradient(term(engine_correction=False), tree, policy, mu), true)[1] > 0.05
