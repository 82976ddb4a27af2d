"""The entropy mechanism: the paper's lemma and theorems by finite differences, and what each variant selects."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.registry import method
from ascent.core.surrogates import ClippedRatio, Ratio
from ascent.core.term import Term
from ascent.methods.entropy_mechanism import SHARES, Candidate, Covariance, ResponseCovariance, top_means

COUNTS = (1, 2, 5, 8)
"""A batch that holds every action exactly in proportion to the policy COUNTS / 16."""


def enumerated(advantage: Tensor) -> tuple[Tensor, Evaluation, Decisions]:
    """Logits [4] of the policy COUNTS / 16 and the 16 decisions that represent it exactly."""
    probability = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    logits = probability.log().requires_grad_()
    action = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))[:, None]
    log_prob = logits.log_softmax(0)[action]
    decisions = Decisions(
        mask=torch.ones(16, 1, dtype=torch.bool),
        advantage=advantage[action],
        old_log_prob=log_prob.detach(),
        reward=advantage[action],
        group=torch.zeros(16, dtype=torch.int64),
    )
    return logits, Evaluation(log_prob=log_prob), decisions


def entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(0) * logits.log_softmax(0)).sum()


def centred_advantage(seed: int = 0) -> Tensor:
    """[4] with mean 0 under the policy."""
    raw = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return raw - (torch.tensor(COUNTS, dtype=torch.float64) / 16 * raw).sum()


def second_order(predicted: float, logits: Tensor, change: Tensor) -> None:
    """H(z + eta change) - H(z) = eta * predicted + O(eta^2): halving eta quarters the error."""
    errors = []
    for eta in (1e-3, 5e-4):
        difference = entropy(logits.detach() + eta * change) - entropy(logits.detach())
        errors.append(abs(float(difference) - eta * predicted))
    assert errors[0] < 1e-4 * max(abs(predicted), 1e-3) + 1e-5
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.05)
    assert abs(predicted) > 100 * errors[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lemma_1_entropy_falls_by_the_covariance_with_the_logit_change(seed: int) -> None:
    change = torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    logits, evaluation, decisions = enumerated(change)
    second_order(-float(Covariance()(evaluation, decisions).mean()), logits, change)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorem_1_policy_gradient(seed: int) -> None:
    """One gradient step of the real loss changes the logits by pi A and the entropy by -Cov(log pi, pi A)."""
    advantage = centred_advantage(seed)
    logits, evaluation, decisions = enumerated(advantage)
    built = method("entropy_mechanism", variant="kl_cov")
    loss, _ = built.loss(evaluation, decisions)
    change = -torch.autograd.grad(loss, logits)[0]
    probability = logits.detach().softmax(0)
    assert torch.allclose(change, probability * advantage, atol=1e-12)
    _, evaluation, weighted = enumerated(probability * advantage)
    second_order(-float(Covariance()(evaluation, weighted).mean()), logits, change)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorem_2_natural_gradient(seed: int) -> None:
    advantage = centred_advantage(seed)
    logits, evaluation, decisions = enumerated(advantage)
    second_order(-float(Covariance()(evaluation, decisions).mean()), logits, advantage)


def sample(seed: int = 0, rows: int = 16, columns: int = 10) -> tuple[Evaluation, Decisions]:
    built = method("entropy_mechanism")
    evaluation, decisions = built.example(rows, columns, seed, torch.float64)
    return evaluation, built.credit(decisions)


def test_mean_is_the_covariance() -> None:
    evaluation, decisions = sample()
    log_prob, advantage = evaluation.log_prob.detach()[decisions.mask], decisions.advantage[decisions.mask]
    expected = torch.cov(torch.stack([log_prob, advantage]), correction=0)[0, 1]
    assert torch.allclose(Covariance()(evaluation, decisions)[decisions.mask].mean(), expected, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(-3, 3), st.floats(-3, 3))
def test_covariance_is_bilinear_and_ignores_constants(shift: float, move: float, scale: float, factor: float) -> None:
    evaluation, decisions = sample()
    base = Covariance()(evaluation, decisions)
    changed = Covariance()(
        Evaluation(log_prob=scale * evaluation.log_prob.detach() + shift),
        decisions.replace(advantage=factor * decisions.advantage + move),
    )
    assert torch.allclose(changed, scale * factor * base, atol=1e-9)


def gradient(built: Method, evaluation: Evaluation, decisions: Decisions) -> tuple[Tensor, Tensor, Decisions]:
    leaf = evaluation.log_prob.detach().clone().requires_grad_()
    prepared = built.prepare(decisions, Evaluation(log_prob=leaf))
    loss, _ = built.loss(Evaluation(log_prob=leaf), prepared)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad, prepared


def clip_cov(**parameters: object) -> Method:
    return method(
        "entropy_mechanism", **{"covariance_low": 0.1, "covariance_high": 2.0, "clip_fraction": 0.05, **parameters}
    )


@pytest.mark.parametrize("fraction", [1e-6, 0.05, 0.1, 1.0])
def test_clip_cov_drops_the_right_number_of_candidates(fraction: float) -> None:
    evaluation, decisions = sample()
    built = clip_cov(clip_fraction=fraction, clip_low=0.1, clip_high=0.1)
    _, grad, prepared = gradient(built, evaluation, decisions)
    _, plain, _ = gradient(Method("ppo", {"policy": Term(ClippedRatio(0.1, 0.1))}), evaluation, decisions)
    dropped = decisions.mask & (prepared.extras["weight:policy"] == 0)
    # The candidates by a plain loop over the definition.
    log_prob, advantage, mask = evaluation.log_prob.detach(), decisions.advantage, decisions.mask
    mean_log_prob, mean_advantage = log_prob[mask].mean(), advantage[mask].mean()
    candidates = set()
    for row, column in torch.nonzero(mask).tolist():
        covariance = float((log_prob[row, column] - mean_log_prob) * (advantage[row, column] - mean_advantage))
        ratio, sign = (
            math.exp(log_prob[row, column] - decisions.old_log_prob[row, column]),
            float(advantage[row, column]),
        )
        cut = (ratio > 1.1 and sign > 0) or (ratio < 0.9 and sign < 0)
        if 0.1 < covariance < 2.0 and not cut:
            candidates.add((row, column))
    chosen = {tuple(place) for place in torch.nonzero(dropped).tolist()}
    assert len(candidates) > 3
    assert chosen <= candidates
    assert len(chosen) == min(max(math.floor(fraction * int(mask.sum())), 1), len(candidates))
    assert bool((grad[dropped] == 0).all())
    # The denominator still counts every decision: all others keep exactly PPO's gradient.
    assert torch.allclose(grad[~dropped], plain[~dropped], atol=1e-15)
    assert bool((plain[dropped] != 0).all())


def test_nothing_dropped_is_clipped_ppo() -> None:
    evaluation, decisions = sample()
    reference = gradient(Method("ppo", {"policy": Term(ClippedRatio(0.2, 0.2))}), evaluation, decisions)
    for built in (
        clip_cov(clip_fraction=0.0, clip_low=0.2, clip_high=0.2),
        clip_cov(covariance_low=1e6, covariance_high=1e7, clip_low=0.2, clip_high=0.2),
    ):
        loss, grad, _ = gradient(built, evaluation, decisions)
        assert torch.equal(loss, reference[0]) and torch.equal(grad, reference[1])


def test_nothing_dropped_is_grpo() -> None:
    """The baseline of the experiment: GRPO without reference, which then logs the covariances too."""
    evaluation, decisions = sample()
    built = method("entropy_mechanism", clip_fraction=0.0, clip_low=0.2, clip_high=0.2, diagnostics=True)
    grpo = method("grpo", kl_coefficient=0.0, reduction="token-mean")
    assert torch.equal(built.credit(decisions).advantage, grpo.credit(decisions).advantage)
    assert torch.equal(gradient(built, evaluation, decisions)[1], gradient(grpo, evaluation, decisions)[1])


def test_equal_advantages_select_nothing() -> None:
    evaluation, decisions = sample()
    flat = decisions.replace(advantage=torch.ones_like(decisions.advantage))
    _, _, prepared = gradient(clip_cov(covariance_low=0.0, clip_fraction=0.5), evaluation, flat)
    assert bool((prepared.extras["weight:policy"][flat.mask] > 0).all())


def test_bounds_are_strict() -> None:
    evaluation, decisions = sample()
    covariance = Covariance()(evaluation, decisions)[decisions.mask].sort().values
    low, high = float(covariance[20]), float(covariance[30])
    found = Candidate(low, high, "value", math.inf, math.inf)(evaluation, decisions)
    assert int(found.sum()) == 9


def test_quantile_bounds() -> None:
    evaluation, decisions = sample()
    found = Candidate(0.8, 1.0, "quantile", math.inf, math.inf)(evaluation, decisions)
    covariance = Covariance()(evaluation, decisions)
    count = int(decisions.mask.sum())
    ordered = covariance[decisions.mask].sort().values
    inside = (covariance > ordered[int(0.8 * count)]) & (covariance < ordered[-1]) & decisions.mask
    assert torch.equal(found.bool(), inside) and int(inside.sum()) > 5


@pytest.mark.parametrize("variant", ["clip_cov", "kl_cov"])
def test_control_takes_as_many_at_random(variant: str) -> None:
    evaluation, decisions = sample()
    weight = "weight:policy" if variant == "clip_cov" else "weight:kl_cov"
    chosen = []
    for control in (False, True):
        built = clip_cov(variant=variant, clip_fraction=0.1, kl_fraction=0.1, control=control)
        column = gradient(built, evaluation, decisions)[2].extras[weight]
        chosen.append(decisions.mask & ((column == 0) == (variant == "clip_cov")))
    assert int(chosen[0].sum()) == int(chosen[1].sum()) == math.floor(0.1 * int(decisions.mask.sum()))
    assert not torch.equal(chosen[0], chosen[1])


@pytest.mark.parametrize("fraction", [1e-6, 0.1, 1.0])
def test_kl_cov_by_a_plain_loop(fraction: float) -> None:
    evaluation, decisions = sample()
    built = method("entropy_mechanism", variant="kl_cov", kl_fraction=fraction, kl_coefficient=0.7)
    loss, grad, _ = gradient(built, evaluation, decisions)
    places = torch.nonzero(decisions.mask).tolist()
    count = len(places)
    covariance = Covariance()(evaluation, decisions)
    greatest = sorted(places, key=lambda place: -float(covariance[place[0], place[1]]))[
        : max(math.floor(fraction * count), 1)
    ]
    expected, slope = 0.0, torch.zeros_like(grad)
    for row, column in places:
        difference = float(evaluation.log_prob.detach()[row, column] - decisions.old_log_prob[row, column])
        advantage, ratio = float(decisions.advantage[row, column]), math.exp(difference)
        expected += -advantage * ratio / count
        slope[row, column] = -advantage * ratio / count
        if [row, column] in greatest:
            expected += 0.7 * abs(difference) / count
            slope[row, column] += 0.7 * math.copysign(1.0, difference) / count
    assert torch.allclose(loss, torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(grad, slope, atol=1e-12)


def test_kl_cov_without_penalty_is_the_unclipped_ratio() -> None:
    evaluation, decisions = sample()
    built = method("entropy_mechanism", variant="kl_cov", kl_coefficient=0.0, kl_fraction=0.5)
    reference = gradient(Method("ratio", {"policy": Term(Ratio())}), evaluation, decisions)
    found = gradient(built, evaluation, decisions)
    assert torch.allclose(found[0], reference[0], atol=1e-14) and torch.allclose(found[1], reference[1], atol=1e-14)


def test_on_policy_kl_cov_is_plain_policy_gradient() -> None:
    """At old = now the absolute log-ratio has gradient 0, so KL-Cov does nothing in the first step of a collection."""
    evaluation, decisions = sample()
    decisions = decisions.replace(old_log_prob=evaluation.log_prob.detach())
    _, grad, _ = gradient(method("entropy_mechanism", variant="kl_cov", kl_fraction=0.5), evaluation, decisions)
    expected = torch.where(decisions.mask, -decisions.advantage / decisions.mask.sum(), 0.0)
    assert torch.allclose(grad, expected, atol=1e-14)
    _, dropped, _ = gradient(clip_cov(clip_fraction=0.5), evaluation, decisions)
    assert not torch.allclose(dropped, expected)


def test_diagnostics() -> None:
    evaluation, decisions = sample()
    built = clip_cov()
    _, metrics = built.loss(evaluation, decisions)
    every = Covariance()(evaluation, decisions)[decisions.mask]
    assert float(metrics["covariance"]) == pytest.approx(float(every.mean()), rel=1e-6)
    count = int(decisions.mask.sum())
    assert float(metrics["kept/policy"]) == pytest.approx(1 - math.floor(0.05 * count) / count, rel=1e-6)
    ordered = sorted(every.tolist(), reverse=True)
    for share in SHARES:
        size = max(math.floor(share * count), 1)
        assert float(metrics[f"covariance_top/{share:g}"]) == pytest.approx(sum(ordered[:size]) / size, rel=1e-6)


def test_top_means() -> None:
    covariance = torch.tensor([[5.0, 1.0, 100.0], [3.0, -1.0, 2.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert top_means(covariance, mask, (0.0002, 0.4, 1.0)).tolist() == [5.0, 4.0, 2.0]
    assert top_means(covariance, torch.zeros_like(mask), (0.5, 1.0)).tolist() == [0.0, 0.0]


def answered() -> Decisions:
    """Three prompts with 4, 4 and 2 responses of accuracy 0.25, 0.75 and 0.5, and a response without decisions."""
    draw = torch.Generator().manual_seed(1)
    length = torch.tensor([1, 3, 2, 2, 3, 1, 2, 3, 2, 1, 0])
    mask = torch.arange(3) < length[:, None]
    score = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0], dtype=torch.float64)
    reward = torch.where(torch.arange(3) == length[:, None] - 1, score[:, None], 0.0)
    old = -torch.rand(11, 3, generator=draw, dtype=torch.float64)
    group = torch.tensor([7] * 4 + [2] * 4 + [5] * 3)
    return Decisions(mask=mask, reward=reward, group=group, old_log_prob=old)


def test_covariance_between_responses_by_a_plain_loop() -> None:
    decisions = answered()
    built = method("entropy_mechanism", diagnostics=True)
    credited = built.credit(decisions)
    assert torch.equal(credited.advantage, method("entropy_mechanism").credit(decisions).advantage)
    natural, policy = [], []
    for rows in (range(4), range(4, 8), range(8, 10)):
        means = torch.stack([decisions.old_log_prob[row][decisions.mask[row]].mean() for row in rows])
        advantage = credited.advantage[list(rows), 0]
        for found, second in ((natural, advantage), (policy, means.exp() * advantage)):
            found.append(float(torch.cov(torch.stack([means, second]), correction=0)[0, 1]))
    _, metrics = built.loss(Evaluation(log_prob=decisions.old_log_prob.clone().requires_grad_()), credited)
    assert float(metrics["response_covariance"]) == pytest.approx(sum(natural) / 3, rel=1e-6)
    assert float(metrics["response_covariance/policy"]) == pytest.approx(sum(policy) / 3, rel=1e-6)
    for level, expected in zip((0.125, 0.875, 0.5), natural, strict=True):
        assert float(metrics[f"response_covariance/accuracy_{level:g}"]) == pytest.approx(expected, rel=1e-6)


def test_a_level_of_accuracy_without_groups_is_not_logged() -> None:
    decisions = answered().rows(slice(0, 4))
    found = ResponseCovariance(levels=(0.3, 0.9)).averages(decisions)
    assert set(found) == {"response_covariance", "response_covariance/policy", "response_covariance/accuracy_0.3"}
    empty = decisions.replace(mask=torch.zeros_like(decisions.mask))
    assert ResponseCovariance().averages(empty) == {}


def test_diagnostics_leave_the_gradient_alone_and_split_exactly() -> None:
    built = method("entropy_mechanism", diagnostics=True, clip_fraction=0.05, covariance_low=0.1)
    evaluation, decisions = built.example(16, 10, 0, torch.float64)
    decisions = built.credit(decisions)
    plain = method("entropy_mechanism", clip_fraction=0.05, covariance_low=0.1)
    assert torch.equal(gradient(built, evaluation, decisions)[1], gradient(plain, evaluation, decisions)[1])
    prepared = built.prepare(decisions, evaluation.detach())
    _, whole = built.loss(evaluation, prepared)
    halves = [built.loss(evaluation.rows(half), prepared.rows(half))[1] for half in (slice(0, 5), slice(5, None))]
    for name, metric in whole.items():
        assert torch.allclose(metric, halves[0][name] + halves[1][name], atol=1e-10), name



def test_bad_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"covariance_low must be < covariance_high; got 5\.0 and 1\.0"):
        method("entropy_mechanism", covariance_low=5.0, covariance_high=1.0)
    with pytest.raises(ValueError, match=r"covariance_high must be a number in \[0, 1\]; got 5"):
        method("entropy_mechanism", bounds="quantile", covariance_low=0.9, covariance_high=5.0)
    with pytest.raises(ValueError, match=r"kl_fraction .* percentage"):
        method("entropy_mechanism", kl_fraction=2)


def test_the_penalty_is_against_the_old_policy_not_the_sampler() -> None:
    evaluation, decisions = sample()
    built = method("entropy_mechanism", variant="kl_cov", kl_fraction=0.3)
    stale = decisions.replace(behaviour_log_prob=decisions.old_log_prob - 1.0)
    first, second = gradient(built, evaluation, decisions), gradient(built, evaluation, stale)
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
