"""SubPO: its estimators against the exact gradient of every trajectory, and what each of them leaves out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.returns import RewardToGo, SoFar
from ascent.methods.submodular_rl import AtEqualTime, WholeTrajectory
from ascent.worlds.submodular.maps import Map
from ascent.worlds.submodular.set_functions import Coverage, Modular, SetFunction

CELLS = 3
OVERLAPPING = Coverage(
    np.array(((True, True, False, False), (False, True, True, False), (False, False, True, True))),
    np.array((1.0, 2.0, 0.5, 3.0)),
)


def walks(horizon: int, function: SetFunction = OVERLAPPING) -> tuple[Tensor, Tensor, Tensor]:
    """Cells before each move [W, H], actions [W, H] and gains [W, H] of all 5^H walks on a corridor of 3 cells."""
    ground = Map(1, CELLS, (0, 1), horizon, function)
    cells, actions, gained = [], list(product(range(5), repeat=horizon)), []
    for chosen in actions:
        running = function.begin()
        running.add(ground.first)
        path, paid = [ground.first], []
        for action in chosen:
            path.append(ground.moved(path[-1], action))
            paid.append(running.add(path[-1]))
        cells.append(path[:-1])
        gained.append(paid)
    return torch.tensor(cells), torch.tensor(actions), torch.tensor(gained, dtype=torch.float64)


def policy(horizon: int) -> Tensor:
    """Logits [H, cells, 5] of a time-dependent Markov policy (SubPO-M)."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(horizon, CELLS, 5, dtype=torch.float64, generator=draw).requires_grad_()


def log_probs(theta: Tensor, cells: Tensor, actions: Tensor) -> Tensor:
    """log pi(a_h | s_h, h) [W, H]."""
    time = torch.arange(cells.shape[1]).expand_as(cells)
    return torch.log_softmax(theta, -1)[time, cells, actions]


def exact(theta: Tensor, gained: Tensor, log_prob: Tensor) -> Tensor:
    """The gradient of J = sum over walks of probability times F(tau) - F({s_0})."""
    objective = (log_prob.sum(1).exp() * gained.sum(1)).sum()
    return torch.autograd.grad(objective, theta, retain_graph=True)[0]


def decisions(actions: Tensor, gained: Tensor) -> Decisions:
    rows, columns = actions.shape
    terminated = torch.zeros(rows, columns, dtype=torch.bool)
    terminated[:, -1] = True
    return Decisions(
        mask=torch.ones(rows, columns, dtype=torch.bool),
        action=actions,
        reward=gained,
        terminated=terminated,
        truncated=torch.zeros_like(terminated),
        trajectory=torch.arange(rows)[:, None].expand(rows, columns),
        extras={"elapsed": torch.arange(columns).expand(rows, columns)},
    )


def expected(method: Method, theta: Tensor, cells: Tensor, actions: Tensor, gained: Tensor) -> Tensor:
    """Mean over all walks of the estimate that one walk gives."""
    log_prob = log_probs(theta, cells, actions)
    weight = method.credit(decisions(actions, gained)).advantage
    probability = log_prob.sum(1).exp().detach()
    total = torch.zeros_like(theta)
    for walk in range(len(actions)):
        batch = decisions(actions[walk : walk + 1], gained[walk : walk + 1])
        loss, _ = method.loss(Evaluation(log_prob=log_prob[walk : walk + 1]), batch)
        direct = -(log_prob[walk] * weight[walk]).sum()
        torch.testing.assert_close(loss, direct, rtol=1e-12, atol=1e-12)
        total -= probability[walk] * torch.autograd.grad(loss, theta, retain_graph=True)[0]
    return total


@pytest.mark.parametrize("credit", ("to_go", "trajectory"))
def test_the_estimate_is_unbiased(credit: str) -> None:
    theta = policy(3)
    cells, actions, gained = walks(3)
    method = ascent.method("submodular_rl", credit=credit, baseline="none")
    found = expected(method, theta, cells, actions, gained)
    torch.testing.assert_close(found, exact(theta, gained, log_probs(theta, cells, actions)), rtol=1e-10, atol=1e-12)


