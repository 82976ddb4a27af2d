"""Balanced policy optimization: the search by a plain loop, its properties, and what it reduces to."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ascent.core.centre import Centre
from ascent.core.clip_bounds import ControlledClip
from ascent.core.decisions import Decisions, concatenate
from ascent.core.divergences import Divergence
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method
from ascent.core.selectors import Top
from ascent.core.surrogates import ClippedRatio
from ascent.core.term import Term
from ascent.methods.bapo import Balance, Range

ORDERS, KINDS, CONTRIBUTIONS = ("high", "low"), ("share", "quotient"), ("value", "gradient")


def sample(seed: int, rows: int = 6, columns: int = 5, spread: float = 0.8) -> tuple[Tensor, Tensor, Tensor]:
    """Ratios, advantages (some zero) and a ragged mask."""
    draw = torch.Generator().manual_seed(seed)
    ratio = (spread * torch.randn(rows, columns, generator=draw, dtype=torch.float64)).exp()
    advantage = torch.randn(rows, 1, generator=draw, dtype=torch.float64).expand(rows, columns).clone()
    advantage[0] = 0.0
    return ratio, advantage, torch.arange(columns) < torch.randint(1, columns + 1, (rows, 1), generator=draw)


def sums(controller: Balance, ratio: Tensor, advantage: Tensor, mask: Tensor, low: float, high: float) -> list[float]:
    """P and N token by token."""
    positive = negative = 0.0
    for r, a, kept in zip(ratio.flatten().tolist(), advantage.flatten().tolist(), mask.flatten().tolist(), strict=True):
        if not kept:
            continue
        if a > 0:
            positive += (a * r if r < high else 0.0) if controller.contribution == "gradient" else a * min(r, high)
        elif a < 0:
            negative -= (a * r if r > low else 0.0) if controller.contribution == "gradient" else a * max(r, low)
    return [positive, negative]


def meets(controller: Balance, positive: float, negative: float) -> bool:
    if controller.quantity == "share":
        return positive + negative == 0 or positive / (positive + negative) >= controller.share - 1e-12
    wanted = controller.share / (1 - controller.share)
    return negative <= 0 or positive / (negative + 1e-8) >= wanted - 1e-12


def loop(controller: Balance, ratio: Tensor, advantage: Tensor, mask: Tensor) -> tuple[float, float]:
    """The search as a loop, one bound after the other."""
    at = {"low": controller.low.start, "high": controller.high.start}
    ends = {"low": controller.low, "high": controller.high}
    steps = {"low": 0, "high": 0}
    first = controller.order
    while not meets(controller, *sums(controller, ratio, advantage, mask, at["low"], at["high"])):
        for name in (first, "low" if first == "high" else "high"):
            range_ = ends[name]
            after = range_.start + (steps[name] + 1) * range_.step
            if range_.lands and at[name] < range_.end - 1e-9:
                after = min(after, range_.end)
            if after <= range_.end + 1e-9:
                at[name], steps[name] = after, steps[name] + 1
                break
        else:
            break
    return at["low"], at["high"]


def balances(share: float = 0.55, lands: bool = False) -> list[Balance]:
    return [
        Balance(Range(0.6, 0.9, 0.07, lands), Range(1.2, 3.0, 0.25, lands), share, order, quantity, contribution)  # type: ignore[arg-type]
        for order, quantity, contribution in itertools.product(ORDERS, KINDS, CONTRIBUTIONS)
    ]


@pytest.mark.parametrize("lands", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_search_is_the_loop(seed: int, lands: bool) -> None:
    columns = sample(seed)
    for controller in [*balances(0.35, lands), *balances(0.6, lands), *balances(0.75, lands)]:
        found = controller(*columns)
        assert (float(found.low), float(found.high)) == pytest.approx(loop(controller, *columns), abs=1e-12)


def test_the_search_by_hand() -> None:
    """Positive ratios 2 and 1 of advantage 1, negative ratio 0.5 of advantage -2: N = 2 max(0.5, c_low).

    At (0.6, 1.2) P = 2.2, N = 1.2; 2.2 / 3.4 = 0.647. For 0.7 c_high rises: P = c + 1 >= 0.7 / 0.3 * 1.2 = 2.8 at 1.8.
    For 0.75 P would have to be 3.6 > 3: c_high ends at 3, then c_low at its end, where the test fails still.
    """
    ratio, advantage = torch.tensor([[2.0, 1.0, 0.5]]), torch.tensor([[1.0, 1.0, -2.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)

    def found(share: float) -> list[float]:
        chosen = Balance(Range(0.6, 0.9, 0.1), Range(1.2, 3.0, 0.3), share)(ratio, advantage, mask)
        report = chosen.report
        return [
            float(x) for x in (chosen.low, chosen.high, report["positive_share"], report["positive_share_at_start"])
        ]

    assert found(0.6) == pytest.approx([0.6, 1.2, 2.2 / 3.4, 2.2 / 3.4])
    assert found(0.7) == pytest.approx([0.6, 1.8, 2.8 / 4.0, 2.2 / 3.4])
    assert found(0.75) == pytest.approx([0.9, 3.0, 3.0 / 4.8, 2.2 / 3.4])


def test_the_last_step() -> None:
    """The paper stops before it would overshoot, the code lands on the end; 36 * 0.05 reaches 3.0 in both."""
    assert Range(1.2, 3.0, 0.05).values()[-1] == pytest.approx(3.0)
    assert len(Range(1.2, 3.0, 0.05).values()) == len(Range(1.2, 3.0, 0.05, lands=True).values()) == 37
    assert Range(0.6, 0.9, 0.2).values().tolist() == pytest.approx([0.6, 0.8])
    assert Range(0.6, 0.9, 0.2, lands=True).values().tolist() == pytest.approx([0.6, 0.8, 0.9])
    assert Range(1.2, 1.2, 0.05).values().tolist() == [1.2]


ratios = st.lists(st.tuples(st.floats(0.01, 8.0), st.floats(-3.0, 3.0)), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(ratios, st.floats(0.05, 0.95))
def test_properties_of_the_search(pairs: list[tuple[float, float]], share: float) -> None:
    ratio, advantage = (torch.tensor([column], dtype=torch.float64) for column in zip(*pairs, strict=True))
    mask = torch.ones_like(ratio, dtype=torch.bool)
    low, high = torch.linspace(0.1, 0.99, 30).double(), torch.linspace(1.01, 5.0, 30).double()
    up, down = advantage > 0, advantage < 0
    for controller in balances(share):
        positive = controller.positive(ratio[up], advantage[up], high)
        negative = controller.negative(ratio[down], advantage[down], low)
        assert bool((positive.diff() >= -1e-9).all()), "raising c_high never takes from P"
        sign = 1 if controller.contribution == "value" else -1
        assert bool((sign * negative.diff() >= -1e-9).all()), "value: N rises with c_low; gradient: it falls"
        chosen = controller(ratio, advantage, mask)
        assert 0.6 <= float(chosen.low) <= 0.9 and 1.2 <= float(chosen.high) <= 3.0
        doubled = controller(ratio, 2 * advantage, mask)
        if controller.quantity == "share":  # the quotient's 1e-8 is no matter of scale
            assert (chosen.low, chosen.high) == (doubled.low, doubled.high)
        order = torch.randperm(ratio.numel(), generator=torch.Generator().manual_seed(0))
        shuffled = controller(ratio[:, order], advantage[:, order], mask)
        assert (chosen.low, chosen.high) == (shuffled.low, shuffled.high)


def test_found_bounds_are_the_first_that_suffice() -> None:
    """The bounds before them fail; they themselves pass or are the last."""
    searched = 0
    for seed in range(20):
        columns = sample(seed)
        for controller in balances(0.6):
            found = controller(*columns)
            low, high = controller.low.values().tolist(), controller.high.values().tolist()
            path = [(low[0], h) for h in high] + [(x, high[-1]) for x in low[1:]]
            if controller.order == "low":
                path = [(x, high[0]) for x in low] + [(low[-1], h) for h in high[1:]]
            place = path.index((float(found.low), float(found.high)))
            tests = [meets(controller, *sums(controller, *columns, *bounds)) for bounds in path]
            assert not any(tests[:place]) and (tests[place] or place == len(path) - 1)
            searched += 0 < place < len(path) - 1
    assert searched > 10


def test_share_and_quotient_targets_agree() -> None:
    """The quotient t is the share t / (1 + t), with the same order of search."""
    for seed, quotient in itertools.product(range(10), (0.5, 1.0, 2.0)):
        by = [
            Balance(share=quotient / (1 + quotient), order="low", quantity=quantity)(*sample(seed))  # type: ignore[arg-type]
            for quantity in KINDS
        ]
        assert (by[0].low, by[0].high) == (by[1].low, by[1].high)
    assert method("bapo", positive_quotient=1.0).losses["policy"].value.controller.share == 0.5  # type: ignore[attr-defined]


def test_edges() -> None:
    controller = Balance()
    ratio, advantage, mask = sample(0)
    for sign, expected in ((1.0, (0.6, 1.2)), (-1.0, (0.9, 3.0)), (0.0, (0.6, 1.2))):
        found = controller(ratio, sign * torch.ones_like(advantage), mask)
        assert (float(found.low), float(found.high)) == pytest.approx(expected)
    nothing = controller(ratio, advantage, torch.zeros_like(mask))
    assert (float(nothing.low), float(nothing.high)) == pytest.approx((0.6, 1.2))


def case(seed: int = 0, spread: float = 0.5) -> tuple[Tensor, Decisions]:
    """Log-probs and credited decisions in groups of 4, with behaviour log-probs some way off."""
    built = method("bapo")
    evaluation, decisions = built.example(8, 6, seed, torch.float64)
    log_prob = evaluation.log_prob.detach()
    noise = spread * torch.randn(8, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return log_prob, built.credit(decisions.replace(behaviour_log_prob=log_prob - noise))


def solved(built: object, log_prob: Tensor, decisions: Decisions) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    leaf = log_prob.clone().requires_grad_()
    loss, metrics = built.loss(Evaluation(log_prob=leaf), decisions)  # type: ignore[attr-defined]
    return loss.detach(), torch.autograd.grad(loss, leaf)[0], metrics


@pytest.mark.parametrize(("low", "high"), [(0.8, 1.2), (0.5, 2.5)])
def test_ranges_without_room_are_the_clipped_ratio(low: float, high: float) -> None:
    log_prob, decisions = case()
    fixed = method("bapo", low_start=low, low_end=low, high_start=high, high_end=high)
    plain = fixed.replace(losses={"policy": Term(ClippedRatio(1 - low, high - 1, against="behaviour"))})
    ours, theirs = solved(fixed, log_prob, decisions), solved(plain, log_prob, decisions)
    assert torch.allclose(ours[0], theirs[0], atol=1e-12) and torch.allclose(ours[1], theirs[1], atol=1e-12)


@pytest.mark.parametrize("variant", ["paper", "reference_code"])
def test_loss_and_gradient_by_a_plain_loop(variant: str) -> None:
    log_prob, decisions = case(4, 1.2)
    built = method("bapo", variant=variant, positive_share=0.55)
    loss, grad, metrics = solved(built, log_prob, decisions)
    leaf = log_prob.clone().requires_grad_()
    ratio = (leaf - decisions.behaviour_log_prob).exp()
    part = built.losses["policy"].value
    assert isinstance(part, ControlledClip) and isinstance(part.controller, Balance)
    low, high = loop(part.controller, ratio.detach(), decisions.advantage, decisions.mask)
    assert (low, high) != (0.6, 1.2), "the search moves, or this tests nothing"
    total = torch.zeros((), dtype=torch.float64)
    for row, column in decisions.mask.nonzero().tolist():
        a, r = decisions.advantage[row, column], ratio[row, column]
        value = torch.minimum(a * r, a * r.clamp(low, high))
        if variant == "reference_code" and a < 0:
            value = torch.maximum(value, 3.0 * a)
        total = total - value
    total = total / decisions.mask.sum()
    assert torch.allclose(loss, total, atol=1e-12)
    assert torch.allclose(grad, torch.autograd.grad(total, leaf)[0], atol=1e-12)
    assert float(metrics["clip_bound_low"]) == pytest.approx(low, abs=1e-6)
    assert float(metrics["clip_bound_high"]) == pytest.approx(high, abs=1e-6)


def test_on_policy_it_is_the_policy_gradient() -> None:
    """At r = 1 no bound can cut: the gradient is REINFORCE's whatever the search found."""
    log_prob, decisions = case(1, 0.0)
    for share in (0.1, 0.9):
        _, grad, metrics = solved(method("bapo", positive_share=share), log_prob, decisions)
        expected = torch.where(decisions.mask, -decisions.advantage, 0.0) / decisions.mask.sum()
        assert torch.allclose(grad, expected, atol=1e-12)
        assert float(metrics["clip_fraction"]) == 0.0


