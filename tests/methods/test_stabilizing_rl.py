"""MiniRL: loss and gradient by hand, what it reduces to, what the mask and the weight may and may not do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.decisions import Decisions, MissingColumn
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.registry import method
from ascent.core.surrogates import DecoupledClip, ImportanceWeighted, LogProb, MaskedLogProb
from ascent.core.term import Term
from tests.methods.groups import LENGTHS, RATIOS, decisions, now, number

ADVANTAGE = (0.5, -0.5, -2.0, 2.0)
ENGINES = (1.0, 1.0, 6.0, math.exp(-0.1))
"""pi_old / mu of every token of a row."""


def batch() -> Decisions:
    """Rows 0 and 1 are beyond the bounds of the mask, row 2 beyond the truncation."""
    gap = torch.tensor([[math.log(ratio)] * 3 for ratio in ENGINES], dtype=torch.float64)
    plain = decisions()
    return plain.replace(behaviour_log_prob=plain.old_log_prob - gap)


def gradient(built: Method, rows: Decisions, evaluation: Evaluation | None = None) -> Tensor:
    evaluation = evaluation or now()
    built.loss(evaluation, rows)[0].backward()
    assert evaluation.log_prob.grad is not None
    return evaluation.log_prob.grad


def test_loss_and_gradient_by_hand() -> None:
    evaluation = now()
    loss, metrics = method("stabilizing_rl").loss(evaluation, batch())
    weights = (0.0, 0.0, 5.0, 0.9 * math.exp(-0.1))
    each = [
        -n * w * a * (math.log(r) - 2.0) / 4 for n, w, a, r in zip(LENGTHS, weights, ADVANTAGE, RATIOS, strict=True)
    ]
    assert torch.allclose(loss, number(sum(each)), atol=1e-14)
    found = gradient(method("stabilizing_rl"), batch())
    for row, (weight, advantage, length) in enumerate(zip(weights, ADVANTAGE, LENGTHS, strict=True)):
        assert torch.allclose(found[row, :length], number(-weight * advantage / 4), atol=1e-14)
        assert bool((found[row, length:] == 0).all())
    # 8 tokens: row 0 has 1 and row 1 has 3 masked ones; row 2 has 2 truncated ones.
    assert float(metrics["clip_fraction_high"]) == pytest.approx(1 / 8)
    assert float(metrics["clip_fraction_low"]) == pytest.approx(3 / 8)
    assert float(metrics["clip_fraction"]) == pytest.approx(4 / 8)
    assert float(metrics["importance_changed"]) == pytest.approx(2 / 8)
    assert float(metrics["engine_kl"]) == pytest.approx((-2 * math.log(6.0) + 2 * 0.1) / 8)


def test_the_two_readings_of_the_truncation() -> None:
    """pi_old / mu = 6 and pi / pi_old = 1.1: min(6.6, 5) in one, min(6, 5) 1.1 in the other."""
    whole = gradient(method("stabilizing_rl"), batch())
    engines = gradient(method("stabilizing_rl", variant="engines"), batch())
    assert torch.allclose(whole[2, :2], number(2.0 * 5.0 / 4)) and torch.allclose(engines[2, :2], number(2.0 * 5.5 / 4))
    assert torch.allclose(whole[3], engines[3], atol=1e-14), "where nothing is truncated both are one"


def test_ablations_by_hand() -> None:
    def of(**parameters: object) -> Tensor:
        return gradient(method("stabilizing_rl", **parameters), batch())[:, 0]

    whole = torch.tensor([0.0, 0.0, 10.0, -1.8 * math.exp(-0.1)], dtype=torch.float64) / 4
    lengths = torch.tensor(LENGTHS, dtype=torch.float64)
    assert torch.allclose(of(length_norm=True), whole / lengths, atol=1e-14)
    without = torch.tensor([0.0, 0.0, 2.2, -1.8], dtype=torch.float64) / 4
    assert torch.allclose(of(engine_correction=False), without, atol=1e-14)
    unclipped = torch.tensor([-0.5 * 1.5, 0.5 * 0.5, 10.0, -1.8 * math.exp(-0.1)], dtype=torch.float64) / 4
    assert torch.allclose(of(clip_low=None, clip_high=None), unclipped, atol=1e-14)
    only_low = torch.tensor([-0.5 * 1.5, 0.0, 10.0, -1.8 * math.exp(-0.1)], dtype=torch.float64) / 4
    assert torch.allclose(of(clip_high=None), only_low, atol=1e-14)


def test_the_mask_asks_the_old_policy_and_the_weight_the_sampler() -> None:
    """Pitfall: pi_old in the weight, or mu in the decision."""
    rows = batch()
    before = gradient(method("stabilizing_rl", truncation=None), rows)
    # Another sampler changes the weights of the unmasked rows, and no decision of the mask.
    other = rows.replace(behaviour_log_prob=rows.behaviour_log_prob - 3.0)
    after = gradient(method("stabilizing_rl", truncation=None), other)
    assert torch.allclose(after, before * math.exp(3.0), atol=1e-12)
    # Another old policy changes the decision alone: row 0 is within bounds of it.
    shift = torch.tensor([[0.4], [0.0], [0.0], [0.0]], dtype=torch.float64)
    nearer = rows.replace(old_log_prob=rows.old_log_prob + shift)
    moved = gradient(method("stabilizing_rl", truncation=None), nearer)
    assert float(moved[0, 0]) == pytest.approx(-0.5 * 1.5 / 4) and torch.equal(moved[1:], before[1:])


def test_on_policy_it_is_reinforce_with_the_groups_mean() -> None:
    rows = decisions()
    same = Evaluation(log_prob=rows.old_log_prob.clone().requires_grad_())
    rows = rows.replace(behaviour_log_prob=rows.old_log_prob)
    found = gradient(method("stabilizing_rl"), rows, same)
    plain = method("stabilizing_rl").with_terms(policy=Term(LogProb(), reduction="seq-mean-token-sum"))
    again = Evaluation(log_prob=rows.old_log_prob.clone().requires_grad_())
    assert torch.equal(found, gradient(plain, rows, again))
    by_hand = -torch.tensor(ADVANTAGE, dtype=torch.float64)[:, None] / 4 * rows.mask
    assert torch.allclose(found, by_hand, atol=1e-15)


numbers = st.integers(0, 2**31 - 1)


def drawn(seed: int, apart: float = 0.3) -> tuple[Tensor, Decisions]:
    """Log-probs now [6, 5], and rows of uneven length in groups of 3 by two engines."""
    draw = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(6, 5, generator=draw, dtype=torch.float64)

    old = -normal().abs() - 0.5
    mask = torch.arange(5) < torch.randint(1, 6, (6, 1), generator=draw)
    final = mask & ~torch.cat([mask[:, 1:], torch.zeros(6, 1, dtype=torch.bool)], 1)
    rows = Decisions(
        mask=mask,
        reward=torch.where(final, normal(), 0.0),
        group=torch.arange(6) // 3,
        old_log_prob=old,
        behaviour_log_prob=old + apart * normal(),
    )
    return old + apart * normal(), rows


@settings(max_examples=40, deadline=None)
@given(numbers)
def test_it_is_decoupled_ppo_under_the_samplers_weight(seed: int) -> None:
    """Token by token, also where the clip acts: both are then 0."""
    log_prob, rows = drawn(seed)
    built = method("stabilizing_rl", truncation=None)
    decoupled = built.with_terms(policy=Term(DecoupledClip(0.2, 0.27), reduction="seq-mean-token-sum"))
    found = [gradient(one, rows, Evaluation(log_prob=log_prob.clone().requires_grad_())) for one in (built, decoupled)]
    assert torch.allclose(*found, atol=1e-13)
    assert bool((found[0] != 0).any())


@settings(max_examples=40, deadline=None)
@given(numbers, st.sampled_from([1.0, 2.0, 5.0]))
def test_the_reading_of_engines_is_decoupled_ppo_with_a_cap(seed: int, cap: float) -> None:
    log_prob, rows = drawn(seed, apart=1.0)
    built = method("stabilizing_rl", truncation=cap, variant="engines")
    decoupled = built.with_terms(policy=Term(DecoupledClip(0.2, 0.27, cap=cap), reduction="seq-mean-token-sum"))
    found = [gradient(one, rows, Evaluation(log_prob=log_prob.clone().requires_grad_())) for one in (built, decoupled)]
    assert torch.allclose(*found, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(numbers)
def test_masked_tokens_have_no_gradient_and_weights_none(seed: int) -> None:
    """The gradient of every token is -A w M / n: nothing flows through the weight."""
    log_prob, rows = drawn(seed)
    built = method("stabilizing_rl")
    found = gradient(built, rows, Evaluation(log_prob=log_prob.clone().requires_grad_()))
    advantage = built.credit(rows).advantage
    ratio = (log_prob - rows.old_log_prob).exp()
    masked = ((advantage > 0) & (ratio > 1.27)) | ((advantage < 0) & (ratio < 0.8))
    weight = (log_prob - rows.behaviour_log_prob).exp().clamp(max=5.0)
    assert torch.equal(found[masked], torch.zeros_like(found[masked]))
    expected = torch.where(masked | ~rows.mask, 0.0, -advantage * weight / 6)
    assert torch.allclose(found, expected, atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(numbers)
def test_an_infinite_truncation_is_plain_importance_sampling(seed: int) -> None:
    log_prob, rows = drawn(seed, apart=2.0)
    built = [method("stabilizing_rl", truncation=cap) for cap in (None, 1e30)]
    found = [gradient(one, rows, Evaluation(log_prob=log_prob.clone().requires_grad_())) for one in built]
    assert torch.equal(*found)


@settings(max_examples=20, deadline=None)
@given(numbers)
def test_appended_tokens_without_a_gradient_rescale_nothing(seed: int) -> None:
    """A response twice as long by masked tokens keeps the gradients of the others; with length norm they halve."""
    log_prob, rows = drawn(seed)
    rows = method("stabilizing_rl").credit(rows)
    wide = torch.ones(6, 10, dtype=torch.bool)
    wide[:, :5], wide[:, 5:] = rows.mask, rows.mask

    def doubled(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor], 1)

    # The second half stands beyond the bound on the side of its advantage.
    beyond = doubled(log_prob)
    beyond[:, 5:] = rows.old_log_prob + 2.0 * rows.advantage.sign()
    longer = Decisions(
        mask=wide,
        reward=torch.zeros(6, 10, dtype=torch.float64),
        group=rows.group,
        old_log_prob=doubled(rows.old_log_prob),
        behaviour_log_prob=doubled(rows.behaviour_log_prob),
        advantage=doubled(rows.advantage),
    )
    for norm, factor in ((False, 1.0), (True, 0.5)):
        built = method("stabilizing_rl", length_norm=norm)
        one = gradient(built, rows, Evaluation(log_prob=log_prob.clone().requires_grad_()))
        two = gradient(built, longer, Evaluation(log_prob=beyond.clone().requires_grad_()))
        silent = two[:, 5:][rows.mask & (rows.advantage != 0)]
        assert torch.equal(silent, torch.zeros_like(silent))
        assert torch.allclose(two[:, :5], one * factor, atol=1e-14)


def test_equal_rewards_teach_nothing_and_deviations_do_not_divide() -> None:
    equal = decisions((1.0, 1.0, 3.0, 7.0)).replace(behaviour_log_prob=batch().behaviour_log_prob)
    assert torch.equal(gradient(method("stabilizing_rl"), equal)[:2], torch.zeros(2, 3, dtype=torch.float64))
    far = decisions((1.0, 0.0, 30.0, 70.0)).replace(behaviour_log_prob=batch().behaviour_log_prob)
    assert torch.allclose(
        gradient(method("stabilizing_rl"), far)[2:], 10.0 * gradient(method("stabilizing_rl"), batch())[2:]
    )


def test_huge_ratios_stay_finite() -> None:
    rows = batch()
    rows = rows.replace(behaviour_log_prob=torch.full_like(rows.old_log_prob, -1e4))
    for parameters in ({"truncation": None}, {}, {"variant": "engines"}):
        found = gradient(method("stabilizing_rl", **parameters), rows)
        assert bool(found.isfinite().all()) and bool((found != 0).any())


def test_staleness_is_the_number_of_updates() -> None:
    plan = method("stabilizing_rl", minibatches=4).plan
    assert (plan.passes, plan.minibatches, plan.unit) == (1, 4, "group")


@pytest.mark.parametrize("replay", ["watch", "R2", "R3"])
def test_missing_routes_are_refused_by_name(replay: str) -> None:
    built = method("stabilizing_rl", replay=replay)
    evaluation, rows = built.example(4, 3)
    built.loss(evaluation, rows)
    bare = Decisions(**{name: rows.column(name) for name in ("mask", "reward", "group", "old_log_prob")})
    with pytest.raises(MissingColumn, match="'prompt_routes'"):
        built.loss(evaluation, bare)
    with pytest.raises(MissingColumn, match="'routes'"):
        built.loss(evaluation, bare.with_extras({"prompt_routes": rows.extras["prompt_routes"]}))


def test_routes_are_watched() -> None:
    built = method("stabilizing_rl", replay="R3")
    evaluation, rows = built.example(8, 4)
    changed = torch.zeros(8, 4)
    changed[0, 0], changed[1, 0] = 0.5, 1.0
    now_ = Evaluation(log_prob=evaluation.log_prob, probes={"routes_changed": changed})
    metrics = built.loss(now_, rows)[1]
    count = int(rows.mask.sum())
    assert float(metrics["routes_changed"]) == pytest.approx(1.5 / count)
    assert float(metrics["tokens_rerouted"]) == pytest.approx(2 / count)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"clip_low": 1.5}, r"clip_low must be a number in \[0, 1\]; got 1.5"),
        ({"truncation": 0.0}, r"truncation must be a number in \(0, inf\); got 0.0"),
        ({"engine": "float16"}, "engine must be one of .* got 'float16'"),
        ({"replay": "r2"}, "replay must be one of .* got 'r2'"),
        ({"engine_correction": 1}, "engine_correction must be one of True, False; got 1"),
        ({"experts": 1}, "experts must be 0 .* got 1"),
        ({"experts": 4, "experts_per_token": 4}, "experts_per_token must be < experts=4; got 4"),
        ({"minibatches": 0}, "minibatches must be an integer >= 1; got 0"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method("stabilizing_rl", **parameters)


def test_a_weight_of_a_policy_against_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="denominator must be another policy than numerator='old'"):
        ImportanceWeighted(MaskedLogProb(), numerator="old", denominator="old")