def test_the_released_weight_is_greedy_in_the_mean_and_not_the_gradient() -> None:
    theta = policy(3)
    cells, actions, gained = walks(3)

    def mean(**parameters: object) -> Tensor:
        method = ascent.method("submodular_rl", baseline="none", **parameters)
        return expected(method, theta, cells, actions, gained)

    official, greedy = mean(credit="official", start_value=2.5), mean(credit="greedy")
    torch.testing.assert_close(official, greedy, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mean(credit="official", scale=8.0), greedy / 8, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mean(discount=0.0), greedy, rtol=0, atol=0)
    true = exact(theta, gained, log_probs(theta, cells, actions))
    assert (official - true).norm() > 0.1 * true.norm()
    # At the last moment nothing follows, so there greedy is right.
    torch.testing.assert_close(greedy[-1], true[-1], rtol=1e-10, atol=1e-12)


def test_the_mean_of_the_others_at_equal_time_keeps_it_unbiased() -> None:
    theta = policy(2)
    cells, actions, gained = walks(2)
    log_prob = log_probs(theta, cells, actions)
    probability = log_prob.sum(1).exp().detach()
    method = ascent.method("submodular_rl")
    score = torch.zeros((), dtype=torch.float64)
    for first in range(len(actions)):
        for second in range(len(actions)):
            pair = torch.tensor([first, second])
            weight = method.credit(decisions(actions[pair], gained[pair])).advantage
            score = score + probability[first] * probability[second] * (log_prob[pair] * weight).sum(1).mean()
    total = torch.autograd.grad(score, theta, retain_graph=True)[0]
    torch.testing.assert_close(total, exact(theta, gained, log_prob), rtol=1e-9, atol=1e-12)


def test_a_baseline_that_reads_the_history_keeps_it_unbiased() -> None:
    theta = policy(3)
    cells, actions, gained = walks(3)
    log_prob = log_probs(theta, cells, actions)
    probability = log_prob.sum(1).exp().detach()[:, None]
    weight = RewardToGo()(decisions(actions, gained))
    # Any function of what was visited before the move: its number of moves right and what it has gained.
    past = torch.cat([torch.zeros(len(actions), 1, dtype=torch.float64), gained.cumsum(1)[:, :-1]], 1)
    rights = torch.cat([torch.zeros(len(actions), 1), (actions == 1).cumsum(1)[:, :-1]], 1)
    score = (probability * log_prob * (weight - 0.7 * past - rights.double() ** 2)).sum()
    found = torch.autograd.grad(score, theta, retain_graph=True)[0]
    torch.testing.assert_close(found, exact(theta, gained, log_prob), rtol=1e-10, atol=1e-12)


def test_additive_worth_is_reinforce_bit_for_bit() -> None:
    cells, actions, gained = walks(3, Modular(np.array((0.3, 1.0, 0.7)), repeats=True))
    theta = policy(3)
    batch = decisions(actions, gained)
    losses = []
    for method in (ascent.method("submodular_rl", baseline="none"), ascent.method("reinforce")):
        losses.append(method.loss(Evaluation(log_prob=log_probs(theta, cells, actions)), batch)[0])
    first, second = (torch.autograd.grad(loss, theta)[0] for loss in losses)
    assert torch.equal(first, second)


def test_decomposition_lowers_the_variance_without_a_baseline() -> None:
    theta = policy(3)
    cells, actions, gained = walks(3)
    log_prob = log_probs(theta, cells, actions)
    probability = log_prob.sum(1).exp().detach()

    def variance(credit: str) -> float:
        weight = ascent.method("submodular_rl", credit=credit, baseline="none").credit(decisions(actions, gained))
        squares, mean = 0.0, torch.zeros_like(theta)
        for walk in range(len(actions)):
            score = (log_prob[walk] * weight.advantage[walk]).sum()
            gradient = torch.autograd.grad(score, theta, retain_graph=True)[0]
            squares += float(probability[walk] * gradient.square().sum())
            mean += probability[walk] * gradient
        return squares - float(mean.square().sum())

    assert variance("to_go") < variance("trajectory")
    assert variance("greedy") < variance("official")


