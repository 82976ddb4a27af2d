"""Contrastive policy gradient: the three forms, its fixed point for any data, and what it reduces to."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.registry import method

FORMS = ("product", "squared", "detached")
BETA = 0.7


def batch(sizes: tuple[int, ...] = (2, 2, 2), seed: int = 0) -> tuple[Tensor, Decisions]:
    """Log-probs [N, 4] and decisions of groups of these sizes, rows of uneven length in mixed order."""
    draw = torch.Generator().manual_seed(seed)
    rows = sum(sizes)
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[torch.randperm(rows, generator=draw)]
    lengths = torch.randint(1, 5, (rows, 1), generator=draw)
    mask = torch.arange(4) < lengths
    log_prob = -torch.rand(rows, 4, generator=draw, dtype=torch.float64) - 0.2
    reward = torch.where(torch.arange(4) == lengths - 1, torch.randn(rows, 1, generator=draw, dtype=torch.float64), 0.0)
    reference = log_prob + 0.5 * torch.randn(rows, 4, generator=draw, dtype=torch.float64)
    return log_prob, Decisions(mask=mask, reward=reward, reference_log_prob=reference, group=group)


def rows(log_prob: Tensor, decisions: Decisions) -> tuple[Tensor, Tensor, Tensor]:
    """Per row: score, log pi, log-ratio to the reference."""
    kept = decisions.mask
    score = torch.where(kept, decisions.reward, 0.0).sum(1)
    policy = torch.where(kept, log_prob, 0.0).sum(1)
    return score, policy, policy - torch.where(kept, decisions.reference_log_prob, 0.0).sum(1)


def pair_objective(score: Tensor, ratio: Tensor, i: int, j: int, beta: float) -> Tensor:
    """l(y_i, y_j) as the paper writes it, eqs. 7-9."""
    first, second = score[i] - beta / 2 * ratio[i], score[j] - beta / 2 * ratio[j]
    return (first - second) * ratio[i] + (second - first) * ratio[j]


def reference_loss(log_prob: Tensor, decisions: Decisions, beta: float = BETA) -> Tensor:
    """-l_k weighted by the rows of each group, a plain loop: mean over rows of k * (-l_k) / k."""
    score, _, ratio = rows(log_prob, decisions)
    total = torch.zeros((), dtype=torch.float64)
    for cell in decisions.group.unique():
        members = torch.nonzero(decisions.group == cell)[:, 0].tolist()
        pairs = [pair_objective(score, ratio, i, j, beta) for i, j in itertools.combinations(members, 2)]
        if pairs:
            total = total - len(members) * torch.stack(pairs).sum() / (len(members) - 1)
    return total / len(decisions)


def found(form: str, log_prob: Tensor, decisions: Decisions, beta: float = BETA) -> tuple[Tensor, Tensor]:
    leaf = log_prob.clone().requires_grad_()
    loss, _ = method("copg", beta=beta, form=form).loss(Evaluation(log_prob=leaf), decisions)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 3), (5,), (2, 3, 1)])
def test_product_form_by_a_plain_loop(sizes: tuple[int, ...]) -> None:
    log_prob, decisions = batch(sizes)
    leaf = log_prob.clone().requires_grad_()
    expected = reference_loss(leaf, decisions)
    loss, grad = found("product", log_prob, decisions)
    assert torch.allclose(loss, expected, atol=1e-12)
    assert torch.allclose(grad, torch.autograd.grad(expected, leaf)[0], atol=1e-12)


def test_one_pair_by_hand() -> None:
    """Scores 3 and 1, log-ratios 0.5 and -0.5: (D_R - beta/2 D) D = (2 - 0.5) * 1 at beta = 1."""
    decisions = Decisions(
        mask=torch.ones(2, 1, dtype=torch.bool),
        reward=torch.tensor([[3.0], [1.0]], dtype=torch.float64),
        reference_log_prob=torch.full((2, 1), -1.0, dtype=torch.float64),
        group=torch.zeros(2, dtype=torch.int64),
    )
    log_prob = torch.tensor([[-0.5], [-1.5]], dtype=torch.float64)
    assert torch.allclose(found("product", log_prob, decisions, beta=1.0)[0], torch.tensor(-1.5, dtype=torch.float64))
    assert torch.allclose(found("squared", log_prob, decisions, beta=1.0)[0], torch.tensor(0.5, dtype=torch.float64))
    _, grad = found("product", log_prob, decisions, beta=1.0)
    # Eq. 18: R_beta differ by 2 - 1 = 1, so the gradient of l is +1 and -1.
    assert torch.allclose(grad, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 3), (2, 3, 1)])
def test_all_forms_have_one_gradient(sizes: tuple[int, ...]) -> None:
    log_prob, decisions = batch(sizes)
    gradients = [found(form, log_prob, decisions)[1] for form in FORMS]
    assert bool((gradients[0] != 0).any())
    assert torch.allclose(gradients[0], gradients[1], atol=1e-12)
    assert torch.allclose(gradients[0], gradients[2], atol=1e-12)


def test_product_is_squared_plus_a_constant() -> None:
    """The difference D_R^2 / (2 beta) does not depend on the policy."""
    differences = []
    for shift in (0.0, 1.0):
        log_prob, decisions = batch()
        moved = log_prob + shift * torch.randn(6, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        differences.append(found("squared", moved, decisions)[0] - found("product", moved, decisions)[0])
    score, _, _ = rows(*batch())
    group = batch()[1].group
    gaps = torch.stack(
        [(score[group == cell] * torch.tensor([1.0, -1.0], dtype=torch.float64)).sum() for cell in range(3)]
    )
    assert torch.allclose(differences[0], differences[1], atol=1e-12)
    assert torch.allclose(differences[0], (gaps**2 / (2 * BETA)).mean(), atol=1e-12)


@pytest.mark.parametrize("form", ["product", "squared"])
def test_gradient_by_finite_differences(form: str) -> None:
    log_prob, decisions = batch((2, 3))
    built = method("copg", beta=BETA, form=form)
    loss = lambda x: built.loss(Evaluation(log_prob=x), decisions)[0]  # noqa: E731
    assert torch.autograd.gradcheck(loss, (log_prob.requires_grad_(),), eps=1e-6, atol=1e-7)


def test_equations_18_and_19() -> None:
    log_prob, decisions = batch()
    score, _, ratio = rows(log_prob, decisions)
    regularised = score - BETA * ratio
    _, grad = found("product", log_prob, decisions)
    for cell in range(3):
        i, j = torch.nonzero(decisions.group == cell)[:, 0].tolist()
        gap = float(regularised[i] - regularised[j])
        for row, sign in ((i, 1.0), (j, -1.0)):
            expected = torch.where(decisions.mask[row], -sign * gap / 3, 0.0).to(torch.float64)
            assert torch.allclose(grad[row], expected, atol=1e-12)


@pytest.mark.parametrize("size", [2, 4])
def test_gradient_is_that_of_rloo_on_the_regularised_reward(size: int) -> None:
    """RLOO averages over rows, CoPG over groups: k times as much."""
    log_prob, decisions = batch((size, size))
    _, _, ratio = rows(log_prob, decisions)
    last = decisions.mask & (torch.arange(4) == decisions.mask.sum(1, keepdim=True) - 1)
    regularised = decisions.replace(reward=decisions.reward - torch.where(last, BETA * ratio[:, None], 0.0))
    leaf = log_prob.clone().requires_grad_()
    loss, _ = method("rloo").loss(Evaluation(log_prob=leaf), regularised)
    assert torch.allclose(
        found("product", log_prob, decisions)[1], size * torch.autograd.grad(loss, leaf)[0], atol=1e-12
    )


def test_symmetries() -> None:
    log_prob, decisions = batch((2, 3))
    base = found("product", log_prob, decisions)[0]
    order = torch.tensor([4, 1, 0, 3, 2])
    assert torch.allclose(found("product", log_prob[order], decisions.rows(order))[0], base, atol=1e-12)
    ends = decisions.reward != 0
    per_prompt = torch.tensor([5.0, -3.0], dtype=torch.float64)[decisions.group][:, None]
    moved = decisions.replace(reward=torch.where(ends, decisions.reward + per_prompt, 0.0))
    assert torch.allclose(found("product", log_prob, moved)[0], base, atol=1e-12)
    scaled = decisions.replace(reward=3.0 * decisions.reward)
    assert torch.allclose(found("product", log_prob, scaled, beta=3 * BETA)[0], 3 * base, atol=1e-12)


def test_ties_pull_together_and_twins_do_nothing() -> None:
    """Equal scores are not skipped: the loss is beta/2 D^2. Identical responses give exactly nothing."""
    log_prob, decisions = batch((2,))
    flat = decisions.replace(reward=torch.zeros_like(decisions.reward))
    _, _, ratio = rows(log_prob, flat)
    assert torch.allclose(found("product", log_prob, flat)[0], BETA / 2 * (ratio[0] - ratio[1]) ** 2, atol=1e-12)
    twins = decisions.rows(torch.tensor([0, 0]))
    loss, grad = found("product", log_prob[[0, 0]], twins)
    assert float(loss) == 0.0 and bool((grad == 0).all())


REWARD = torch.tensor([2.5, 2.0, 1.0, -0.3, 0.4], dtype=torch.float64)
PRIOR = torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25], dtype=torch.float64)


def expected_gradient(slug: str, logits: Tensor, first: Tensor, second: Tensor, **parameters: object) -> Tensor:
    """Enumerated E_{y ~ first, y' ~ second} of the gradient of one pair's loss in the 5-armed bandit's logits."""
    leaf = logits.clone().requires_grad_()
    built = method(slug, **parameters)
    total = torch.zeros((), dtype=torch.float64)
    for pair in itertools.product(range(5), repeat=2):
        action = torch.tensor(pair)[:, None]
        decisions = Decisions(
            mask=torch.ones(2, 1, dtype=torch.bool),
            reward=REWARD[action],
            reference_log_prob=PRIOR.log()[action],
            group=torch.zeros(2, dtype=torch.int64),
        )
        loss, _ = built.loss(Evaluation(log_prob=leaf.log_softmax(0)[action]), decisions)
        total = total + first[pair[0]] * second[pair[1]] * loss
    return torch.autograd.grad(total, leaf)[0]


def simplex(seed: int) -> Tensor:
    return torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_theorem_1_the_optimum_is_stationary_for_any_data(form: str, seed: int) -> None:
    best = (PRIOR.log() + REWARD / BETA).log_softmax(0)
    first, second = simplex(seed), simplex(seed + 10)
    gradient = expected_gradient("copg", best, first, second, beta=BETA, form=form)
    assert torch.allclose(gradient, torch.zeros(5, dtype=torch.float64), atol=1e-10)
    # The trap: the optimum of another temperature is no fixed point, nor is pi* one of the naive gradient.
    wrong = (PRIOR.log() + 2 * REWARD / BETA).log_softmax(0)
    assert float(expected_gradient("copg", wrong, first, second, beta=BETA, form=form).abs().max()) > 1e-2
    assert float(expected_gradient("naive_pg", best, first, second, beta=BETA).abs().max()) > 1e-2


def test_theorem_1_gradient_descent_reaches_the_optimum_off_policy() -> None:
    """The paper's bandit: full gradient on data from a policy that prefers the worst arm."""
    best = (PRIOR.log() + REWARD / BETA).softmax(0)
    logits = PRIOR.log().clone().requires_grad_()
    data = torch.tensor([0.05, 0.05, 0.1, 0.7, 0.1], dtype=torch.float64)
    optimiser = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    weight = (data[pairs[:, 0]] * data[pairs[:, 1]])[:, None, None]
    action = pairs.reshape(-1, 1)
    decisions = Decisions(
        mask=torch.ones(50, 1, dtype=torch.bool),
        reward=REWARD[action],
        reference_log_prob=PRIOR.log()[action],
        group=torch.arange(25).repeat_interleave(2),
    )
    built = method("copg", beta=BETA)
    prepared = built.prepare(decisions, None)
    weighted = prepared.with_extras({"weight:contrast": weight.expand(25, 2, 1).reshape(50, 1) / 2})

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss, _ = built.loss(Evaluation(log_prob=logits.log_softmax(0)[action]), weighted)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert torch.allclose(logits.detach().softmax(0), best, atol=1e-6)


def test_property_1_on_policy_it_is_twice_the_policy_gradient() -> None:
    logits = torch.randn(5, generator=torch.Generator().manual_seed(4), dtype=torch.float64).requires_grad_()
    policy = logits.softmax(0)
    objective = (policy * (REWARD - BETA * (logits.log_softmax(0) - PRIOR.log()))).sum()
    truth = torch.autograd.grad(objective, logits)[0]
    drawn = policy.detach()
    gradient = expected_gradient("copg", logits.detach(), drawn, drawn, beta=BETA)
    assert torch.allclose(-gradient, 2 * truth, atol=1e-12)


def test_property_3_quarter_rewards_give_ipo() -> None:
    """grad l = -1/(2 beta) grad (1/2 - beta D)^2, and IPO's own (D - 1/(2 beta))^2 is that square over beta^2."""
    log_prob, decisions = batch()
    score, _, _ = rows(log_prob, decisions)
    quarters = torch.where(decisions.reward != 0, 0.0, 0.0).to(torch.float64)
    for cell in range(3):
        i, j = torch.nonzero(decisions.group == cell)[:, 0].tolist()
        winner, loser = (i, j) if score[i] > score[j] else (j, i)
        quarters[winner, decisions.mask[winner].sum() - 1] = 0.25
        quarters[loser, decisions.mask[loser].sum() - 1] = -0.25
    labelled = decisions.replace(reward=quarters)
    leaf = log_prob.clone().requires_grad_()
    loss, _ = method("ipo", beta=BETA).loss(Evaluation(log_prob=leaf), labelled)
    ipo = torch.autograd.grad(loss, leaf)[0]
    _, ours = found("product", log_prob, labelled)
    assert torch.allclose(ours, BETA / 2 * ipo, atol=1e-12)


def test_only_the_detached_form_may_be_split_within_a_group() -> None:
    assert [method("copg", form=form).keep_together for form in FORMS] == ["group", "group", "row"]
    assert method("copg").plan.unit == "group"
    assert method("copg").prepares == frozenset() and method("copg", form="detached").prepares == {"log_prob"}
