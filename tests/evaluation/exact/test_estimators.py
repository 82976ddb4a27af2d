"""What the baselines estimate, by enumeration of every batch that a sampler could draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

import ascent
from ascent.core.centre import Centre
from ascent.core.combinators import Normalised
from ascent.core.divergences import Divergence
from ascent.core.method import Method
from ascent.core.returns import GAE, RewardToGo, Score
from ascent.core.surrogates import ClippedRatio, ImportanceWeighted, LogProb, Ratio
from ascent.core.term import Term
from ascent.evaluation.exact import (
    GradientStatistics,
    TabularPolicy,
    Tree,
    bandit,
    decision_process,
    gradient,
    gradient_statistics,
    sequence,
    tabular,
)

F64 = torch.float64
BANDIT = bandit([[1.0, 0.0, 0.3, -0.5]])
QUESTIONS = bandit([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
TOKENS = sequence(lambda tokens: float(tokens[-1] == 0) + 0.5 * tokens.count(1), vocabulary=3, horizon=2)
CHAIN = decision_process(
    start=torch.tensor([0.6, 0.4], dtype=F64),
    transition=torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.7, 0.3]], [[1.0, 0.0, 0.0], [0.4, 0.0, 0.6]]], dtype=F64),
    reward=torch.tensor([[[0.0, 0.2, 0.0], [0.0, -0.3, 1.0]], [[0.1, 0.0, 0.0], [0.5, 0.0, 2.0]]], dtype=F64),
    horizon=2,
    final_value=torch.tensor([0.8, -0.6], dtype=F64),
)
SEQUENCE_MEAN = "seq-mean-token-sum"


def measure(method: Method, tree: Tree, group_size: int = 3, groups: int = 1, **options: object) -> GradientStatistics:
    return gradient_statistics(method, tree, tabular(tree, seed=7), group_size, groups, **options)  # type: ignore[arg-type]


def reinforce(advantage: object, **term: object) -> Method:
    """-A log pi with any credit."""
    return Method("composed", {"policy": Term(LogProb(), **{"reduction": SEQUENCE_MEAN, **term})}, advantage=advantage)  # type: ignore[arg-type]


@pytest.mark.parametrize("tree", [BANDIT, QUESTIONS, TOKENS], ids=lambda tree: tree.name)
@pytest.mark.parametrize("slug", ["reinforce", "rloo"])
def test_reinforce_and_leave_one_out_are_unbiased(slug: str, tree: Tree) -> None:
    found = measure(ascent.method(slug), tree)
    assert float(found.bias.abs().max()) < 1e-10
    assert found.cosine == pytest.approx(1.0, abs=1e-12) and found.angle < 1e-5 and found.scale == pytest.approx(1.0)
    assert found.mean_squared_error == pytest.approx(found.variance)


def test_unbiased_over_several_groups_and_with_the_batch_baseline() -> None:
    assert float(measure(ascent.method("rloo"), QUESTIONS, 2, groups=2).bias.abs().max()) < 1e-10
    assert float(measure(ascent.method("reinforce", baseline="batch"), QUESTIONS, 2, groups=2).bias.abs().max()) < 1e-10


def test_leave_one_out_is_worth_it_where_scores_share_an_offset() -> None:
    shifted = bandit([[11.0, 10.0, 10.3, 9.5]])
    plain, less = measure(ascent.method("reinforce"), shifted), measure(ascent.method("rloo"), shifted)
    assert less.variance < 0.05 * plain.variance
    assert less.variance == pytest.approx(measure(ascent.method("rloo"), BANDIT).variance)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_group_mean_that_includes_the_row_itself_scales_by_one_less_than_the_size(size: int) -> None:
    found = measure(reinforce(Centre(by="group")), BANDIT, size)
    torch.testing.assert_close(found.mean, found.true * (size - 1) / size, atol=1e-10, rtol=0)
    assert found.relative_bias == pytest.approx(1 / size)


def stretch(p: float, size: int, ddof: int) -> float:
    """What the group's deviation does to a question with scores 0 / 1, success rate p and k samples, in closed form.

    E[g] = grad J * E[sqrt(n (k - n))] c / (k p (1 - p)), n ~ Bin(k, p); c = 1 for the population's deviation,
    sqrt((k - 1) / k) for the sample's.
    """
    roots = [math.comb(size, n) * p**n * (1 - p) ** (size - n) * math.sqrt(n * (size - n)) for n in range(size + 1)]
    return sum(roots) / (size * p * (1 - p)) * (math.sqrt((size - 1) / size) if ddof else 1.0)


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("logit", [-2.0, 0.0, 1.0])
def test_group_deviation_rescales_a_question_by_its_difficulty(ddof: int, logit: float) -> None:
    policy = TabularPolicy(torch.tensor([[logit, 0.0]]))
    method = reinforce(Centre(scale="group", ddof=ddof, eps=0.0))
    found = gradient_statistics(method, bandit([[1.0, 0.0]]), policy, 4)
    factor = stretch(1 / (1 + math.exp(-logit)), 4, ddof)
    torch.testing.assert_close(found.mean, factor * found.true, atol=1e-10, rtol=0)
    assert found.scale == pytest.approx(factor)


@pytest.mark.parametrize("score", [1.0, 0.1])
def test_group_deviation_turns_the_gradient_of_several_questions(score: float) -> None:
    """Sure questions and questions of small scores are weighed up: the mean estimate is no multiple of the gradient."""
    tree, policy = bandit([[1.0, 0.0], [score, 0.0]]), TabularPolicy(torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    biased = gradient_statistics(reinforce(Centre(scale="group", eps=0.0)), tree, policy, 8)
    factors = torch.tensor([stretch(0.5, 8, 1), stretch(1 / (1 + math.exp(-3)), 8, 1) / score], dtype=F64)
    torch.testing.assert_close(biased.mean, factors.repeat_interleave(2) * biased.true, atol=1e-10, rtol=0)
    assert biased.angle > 3.0
    straight = gradient_statistics(reinforce(Centre(by="group")), tree, policy, 8)
    assert straight.angle < 1e-5


def test_length_in_the_denominator_turns_the_gradient() -> None:
    assert measure(reinforce(Centre(leave_one_out=True), reduction="seq-mean-token-mean"), TOKENS).angle > 3.0
    constant = measure(reinforce(Centre(leave_one_out=True), reduction="seq-mean-token-sum-norm"), TOKENS)
    assert constant.angle < 1e-5 and constant.scale == pytest.approx(0.5)  # divided by the budget of 2


@pytest.mark.parametrize("tree", [BANDIT, TOKENS, CHAIN], ids=lambda tree: tree.name)
def test_the_first_step_of_the_clipped_ratio_is_reinforce_with_the_same_advantage(tree: Tree) -> None:
    advantage = Normalised(of=RewardToGo()) if tree is CHAIN else Centre(scale="group")
    plain = measure(reinforce(advantage), tree, 2)
    for surrogate in (ClippedRatio(0.2, 0.2), Ratio()):
        first = measure(
            Method("clipped", {"policy": Term(surrogate, reduction=SEQUENCE_MEAN)}, advantage=advantage), tree, 2
        )
        torch.testing.assert_close(first.mean, plain.mean, atol=1e-12, rtol=0)
        assert first.variance == pytest.approx(plain.variance)


def test_a_stale_sampler_biases_reinforce_and_importance_weights_repair_it() -> None:
    policy, stale = tabular(TOKENS, seed=1), tabular(TOKENS, seed=2)
    method = reinforce(Score())

    def with_value(value: object) -> GradientStatistics:
        changed = method.replace(losses={"policy": Term(value, reduction=SEQUENCE_MEAN)})  # type: ignore[arg-type]
        return gradient_statistics(changed, TOKENS, policy, 2, behaviour=stale)

    assert with_value(LogProb()).relative_bias > 0.2
    assert float(with_value(ImportanceWeighted(level="sequence")).bias.abs().max()) < 1e-10
    token, truncated = (
        with_value(ImportanceWeighted(level="token")),
        with_value(ImportanceWeighted(level="sequence", cap=1.0)),
    )
    assert token.relative_bias > 0.01
    assert truncated.relative_bias > 0.01
    assert truncated.variance < with_value(ImportanceWeighted(level="sequence")).variance
    torch.testing.assert_close(token.true, gradient(TOKENS, policy))


def test_the_temperature_of_the_sampler_is_a_behaviour_policy() -> None:
    """Sampling at temperature 2 and learning as if at 1 is biased; the weights of what was really sampled repair it."""
    policy = tabular(BANDIT, seed=3)
    hot = TabularPolicy(policy.logits.detach() / 2.0)
    naive = gradient_statistics(reinforce(Score()), BANDIT, policy, 2, behaviour=hot)
    weighted = Method("weighted", {"policy": Term(ImportanceWeighted(), reduction=SEQUENCE_MEAN)}, advantage=Score())
    assert naive.relative_bias > 0.1
    assert gradient_statistics(weighted, BANDIT, policy, 2, behaviour=hot).relative_bias < 1e-10


@pytest.mark.parametrize("critic", ["exact", "wrong"])
def test_generalised_advantages_bootstrap_at_truncation(critic: str) -> None:
    """Any baseline leaves the gradient unbiased if the worth of the state at the time limit is right."""
    policy = tabular(CHAIN, seed=4)
    if critic == "wrong":
        values = torch.cat([torch.tensor([3.0, -2.0], dtype=F64), CHAIN.final_value])
        policy = TabularPolicy(policy.logits.detach(), values)
    advantage = GAE(discount=1.0, trace=1.0)
    found = gradient_statistics(reinforce(advantage), CHAIN, policy, 2)
    assert float(found.bias.abs().max()) < 1e-10


@dataclass(frozen=True)
class Ended(GAE):
    """The classic mistake: a time limit taken for a termination."""

    def __call__(self, decisions: ascent.Decisions) -> torch.Tensor:
        return super().__call__(decisions.replace(terminated=decisions.terminated | decisions.truncated))


def test_taking_the_time_limit_for_an_end_is_biased() -> None:
    policy = tabular(CHAIN, seed=4)
    found = gradient_statistics(reinforce(Ended(discount=1.0, trace=1.0)), CHAIN, policy, 2)
    assert found.relative_bias > 0.1


def test_an_exact_critic_lowers_the_variance_without_bias() -> None:
    policy = tabular(TOKENS, seed=7)
    critic = gradient_statistics(reinforce(GAE(discount=1.0, trace=1.0)), TOKENS, policy, 2)
    plain = gradient_statistics(reinforce(RewardToGo()), TOKENS, policy, 2)
    assert float(critic.bias.abs().max()) < 1e-10
    assert critic.variance < plain.variance


def test_refusing_groups_of_equal_scores_raises_the_scale_alone_for_one_question() -> None:
    tree = bandit([[1.0, 0.0]])
    method = reinforce(Centre(by="group", leave_one_out=True))

    def informative(decisions: ascent.Decisions) -> torch.Tensor:
        return (decisions.reward[:, 0] != decisions.reward[0, 0]).any().expand(len(decisions))

    found = measure(method.replace(accept=informative), tree, 3)
    p = float(tabular(tree, seed=7).logits.detach().softmax(-1)[0, 0])
    assert found.scale == pytest.approx(1 / (1 - p**3 - (1 - p) ** 3))
    assert found.angle < 1e-5


@pytest.mark.parametrize("kind", ["exact", "k1", "k2", "k3"])
def test_the_gradient_of_each_estimator_of_the_divergence(kind: str) -> None:
    """On policy, k2 goes down KL(pi || reference) as the exact one does, k3 down the reverse, k1 nowhere."""
    policy, reference = tabular(BANDIT, seed=1), tabular(BANDIT, seed=2)
    method = Method("penalty", {"kl": Term(Divergence(kind), reduction=SEQUENCE_MEAN)})  # type: ignore[arg-type]
    found = gradient_statistics(method, BANDIT, policy, 2, reference=reference)
    mine, other = policy.logits.log_softmax(-1), reference.logits.detach().log_softmax(-1)
    forward = (mine.exp() * (mine - other)).sum()
    backward = (other.exp() * (other - mine)).sum()
    target = {"exact": forward, "k1": 0.0 * forward, "k2": forward, "k3": backward}[kind]
    (slope,) = torch.autograd.grad(target, policy.logits)
    torch.testing.assert_close(found.mean, -slope.reshape(-1), atol=1e-10, rtol=0)
    assert (found.variance < 1e-20) == (kind == "exact")