def test_state_independent_policies_have_diminishing_returns() -> None:
    """Where each cell is reached from any other, J of the probabilities pi^h(a) is DR-submodular (epsilon-bandit).

    What is missing to 1 visits nothing; then every mixed second derivative in different steps is <= 0.
    """
    horizon = 3
    places = torch.tensor(list(product(range(CELLS + 1), repeat=horizon)))
    bitmaps = np.zeros((len(places), CELLS + 1), bool)
    np.put_along_axis(bitmaps, places.numpy(), True, 1)
    worth = torch.from_numpy(OVERLAPPING.value(bitmaps[:, :CELLS]))

    def objective(chosen: Tensor) -> Tensor:
        chances = torch.cat([chosen, 1 - chosen.sum(1, keepdim=True)], 1)
        return (chances[torch.arange(horizon), places].prod(1) * worth).sum()

    draw = torch.Generator().manual_seed(1)
    point = 0.9 * torch.softmax(torch.randn(horizon, CELLS, dtype=torch.float64, generator=draw), -1)
    small, found = 1e-3, []
    for h, other in ((0, 1), (0, 2), (1, 2)):
        for a, b in product(range(CELLS), repeat=2):
            moved = {}
            for first, second in product((0, 1), repeat=2):
                shifted = point.clone()
                shifted[h, a] += first * small
                shifted[other, b] += second * small
                moved[first, second] = objective(shifted)
            found.append(float(moved[1, 1] - moved[1, 0] - moved[0, 1] + moved[0, 0]) / small**2)
    assert max(found) <= 1e-8
    assert min(found) < -0.1  # the same cell twice is worth no more than once


def test_sums_so_far_by_hand_across_episodes_and_gaps() -> None:
    reward = torch.tensor([[1.0, 2.0, 9.0, 4.0, 8.0]])
    ended = torch.tensor([[False, True, False, False, False]])
    mask = torch.tensor([[True, True, False, True, True]])
    batch = Decisions(mask=mask, reward=reward, terminated=ended, truncated=torch.zeros_like(ended))
    assert SoFar()(batch).tolist() == [[1.0, 3.0, 0.0, 4.0, 12.0]]
    assert SoFar(offset=1.0, scale=2.0)(batch).tolist() == [[1.0, 2.0, 0.0, 2.5, 6.5]]
    assert WholeTrajectory()(batch).tolist() == [[3.0, 3.0, 0.0, 12.0, 12.0]]


def test_the_baseline_compares_equal_times_only() -> None:
    batch = decisions(torch.zeros(3, 2, dtype=torch.int64), torch.tensor([[1.0, 2.0], [3.0, 0.0], [5.0, 4.0]]))
    found = AtEqualTime(of=RewardToGo())(batch)
    # To go: 3, 3, 9 and 2, 0, 4; minus the mean of the other two.
    torch.testing.assert_close(found, torch.tensor([[-3.0, 0.0], [-3.0, -3.0], [6.0, 3.0]]))


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"credit": "late"}, "credit must be"),
        ({"baseline": "mean"}, "baseline must be"),
        ({"discount": 1.5}, "discount must be"),
        ({"scale": 0.0}, "scale must be"),
        ({"credit": "greedy", "baseline": "critic"}, "baseline='critic'"),
        ({"start_value": 2.0}, "belong to credit='official'"),
        ({"learning_rate": 0.0}, "learning_rate must be"),
    ],
)
def test_bad_parameters_are_refused_by_name(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ascent.method("submodular_rl", **parameters)


def test_the_critic_has_the_released_settings() -> None:
    method = ascent.method("submodular_rl", baseline="critic")
    assert (method.advantage.discount, method.advantage.trace) == (0.99, 0.95)  # type: ignore[union-attr]
    assert method.losses["entropy"].coefficient == 0.01