def test_no_gradient_flows_through_the_bounds() -> None:
    """Perturbing one log-prob moves the loss by its gradient, as long as the bounds stay where they are."""
    log_prob, decisions = case(2, 0.7)
    built = method("bapo", positive_share=0.5)
    _, grad, _ = solved(built, log_prob, decisions)
    prepared = built.prepare(decisions, Evaluation(log_prob=log_prob))
    assert not any(tensor.requires_grad for tensor in prepared.extras.values())
    for row, column in decisions.mask.nonzero().tolist()[:10]:
        moved = []
        for change in (1e-6, -1e-6):
            shifted = log_prob.clone()
            shifted[row, column] += change
            moved.append(float(built.loss(Evaluation(log_prob=shifted), prepared)[0]))
        assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(float(grad[row, column]), abs=1e-7)


def test_one_search_for_the_whole_update() -> None:
    """Halves of an update that would find other bounds alone are clipped by the whole's."""
    log_prob, decisions = case(4, 1.2)
    built = method("bapo", positive_share=0.55)
    prepared = built.prepare(decisions, Evaluation(log_prob=log_prob))
    alone = [
        built.prepare(decisions.rows(part), Evaluation(log_prob=log_prob[part])).column("clip_above")[0]
        for part in (slice(0, 4), slice(4, 8))
    ]
    assert len({round(float(x), 6) for x in [*alone, prepared.column("clip_above")[0]]}) > 1
    assert bool((prepared.column("clip_above") == prepared.column("clip_above")[0]).all())


