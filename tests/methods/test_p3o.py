"""Pairwise PPO: unbiased by enumeration, invariant to shifts, its clips, and what it reduces to."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.pairs import partners
from ascent.core.registry import method
from ascent.methods.p3o import Pairwise
from ascent.systems.config import BadConfig, LanguageConfig
from ascent.systems.p3o import build
from ascent.training.processes import Processes

ACTIONS = 4
REWARD = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
OPEN = {"eps": math.inf, "ratio_limit": math.inf}


def batch(rows: int = 6, seed: int = 0, spread: float = 0.1) -> tuple[Tensor, Decisions]:
    """Log-probs [N, 4] and pairs of uneven rows, some way off the old policy."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    lengths = torch.randint(1, 5, (rows, 1), generator=draw)
    log_prob = -torch.rand(rows, 4, generator=draw, dtype=torch.float64) - 0.2
    decisions = Decisions(
        mask=torch.arange(4) < lengths,
        reward=torch.where(torch.arange(4) == lengths - 1, normal(rows, 1), 0.0),
        old_log_prob=log_prob - spread * normal(rows, 4),
        reference_log_prob=log_prob + 0.5 * normal(rows, 4),
        group=torch.arange(rows) // 2,
        key=torch.arange(rows),
    )
    return log_prob, decisions


def found(log_prob: Tensor, decisions: Decisions, **parameters: Any) -> tuple[Tensor, Tensor]:
    leaf = log_prob.clone().requires_grad_()
    loss, _ = method("p3o", **parameters).loss(Evaluation(log_prob=leaf), decisions)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def shifted(decisions: Decisions, size: float = 50.0) -> Decisions:
    """Rewards plus another number for each prompt."""
    delta = size * torch.randn(int(decisions.group.max()) + 1, generator=torch.Generator().manual_seed(9)).double()
    last = decisions.mask & (decisions.mask.cumsum(1) == decisions.mask.sum(1, keepdim=True))
    return decisions.replace(reward=decisions.reward + torch.where(last, delta[decisions.group][:, None], 0.0))


def by_loop(leaf: Tensor, decisions: Decisions, variant: str, beta: float, kl_at: str, average: str) -> Tensor:
    """The author's formulas for pairs (0, 1), (2, 3), ..., one after the other."""
    eps, c = 0.2, 10.0
    total = torch.zeros((), dtype=torch.float64)
    mask = decisions.mask
    for first in range(0, len(mask), 2):
        logp, old, ref, score = [], [], [], []
        for row in (first, first + 1):
            kept = mask[row]
            logp.append(leaf[row][kept].sum())
            old.append(decisions.old_log_prob[row][kept].sum())
            ref.append(decisions.reference_log_prob[row][kept].sum())
            score.append(decisions.reward[row][kept].sum())
        at = [x.detach() for x in logp] if kl_at == "current" else old
        r = [score[i] - beta * (at[i] - ref[i]) for i in (0, 1)]
        q = r[0] - r[1]
        w = ((logp[0] - old[0]) + (logp[1] - old[1])).detach().exp().clamp(1 / c, c)
        d, d_old = logp[0] - logp[1], old[0] - old[1]
        if variant == "v2":
            pair = torch.maximum(-q * w * d, -q * w * torch.clamp(d, d_old - eps, d_old + eps))
            total = total + (pair if average == "token" else pair / 2)
        elif variant == "v1":
            for i, j in ((0, 1), (1, 0)):
                other = (logp[j] - old[j]).exp().detach().clamp(1 / c, c)
                rho, cost = (logp[i] - old[i]).exp(), -(r[i] - r[j]) * other
                part = torch.maximum(cost * rho, cost * rho.clamp(1 - eps, 1 + eps))
                total = total + (part if average == "token" else part / 2)
        else:
            for i, sign in ((0, 1.0), (1, -1.0)):
                for t in torch.nonzero(mask[first + i])[:, 0].tolist():
                    now, before = leaf[first + i, t], decisions.old_log_prob[first + i, t]
                    cost = -sign * q * w
                    total = total + torch.maximum(cost * now, cost * torch.clamp(now, before - eps, before + eps))
    return total / (mask.sum() if average == "token" or variant == "token" else len(mask) / 2)


