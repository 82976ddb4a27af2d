"""J and its gradient, against arithmetic by hand, the score-function identity and finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ascent.core.random import generator
from ascent.evaluation.exact import TabularPolicy, Tree, bandit, decision_process, gradient, sequence, tabular
from ascent.evaluation.exact.tree import actor

F64 = torch.float64


def process(horizon: int = 3, discount: float = 0.9) -> Tree:
    """Two states, two actions, chance everywhere, termination from both, a worth at the time limit."""
    draw = generator(0, "process")
    transition = torch.rand(2, 2, 3, generator=draw, dtype=F64)
    return decision_process(
        start=torch.tensor([0.7, 0.3], dtype=F64),
        transition=transition / transition.sum(-1, keepdim=True),
        reward=torch.randn(2, 2, 3, generator=draw, dtype=F64),
        horizon=horizon,
        final_value=torch.tensor([1.5, -0.5], dtype=F64),
        discount=discount,
    )


def response(tokens: tuple[int, ...]) -> float:
    return sum(tokens) - 0.5 * len(tokens) + (tokens[-1] == 0)


TREES = [
    bandit([[1.0, 0.0, 0.3], [0.0, 0.0, 1.0]]),
    sequence(response, vocabulary=3, horizon=3),
    sequence(response, vocabulary=2, horizon=3, end=None),
    process(),
]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{tree.name}-{len(tree)}")
def test_the_probabilities_of_a_question_sum_to_one(tree: Tree) -> None:
    probability = tree.log_probability(tabular(tree)).exp().detach()
    totals = torch.zeros(len(tree.prompt_probability), dtype=F64).index_add_(0, tree.prompt, probability)
    torch.testing.assert_close(totals, torch.ones_like(totals), atol=1e-12, rtol=0)
    assert float(tree.prompt_probability.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{tree.name}-{len(tree)}")
def test_gradient_equals_finite_differences_and_the_score_function(tree: Tree) -> None:
    policy = tabular(tree, seed=3)
    found = gradient(tree, policy)

    def at(logits: torch.Tensor) -> float:
        with torch.no_grad():
            return float(tree.objective(TabularPolicy(logits)))

    step = 1e-5
    slopes = []
    for place in range(policy.logits.numel()):
        shift = torch.zeros(policy.logits.numel(), dtype=F64)
        shift[place] = step
        shift = shift.reshape(policy.logits.shape)
        slopes.append((at(policy.logits.detach() + shift) - at(policy.logits.detach() - shift)) / (2 * step))
    torch.testing.assert_close(found, torch.tensor(slopes, dtype=F64), atol=1e-9, rtol=1e-7)

    # grad J = sum over trajectories of p R grad log p, with grad log softmax = one-hot - pi by hand.
    pi = policy.logits.detach().softmax(-1)
    by_hand = torch.zeros_like(pi)
    probability = (tree.prompt_probability[tree.prompt] * tree.log_probability(policy).exp()).tolist()
    for row in range(len(tree)):
        total = float(tree.to_go()[row, 0])
        for column in range(int(tree.mask[row].sum())):
            state, action = int(tree.state[row, column]), int(tree.action[row, column])
            by_hand[state] -= probability[row] * total * pi[state]
            by_hand[state, action] += probability[row] * total
    torch.testing.assert_close(found, by_hand.reshape(-1), atol=1e-12, rtol=1e-10)


def test_bandit_by_hand() -> None:
    tree = bandit([[1.0, 0.0]])
    policy = TabularPolicy(torch.tensor([[math.log(3.0), 0.0]]))
    assert tree.objective(policy).item() == pytest.approx(0.75)
    torch.testing.assert_close(gradient(tree, policy), torch.tensor([0.1875, -0.1875], dtype=F64))


def test_sequence_lists_every_response_once_and_says_how_it_ended() -> None:
    tree = sequence(response, vocabulary=3, horizon=2)
    responses = [tuple(row[mask].tolist()) for row, mask in zip(tree.action, tree.mask, strict=True)]
    assert sorted(responses) == sorted([(0,), *itertools.product((1, 2), (0, 1, 2))])
    for row, tokens in enumerate(responses):
        last = len(tokens) - 1
        assert float(tree.reward[row].sum()) == float(tree.reward[row, last]) == response(tokens)
        assert bool(tree.terminated[row, last]) == (tokens[-1] == 0)
        assert bool(tree.truncated[row, last]) == (tokens[-1] != 0)
    fixed = sequence(response, vocabulary=3, horizon=2, end=None)
    assert len(fixed) == 9 and not fixed.truncated.any() and fixed.terminated[:, -1].all()


def test_decision_process_equals_backward_induction() -> None:
    tree = process(horizon=4)
    policy = tabular(tree, seed=1)
    other = process(horizon=1)  # one step lists every transition once: rebuild the tables from it
    transition, reward = torch.zeros(2, 2, 3, dtype=F64), torch.zeros(2, 2, 3, dtype=F64)
    start = torch.tensor([0.7, 0.3], dtype=F64)
    for row in range(len(other)):
        state, action = int(other.state[row, 0]), int(other.action[row, 0])
        following = 2 if other.terminated[row, 0] else int(other.next_state[row, 0]) - 2
        transition[state, action, following] = other.chance[row].exp() / start[state]
        reward[state, action, following] = other.reward[row, 0]
    worth = torch.cat([tree.final_value, torch.zeros(1, dtype=F64)])
    pi = policy.logits.detach().softmax(-1)
    for _ in range(4):
        worth = torch.cat([(pi * (transition * (reward + 0.9 * worth)).sum(-1)).sum(-1), torch.zeros(1, dtype=F64)])
    assert tree.objective(policy).item() == pytest.approx(float(start @ worth[:2]), abs=1e-12)


def test_state_value_of_a_sequence_is_the_expected_score_of_its_continuations() -> None:
    tree = sequence(response, vocabulary=2, horizon=2)
    policy = tabular(tree, seed=2)
    pi = policy.logits.detach().softmax(-1)
    after_one = pi[1, 0] * response((1, 0)) + pi[1, 1] * response((1, 1))
    first = pi[0, 0] * response((0,)) + pi[0, 1] * after_one
    torch.testing.assert_close(tree.state_value(policy), torch.stack([first, after_one, torch.tensor(0.0, dtype=F64)]))
    assert float(first) == pytest.approx(tree.objective(policy).item())


def test_the_critic_is_no_part_of_the_objective() -> None:
    tree = process()
    policy = tabular(tree)
    assert [parameter.shape for parameter in actor(tree, policy)] == [policy.logits.shape]
    policy.logits.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        actor(tree, policy)


def test_next_value_bootstraps_at_truncation_only() -> None:
    tree = process()
    decisions = tabular(tree).annotate(tree.decisions(), frozenset({"value", "next_value", "old_log_prob"}))
    assert (decisions.next_value[tree.terminated] == 0).all()
    stopped = tree.next_state[tree.truncated] - tree.states
    torch.testing.assert_close(decisions.next_value[tree.truncated], tree.final_value[stopped])
    torch.testing.assert_close(decisions.old_log_prob.exp()[tree.mask].max() <= 1, torch.tensor(True))


def test_probes_and_columns_are_computed_when_asked_for() -> None:
    tree = sequence(response, vocabulary=3, horizon=2)
    policy = tabular(tree)
    seen = policy.evaluate(
        tree.decisions(),
        frozenset({"log_prob", "entropy", "probe:picked"}),
        {"picked": lambda logits, hidden, action: hidden @ policy.logits[:, 0]},
    )
    assert set(seen) == {"log_prob", "entropy", "picked"}
    state = tree.state[tree.mask]
    torch.testing.assert_close(seen.probes["picked"][tree.mask], policy.logits[state, 0])
    reference = torch.distributions.Categorical(logits=policy.logits[tree.state])
    torch.testing.assert_close(seen.entropy, reference.entropy())
    torch.testing.assert_close(seen.log_prob, reference.log_prob(tree.action))
    with pytest.raises(ValueError, match="probe 'curvature' is unknown"):
        policy.evaluate(tree.decisions(), frozenset({"probe:curvature"}))


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="reward must be a table"):
        bandit([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match="vocabulary and horizon"):
        sequence(response, vocabulary=0, horizon=2)
    third = torch.full((1, 1, 2), 1 / 3, dtype=F64)
    with pytest.raises(ValueError, match="must sum to 1"):
        decision_process(torch.ones(1, dtype=F64), third, third, 2)
    with pytest.raises(ValueError, match="discount"):
        process(discount=1.5)