def test_segments_keep_their_own_behaviour() -> None:
    """A row of two policies' tokens, as a partial rollout records it: each token's ratio is to who drew it."""
    mask = torch.ones(2, 4, dtype=torch.bool)
    behaviour = torch.tensor([[-1.0, -1.0, -2.0, -2.0], [-1.0, -1.0, -1.0, -1.0]], dtype=torch.float64)
    reward = torch.zeros(2, 4, dtype=torch.float64)
    reward[0, 3] = 1.0
    rows = Decisions(
        mask=mask,
        reward=reward,
        group=torch.tensor([0, 0]),
        behaviour_log_prob=behaviour,
        old_log_prob=torch.full((2, 4), -1.5, dtype=torch.float64),
        policy_version=torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
    )
    log_prob = torch.full((2, 4), -1.5, dtype=torch.float64)
    built = method("bapo", low_start=0.8, low_end=0.8, high_start=1.2, high_end=1.2)
    _, grad, metrics = solved(built, log_prob, rows)
    # exp(-0.5) = 0.61 for the old segment, exp(0.5) = 1.65 for the new one, 0.61 in the bad row, which is cut.
    advantage = 1 / math.sqrt(2) / 1.0
    scale = advantage / (math.sqrt(0.5) + 1e-6) * math.sqrt(0.5) / 8
    expected = [[-math.exp(-0.5) * scale] * 2 + [0.0] * 2, [0.0] * 4]
    assert torch.allclose(grad, torch.tensor(expected, dtype=torch.float64), atol=1e-6)
    assert float(metrics["clip_fraction"]) == pytest.approx(6 / 8)