@pytest.mark.parametrize("variant", ["v1", "v2", "token"])
@pytest.mark.parametrize("kl_at", ["collection", "current"])
@pytest.mark.parametrize("average", ["pair", "token"])
@pytest.mark.parametrize("spread", [0.05, 0.4])
def test_loss_and_gradient_by_a_plain_loop(variant: str, kl_at: str, average: str, spread: float) -> None:
    log_prob, decisions = batch(8, 1, spread)
    loss, grad = found(log_prob, decisions, variant=variant, beta=0.3, kl_at=kl_at, average=average)
    leaf = log_prob.clone().requires_grad_()
    expected = by_loop(leaf, decisions, variant, 0.3, kl_at, average)
    assert torch.allclose(loss, expected, atol=1e-12)
    assert torch.allclose(grad, torch.autograd.grad(expected, leaf)[0], atol=1e-12)


def test_one_pair_by_hand() -> None:
    """Rewards 3 and 1, log-ratios +0.1 and -0.1: w = 1, d - d_old = 0.2 and V2's loss is -2 * d / 2 = -d."""
    old = torch.tensor([[-1.0], [-2.0]], dtype=torch.float64)
    rows = Decisions(
        mask=torch.ones(2, 1, dtype=torch.bool),
        reward=torch.tensor([[3.0], [1.0]], dtype=torch.float64),
        old_log_prob=old,
        group=torch.zeros(2, dtype=torch.int64),
    )
    now = old + torch.tensor([[0.1], [-0.1]], dtype=torch.float64)
    loss, grad = found(now, rows, beta=0.0, eps=0.5)
    assert float(loss) == pytest.approx(-1.2) and grad.flatten().tolist() == pytest.approx([-1.0, 1.0])
    loss, grad = found(now, rows, beta=0.0, eps=0.1)
    assert float(loss) == pytest.approx(-1.1) and grad.flatten().tolist() == [0.0, 0.0]
    loss, grad = found(now, rows, beta=0.0, eps=0.5, variant="v1")
    # L_1 = 2 e^-0.1 e^0.1 = 2, L_2 = -2 e^0.1 e^-0.1 = -2: the sum is 0, the gradients -1 and +1.
    assert float(loss) == pytest.approx(0.0, abs=1e-12) and grad.flatten().tolist() == pytest.approx([-1.0, 1.0])


def expected_gradient(logits: Tensor, sampler: Tensor, reward: Tensor, **parameters: Any) -> Tensor:
    """Sum over all pairs of actions, weighted by the sampler's chances, of the gradient in the logits."""
    total = torch.zeros(ACTIONS, dtype=torch.float64)
    for a in range(ACTIONS):
        for b in range(ACTIONS):
            action = torch.tensor([a, b])
            leaf = logits.clone().requires_grad_()
            rows = Decisions(
                mask=torch.ones(2, 1, dtype=torch.bool),
                reward=reward[action][:, None],
                old_log_prob=sampler.log()[action][:, None],
                reference_log_prob=PRIOR.log()[action][:, None],
                group=torch.zeros(2, dtype=torch.int64),
            )
            loss, _ = method("p3o", **parameters).loss(Evaluation(log_prob=leaf.log_softmax(0)[action][:, None]), rows)
            total += sampler[a] * sampler[b] * torch.autograd.grad(loss, leaf)[0]
    return total


LOGITS = torch.tensor([0.5, -0.3, 0.1, 0.9], dtype=torch.float64)


def true_gradient(beta: float = 0.0) -> Tensor:
    leaf = LOGITS.clone().requires_grad_()
    policy = leaf.softmax(0)
    return torch.autograd.grad((policy * (REWARD - beta * (policy.log() - PRIOR.log()))).sum(), leaf)[0]


@pytest.mark.parametrize("variant", ["v1", "v2", "token"])
@pytest.mark.parametrize("stale", [False, True])
def test_it_is_unbiased(variant: str, stale: bool) -> None:
    """On policy, and from another policy by the importance weights, where nothing is clipped."""
    sampler = (LOGITS + (torch.tensor([0.4, -0.2, 0.3, 0.0]) if stale else 0.0)).softmax(0)
    gradient = expected_gradient(LOGITS, sampler, REWARD, variant=variant, beta=0.0, **OPEN)
    # Token by token a pair counts twice and is divided by its two tokens: the same number here.
    assert torch.allclose(-gradient, true_gradient(), atol=1e-12)


@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("kl_at", ["collection", "current"])
def test_the_kl_in_the_reward_is_the_kl(variant: str, kl_at: str) -> None:
    """With r = 0 the gradient is -beta grad KL(pi || ref), on policy; with r it is that of the regularised value."""
    policy = LOGITS.softmax(0)
    nothing = torch.zeros(ACTIONS, dtype=torch.float64)
    gradient = expected_gradient(LOGITS, policy, nothing, variant=variant, beta=0.7, kl_at=kl_at, **OPEN)
    leaf = LOGITS.clone().requires_grad_()
    chance = leaf.softmax(0)
    divergence = torch.autograd.grad((chance * (chance.log() - PRIOR.log())).sum(), leaf)[0]
    assert torch.allclose(gradient, 0.7 * divergence, atol=1e-12)
    both = expected_gradient(LOGITS, policy, REWARD, variant=variant, beta=0.7, kl_at=kl_at, **OPEN)
    assert torch.allclose(-both, true_gradient(0.7), atol=1e-12)


