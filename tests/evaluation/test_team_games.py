"""Exact team games: joint probabilities, the gradient formula, J*, and the Nash gap."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascent.core.random import generator, uniform
from ascent.evaluation.team_games import best, gradient, nash_gap, solve
from ascent.policies.bayesian_table import BayesianTable, acyclic, complete, empty, line, topological
from ascent.worlds.teams.tables import TeamGame, coordination, matrix_game

GRAPHS = {"empty": empty, "line": line, "complete": complete}


def drawn_graph(agents: int, seed: int) -> torch.Tensor:
    draw = generator("graph", seed)
    order = torch.randperm(agents, generator=draw)
    edges = (torch.rand(agents, agents, generator=draw) < 0.5).triu(1)
    graph = torch.zeros(agents, agents, dtype=torch.bool)
    graph[order[:, None], order[None]] = edges
    return graph


def random_game(seed: int, states: int = 3, agents: int = 2, actions: int = 3) -> TeamGame:
    draw = generator("game", seed)
    joint = actions**agents
    transition = torch.rand(states, joint, states, generator=draw, dtype=torch.float64)
    start = torch.rand(states, generator=draw, dtype=torch.float64)
    return TeamGame(
        transition / transition.sum(-1, keepdim=True),
        torch.randn(states, joint, generator=draw, dtype=torch.float64),
        start / start.sum(),
        0.9,
        agents,
        actions,
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_joint_probabilities_add_up_to_one_over_any_graph(seed: int, agents: int) -> None:
    policy = BayesianTable(drawn_graph(agents, seed), states=2, actions=2, seeds=(seed, seed + 1))
    probability = policy.log_prob().exp()
    assert torch.allclose(probability.sum(-1), torch.ones(2, 2, dtype=torch.float64), atol=1e-12)
    parts = sum(policy.conditional(agent) for agent in range(agents))
    assert torch.allclose(policy.log_prob(), parts, atol=1e-14)
    whole = policy.marginal(range(agents))
    assert torch.allclose(whole, probability, atol=1e-14)
    assert torch.allclose(policy.marginal([agents - 1]).sum(-1), torch.ones(2, 2, dtype=torch.float64))
    assert torch.allclose(policy.entropy(), -(probability * probability.log()).sum(-1), atol=1e-12)


def test_the_marginal_of_a_pair_is_worked_by_hand() -> None:
    policy = BayesianTable(complete(2), states=1, actions=2)
    with torch.no_grad():
        policy.logits[0].copy_(torch.tensor([[[[0.25, 0.75]]]]).log())
        policy.logits[1].copy_(torch.tensor([[[[0.5, 0.5], [0.1, 0.9]]]]).log())
    assert policy.log_prob().exp()[0, 0].tolist() == pytest.approx([0.125, 0.125, 0.075, 0.675])
    assert policy.marginal([1])[0, 0].tolist() == pytest.approx([0.2, 0.8])


def test_frequencies_of_sampled_joint_actions_are_the_probabilities() -> None:
    policy = BayesianTable(torch.tensor([[0, 0, 1], [1, 0, 1], [0, 0, 0]]).bool(), states=1, actions=2, seeds=(3,))
    moments = 40_000
    draws = uniform(torch.arange(moments)[:, None], torch.arange(3))[None]
    action = policy.act(torch.zeros(moments, dtype=torch.int64), draws)[0]
    number = (action * torch.tensor([4, 2, 1])).sum(-1)
    frequency = torch.bincount(number, minlength=8) / moments
    assert torch.allclose(frequency.double(), policy.log_prob().exp()[0, 0], atol=0.01)


def test_every_topological_order_draws_the_same_actions() -> None:
    graph = torch.zeros(4, 4, dtype=torch.bool)
    graph[0, 2] = graph[1, 2] = graph[1, 3] = True
    policy = BayesianTable(graph, states=2, actions=3, seeds=(0, 1))
    state = torch.arange(200) % 2
    draws = uniform(torch.arange(400).view(2, 200, 1), torch.arange(4))
    orders = [
        order
        for order in itertools.permutations(range(4))
        if all(order.index(int(j)) < order.index(int(i)) for j, i in graph.nonzero())
    ]
    assert len(orders) == 5
    first = policy.act(state, draws)
    assert all(torch.equal(first, policy.act(state, draws, order)) for order in orders)


@pytest.mark.parametrize("name", GRAPHS)
def test_gradient_formula_equals_autograd_and_finite_differences(name: str) -> None:
    game = random_game(5, states=2, agents=3, actions=2)
    policy = BayesianTable(GRAPHS[name](3), states=2, actions=2, seeds=(0, 1))
    found = gradient(game, policy)
    solve(game, policy.log_prob().exp()).worth.sum().backward()
    for logits, formula in zip(policy.logits, found, strict=True):
        assert torch.allclose(formula, logits.grad, atol=1e-12)
        assert torch.allclose(formula.sum(-1), torch.zeros(()).double(), atol=1e-13)
    with torch.no_grad():
        for agent, logits in enumerate(policy.logits):
            flat, step = logits.view(-1), 1e-6
            for place in range(0, flat.numel(), 5):
                flat[place] += step
                above = solve(game, policy.log_prob().exp()).worth.sum()
                flat[place] -= 2 * step
                below = solve(game, policy.log_prob().exp()).worth.sum()
                flat[place] += step
                assert float((above - below) / (2 * step)) == pytest.approx(
                    float(found[agent].reshape(-1)[place]), abs=1e-7
                )


def test_the_advantage_in_place_of_q_gives_the_same_gradient() -> None:
    game = random_game(2, agents=2, actions=2)
    policy = BayesianTable(complete(2), states=3, actions=2)
    with torch.no_grad():
        solved = solve(game, policy.log_prob().exp())
    advantage = solved.action_value - solved.value[..., None]
    surrogate = solved.visits[..., None] * policy.log_prob().exp() * advantage / (1 - game.discount)
    surrogate.sum().backward()
    for logits, formula in zip(policy.logits, gradient(game, policy), strict=True):
        assert torch.allclose(logits.grad, formula, atol=1e-12)


def test_visits_are_a_distribution_and_worth_is_the_sum_over_time() -> None:
    game = random_game(1)
    policy = BayesianTable(empty(2), states=3, actions=3)
    probability = policy.log_prob().exp().detach()
    solved = solve(game, probability)
    assert float(solved.visits.sum()) == pytest.approx(1.0)
    moves = torch.einsum("sa,sat->st", probability[0], game.transition)
    reward = (probability[0] * game.reward).sum(-1)
    state, total = game.start, 0.0
    for t in range(400):
        total += game.discount**t * float(state @ reward)
        state = state @ moves
    assert float(solved.worth) == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_the_best_worth_is_that_of_value_iteration_and_nobody_exceeds_it(seed: int) -> None:
    game = random_game(seed)
    value = torch.zeros(3, dtype=torch.float64)
    for _ in range(600):
        value = (game.reward + game.discount * game.transition @ value).amax(-1)
    found, choice = best(game)
    assert found == pytest.approx(float(value @ game.start), abs=1e-9)
    policy = BayesianTable(complete(2), states=3, actions=3, seeds=range(5))
    assert (solve(game, policy.log_prob().exp()).worth <= found + 1e-12).all()
    assert (nash_gap(game, policy) >= 0).all()
    # The optimal joint action of each state as a product policy: nobody gains anything.
    joint = policy.joint[choice]
    fixed = BayesianTable(empty(2), states=3, actions=3, scale=0.0)
    with torch.no_grad():
        for agent, logits in enumerate(fixed.logits):
            logits[0, torch.arange(3), 0, joint[:, agent]] = 60.0
    assert float(nash_gap(game, fixed)) == pytest.approx(0.0, abs=1e-9)
    assert float(solve(game, fixed.log_prob().exp().detach()).worth) == pytest.approx(found, abs=1e-9)


def test_nash_gap_in_the_one_shot_game_by_hand() -> None:
    """Both take the second of two actions: 1 is paid, one alone who leaves gets -1; apart they gain by joining."""
    game = matrix_game(2)
    policy = BayesianTable(empty(2), states=1, actions=2, scale=0.0)
    # Uniform: 1/4 (2 - 1 - 1 + 1) = 1/4; the first action against a uniform partner pays (2 - 1) / 2.
    assert float(nash_gap(game, policy)) == pytest.approx(0.25)
    with torch.no_grad():
        for logits in policy.logits:
            logits[..., 1] = 80.0
    assert float(nash_gap(game, policy)) == pytest.approx(0.0)
    assert float(solve(game, policy.log_prob().exp().detach()).worth) == pytest.approx(1.0)
    assert best(game)[0] == 2.0


def test_a_partner_that_sees_follows_a_leader_that_leaves_the_trap() -> None:
    """The same trap, but the second agent repeats the first: the leader gains 1 by leaving."""
    game = matrix_game(2)
    policy = BayesianTable(complete(2), states=1, actions=2, scale=0.0)
    with torch.no_grad():
        policy.logits[0][..., 1] = 80.0
        policy.logits[1][0, 0] = 80.0 * torch.eye(2)
    assert float(nash_gap(game, policy)) == pytest.approx(1.0)


def test_a_complete_graph_can_say_any_joint_distribution() -> None:
    wanted = torch.rand(1, 8, generator=generator("joint"), dtype=torch.float64)
    wanted = wanted / wanted.sum()
    policy = BayesianTable(complete(3), states=1, actions=2, scale=0.0)
    step = torch.optim.LBFGS(policy.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16)

    def loss() -> torch.Tensor:
        step.zero_grad()
        cost = -(wanted * policy.log_prob()[0]).sum()
        cost.backward()
        return cost

    step.step(loss)
    assert float((policy.log_prob()[0].exp() - wanted).abs().max()) < 1e-6


def test_an_empty_graph_is_the_product_of_its_marginals() -> None:
    policy = BayesianTable(empty(3), states=2, actions=2, seeds=(4,))
    one, two, three = (policy.marginal([agent])[0] for agent in range(3))
    product = torch.einsum("sa,sb,sc->sabc", one, two, three).reshape(2, 8)
    assert torch.allclose(policy.log_prob()[0].exp(), product, atol=1e-14)


def test_cycles_are_refused() -> None:
    assert acyclic(complete(4)) and not acyclic(torch.eye(2))
    with pytest.raises(ValueError, match="without cycles"):
        BayesianTable(torch.tensor([[0, 1], [1, 0]]).bool(), 1, 2)
    assert topological(line(3)) == [0, 1, 2] and topological(line(3).T) == [2, 1, 0]


def test_the_coordination_game_pays_as_written() -> None:
    game = coordination(3)
    assert game.reward[:, 0].tolist() == [3, 0, 0, 1, 0, 1, 1, 2]
    assert float(game.transition[5, 0b101, 0b101]) == pytest.approx(0.9**3)
    assert float(game.transition[5, 0b000, 0b101]) == pytest.approx(0.1 * 0.9 * 0.1)
    assert torch.equal(game.transition[0], game.transition[7])
    with pytest.raises(ValueError, match="agents must be one of"):
        coordination(4)
    with pytest.raises(ValueError, match="noise"):
        coordination(3, noise=2.0)


def test_malformed_games_are_refused() -> None:
    game = matrix_game(2)
    with pytest.raises(ValueError, match="discount"):
        TeamGame(game.transition, game.reward, game.start, 1.0, 2, 2)
    with pytest.raises(ValueError, match="must be \\[S"):
        TeamGame(game.transition, game.reward[:, :2], game.start, 0.5, 2, 2)
    with pytest.raises(ValueError, match="add up"):
        TeamGame(game.transition, game.reward, 2 * game.start, 0.5, 2, 2)