def test_it_combines_with_other_papers() -> None:
    """Leave-one-out credit, an entropy selector and a teacher's KL around BAPO's bounds, split into micro-batches."""
    built = method("bapo", positive_share=0.55).replace(advantage=Centre(leave_one_out=True))
    selected = Term(built.losses["policy"].value, keep=Top("entropy", 0.5), count="kept")
    built = built.with_terms(policy=selected, teacher=Term(Divergence("k2", "teacher"), 0.3))
    evaluation, decisions = built.example(12, 5, 3, torch.float64)
    noise = torch.randn(12, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    decisions = built.credit(decisions.replace(behaviour_log_prob=evaluation.log_prob.detach() - noise))
    loss, _ = built.loss(evaluation, decisions)
    whole = torch.autograd.grad(loss, evaluation.log_prob)[0]
    prepared = built.prepare(decisions, evaluation)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    summed = torch.zeros_like(whole)
    for part in order.split(5):
        rows = Evaluation(
            log_prob=evaluation.log_prob.detach()[part].requires_grad_(), entropy=evaluation.entropy.detach()[part]
        )
        built.loss(rows, prepared.rows(part))[0].backward()
        assert rows.log_prob.grad is not None
        summed[part] += rows.log_prob.grad
    assert torch.allclose(summed, whole, atol=1e-12)
    assert {"teacher_log_prob", "entropy", "behaviour_log_prob"} <= built.needs


def test_joined_collections_keep_every_segment() -> None:
    _, decisions = case()
    both = concatenate([decisions, decisions.replace(group=decisions.group + 9)])
    assert torch.equal(both.behaviour_log_prob[:8], decisions.behaviour_log_prob)


@pytest.mark.parametrize(
    ("name", "value"),
    [("low_end", 1.0), ("low_start", 1.2), ("high_start", 1.0), ("high_end", 0.2), ("positive_share", 1.0)],
)
def test_bounds_that_cross_one_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be .* got {value}"):
        method("bapo", **{name: value})


def test_bounds_only_rise() -> None:
    with pytest.raises(ValueError, match="low_start must be <= low_end"):
        method("bapo", low_start=0.95)
    with pytest.raises(ValueError, match="high_start must be <= high_end"):
        method("bapo", high_start=4.0)
    for name in ("positive_quotient", "dual_clip", "segment_tokens"):
        with pytest.raises(ValueError, match=name):
            method("bapo", **{name: -1})