@pytest.mark.parametrize("variant", ["v1", "v2", "token"])
@pytest.mark.parametrize("scale", ["none", "difference"])
def test_prompt_wise_shifts_change_nothing(variant: str, scale: str) -> None:
    log_prob, decisions = batch(8, 2, 0.3)
    plain = found(log_prob, decisions, variant=variant, reward_scale=scale)
    moved = found(log_prob, shifted(decisions), variant=variant, reward_scale=scale)
    assert torch.allclose(plain[0], moved[0], atol=1e-10) and torch.allclose(plain[1], moved[1], atol=1e-10)


def test_scales_and_limits_of_scores_that_break_the_invariance_are_what_they_say() -> None:
    log_prob, decisions = batch(8, 2, 0.3)
    for parameters in ({"reward_scale": "running"}, {"reward_clip": 0.5}):
        _, plain = found(log_prob, decisions, **parameters)
        _, moved = found(log_prob, shifted(decisions), **parameters)
        assert not torch.allclose(plain, moved, atol=1e-3)
    score = torch.where(decisions.mask, decisions.reward, 0.0).sum(1)
    part = Pairwise(reward_scale="running")
    assert float(part.annotate(decisions, part.start())["score_scale"][0]) == pytest.approx(float(score.std()))
    halves = [decisions.rows(slice(0, 4)), decisions.rows(slice(4, 8))]
    state = part.after(halves[0], {}, part.start())
    assert float(part.annotate(halves[1], state)["score_scale"][0]) == pytest.approx(float(score.std()))


@pytest.mark.parametrize("variant", ["v1", "v2", "token"])
def test_swapping_the_pair_changes_nothing(variant: str) -> None:
    log_prob, decisions = batch(6, 3, 0.3)
    order = torch.tensor([1, 0, 3, 2, 5, 4])
    swapped = decisions.rows(order).replace(key=torch.arange(6))
    plain, other = found(log_prob, decisions, variant=variant), found(log_prob[order], swapped, variant=variant)
    assert torch.allclose(plain[0], other[0], atol=1e-12) and torch.allclose(plain[1][order], other[1], atol=1e-12)


def test_both_variants_agree_where_the_policy_is_the_old_one() -> None:
    log_prob, decisions = batch(6, 4, 0.0)
    _, first = found(log_prob, decisions, variant="v1")
    _, second = found(log_prob, decisions, variant="v2")
    assert torch.allclose(first, second, atol=1e-12)


@pytest.mark.parametrize("variant", ["v1", "v2"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("step", [0.5, -0.5])
def test_the_clip_takes_the_gradient_only_where_it_has_gone_far_enough(variant: str, sign: float, step: float) -> None:
    """q > 0 stops above, q < 0 below; the other way the gradient stays."""
    old = torch.tensor([[-1.0], [-1.0]], dtype=torch.float64)
    rows = Decisions(
        mask=torch.ones(2, 1, dtype=torch.bool),
        reward=torch.tensor([[sign], [0.0]], dtype=torch.float64),
        old_log_prob=old,
        group=torch.zeros(2, dtype=torch.int64),
    )
    now = old + torch.tensor([[step], [0.0]], dtype=torch.float64)
    _, grad = found(now, rows, variant=variant, beta=0.0)
    assert bool(grad[0] == 0) is (sign * step > 0)


def test_equal_rewards_or_equal_responses_teach_nothing() -> None:
    log_prob, decisions = batch(6, 5, 0.2)
    equal = decisions.replace(reward=torch.zeros_like(decisions.reward))
    _, grad = found(log_prob, equal, beta=0.0)
    assert bool((grad == 0).all())
    twice = torch.tensor([0, 0, 2, 2, 4, 4])
    same = decisions.rows(twice).replace(key=torch.arange(6), group=torch.arange(6) // 2)
    loss, grad = found(log_prob[twice], same)
    assert float(loss) == 0.0 and bool((grad == 0).all())


def test_on_policy_it_is_rloo_with_two_samples() -> None:
    log_prob, decisions = batch(6, 6, 0.0)
    for variant in ("v1", "v2"):
        _, ours = found(log_prob, decisions, variant=variant, beta=0.0)
        leaf = log_prob.clone().requires_grad_()
        rloo, _ = method("rloo").loss(Evaluation(log_prob=leaf), decisions)
        assert torch.allclose(ours, torch.autograd.grad(rloo, leaf)[0], atol=1e-12)
        # GRPO with the mean as baseline and no deviation has half of each difference.
        leaf = log_prob.clone().requires_grad_()
        grpo = method("grpo", scale="none", kl_coefficient=0.0, reduction="seq-mean-token-sum")
        loss, _ = grpo.loss(Evaluation(log_prob=leaf), decisions)
        assert torch.allclose(ours, 2 * torch.autograd.grad(loss, leaf)[0], atol=1e-12)


def test_dpo_points_the_same_way() -> None:
    log_prob, decisions = batch(2, 7, 0.0)
    _, ours = found(log_prob, decisions, beta=0.0)
    leaf = log_prob.clone().requires_grad_()
    loss, _ = method("dpo").loss(Evaluation(log_prob=leaf), decisions)
    theirs = torch.autograd.grad(loss, leaf)[0]
    assert torch.allclose(ours / ours.norm(), theirs / theirs.norm(), atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    """Of V2 with detached weights: differences of the loss with w and q held at the point."""
    log_prob, decisions = batch(4, 8, 0.02)
    for variant in ("v2", "token"):
        _, grad = found(log_prob, decisions, variant=variant, beta=0.0, ratio_limit=1.0)
        for row, column in decisions.mask.nonzero().tolist():
            ends = []
            for step in (1e-6, -1e-6):
                moved = log_prob.clone()
                moved[row, column] += step
                ends.append(float(found(moved, decisions, variant=variant, beta=0.0, ratio_limit=1.0)[0]))
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(grad[row, column]), abs=1e-7)


def test_more_than_two_responses_have_disjoint_pairs() -> None:
    _, decisions = batch(8, 0)
    four = decisions.replace(group=torch.arange(8) // 4)
    partner, paired = partners(four)
    assert partner.tolist() == [1, 0, 3, 2, 5, 4, 7, 6] and bool(paired.all())
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    again, _ = partners(four.rows(order))
    assert torch.equal(order[again], partner[order])
    odd = decisions.rows(torch.tensor([0, 1, 2])).replace(group=torch.zeros(3, dtype=torch.int64))
    partner, paired = partners(odd)
    assert partner.tolist() == [1, 0, 2] and paired.tolist() == [True, True, False]


def test_what_is_logged() -> None:
    log_prob, decisions = batch(6, 9, 0.3)
    _, metrics = method("p3o").loss(Evaluation(log_prob=log_prob), decisions)
    score = torch.where(decisions.mask, decisions.reward, 0.0).sum(1)
    difference = (score[0::2] - score[1::2]).abs()
    assert float(metrics["pairs/reward_difference"]) == pytest.approx(float(difference.mean()))
    assert float(metrics["pairs/reward_difference_std"]) == pytest.approx(float(difference.square().mean().sqrt()))
    rho = torch.where(decisions.mask, log_prob - decisions.old_log_prob, 0.0).sum(1).exp()
    assert float(metrics["pairs/ratio_least"]) == pytest.approx(float(rho.min()))
    assert float(metrics["pairs/ratio_greatest"]) == pytest.approx(float(rho.max()))
    gap = metrics["pairs/log_ratio_chosen"] - metrics["pairs/log_ratio_rejected"]
    assert float(metrics["pairs/log_ratio_gap"]) == pytest.approx(float(gap))
    assert {"clip_fraction", "approximate_kl", "pairs/gain_abs", "pairs/gain_std", "pairs/ratio_mean"} <= set(metrics)


def test_pairs_are_never_cut() -> None:
    built = method("p3o")
    assert built.keep_together == "group" and built.plan.unit == "group"
    assert "reference_log_prob" in built.needs and "reference_log_prob" not in method("p3o", beta=0.0).needs


def test_responses_that_do_not_pair_are_refused_before_a_model_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    from ascent.systems import language

    monkeypatch.setattr(language, "load_policy", lambda *_: pytest.fail("a model was loaded"))
    config = LanguageConfig(method="p3o", batch=9, group_size=3)
    with pytest.raises(BadConfig, match=r"group_size must be even for 'p3o'.*got 3"):
        build(config, config.composed(), Processes())


@pytest.mark.parametrize(("name", "value"), [("eps", 0.0), ("ratio_limit", 0.5), ("reward_clip", 0.0)])
def test_what_cannot_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        method("p3o", **{name: value})
