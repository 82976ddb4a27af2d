"""Graphs out of states: Sinkhorn, permutations, straight-through gradients, no cycles."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ascent.core.random import uniform
from ascent.policies.bayesian_table import acyclic
from ascent.policies.graphs import (
    GraphNetwork,
    composed,
    gumbel,
    nearest_permutation,
    open_ratio,
    sinkhorn,
    straight_through,
)


def draws(moments: int, agents: int, seed: int = 0) -> torch.Tensor:
    return uniform(
        torch.arange(moments)[:, None, None] + (seed << 32), torch.arange(agents)[:, None], torch.arange(3 * agents)
    )


def network(agents: int = 4, **kind: object) -> GraphNetwork:
    return GraphNetwork(agents, state_size=3, seed=1, **kind).double()  # type: ignore[arg-type]


def test_ten_thousand_graphs_have_no_cycle() -> None:
    net, moments = network(), 10_000
    state = torch.randn(moments, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        graph = net(state, draws(moments, 4))
        order = net.permutation(state, draws(moments, 4))[0]
    assert acyclic(graph) and ((graph == 0) | (graph == 1)).all()
    sorted_ = order @ graph @ order.mT
    assert torch.equal(sorted_, sorted_.triu(1))
    ratio = open_ratio(graph)
    assert (ratio >= 0).all() and (ratio <= 1).all() and 0.4 < float(ratio.mean()) < 0.6
    assert len(torch.unique(graph.flatten(1), dim=0)) > 300  # of the 543 acyclic graphs of four


def test_sinkhorn_matrices_have_rows_and_columns_of_one() -> None:
    logits = torch.randn(50, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft = sinkhorn(logits, 200)
    assert torch.allclose(soft.sum(-1), torch.ones(50, 5).double(), atol=1e-6)
    assert torch.allclose(soft.sum(-2), torch.ones(50, 5).double(), atol=1e-12)
    assert torch.allclose(sinkhorn(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).log().clamp(min=-60), 5)[0], torch.eye(2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_nearest_permutation_is_the_best_of_all(seed: int) -> None:
    soft = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    hard = nearest_permutation(soft)
    assert torch.equal(hard.sum(-1), torch.ones(1, 4).double()) and torch.equal(hard.sum(-2), torch.ones(1, 4).double())
    best = max(sum(float(soft[0, i, p[i]]) for i in range(4)) for p in itertools.permutations(range(4)))
    assert float((hard * soft).sum()) == pytest.approx(best)


def test_the_composition_by_hand() -> None:
    """Order 2, 0, 1: agent 2 may be heard by 0 and 1, agent 0 by 1."""
    order = torch.zeros(1, 3, 3)
    order[0, 0, 2] = order[0, 1, 0] = order[0, 2, 1] = 1
    graph = composed(order, torch.ones(1, 3, 3))
    assert graph[0].tolist() == [[0, 1, 0], [0, 0, 0], [1, 1, 0]]
    edges = torch.ones(1, 3, 3)
    edges[0, 2, 1] = 0
    assert composed(order, edges)[0].tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert float(open_ratio(graph)) == 1.0 and float(open_ratio(composed(order, edges))) == pytest.approx(2 / 3)
    assert float(open_ratio(torch.zeros(1, 1))) == 0.0


def test_straight_through_is_binary_forwards_and_soft_backwards() -> None:
    net, state = network(), torch.ones(8, 3).double()
    hard, soft = net.edges(state, draws(8, 4))
    through = straight_through(hard, soft)
    assert torch.equal(through, hard) and not torch.equal(hard, soft)
    weight = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = list(net.edge.parameters())
    found = torch.autograd.grad((through * weight).sum(), parameters, retain_graph=True)
    wanted = torch.autograd.grad((soft * weight).sum(), parameters)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)) and any(g.any() for g in wanted)


def test_both_networks_learn_from_the_graph() -> None:
    net = network()
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (net(torch.ones(8, 3).double(), draws(8, 4)) * weight).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in net.parameters())


def test_the_same_draws_and_weights_give_the_same_graph() -> None:
    net, state = network(), torch.ones(64, 3).double()
    first = net(state, draws(64, 4))
    assert torch.equal(first, net(state, draws(64, 4)))
    assert not torch.equal(first, net(state, draws(64, 4, seed=1)))
    assert torch.equal(first[10:20], net(state[10:20], draws(64, 4)[10:20]))  # whoever else is in the batch
    assert torch.equal(net(state, None)[0], net(state, None)[63])


def test_gumbel_noise_has_its_mean_and_is_finite_at_the_ends() -> None:
    noise = gumbel((torch.arange(100_000).double() + 0.5) / 100_000)
    assert float(noise.mean()) == pytest.approx(0.5772, abs=1e-3)
    for dtype in (torch.float32, torch.float64):
        assert torch.isfinite(gumbel(torch.tensor([0.0, 1 - torch.finfo(dtype).eps / 2, 1.0], dtype=dtype))).all()


def test_fixed_and_random_graphs() -> None:
    state = torch.zeros(500, 3).double()
    assert not network(kind="empty")(state, None).any() and network(kind="empty").draws == 0
    assert network(kind="complete")(state, None)[0].tolist() == torch.ones(4, 4).triu(1).tolist()
    assert float(open_ratio(network(kind="line")(state, None))[0]) == pytest.approx(0.5)
    random = network(kind="random", density=0.3)(state, draws(500, 4))
    assert acyclic(random) and float(open_ratio(random).mean()) == pytest.approx(0.3, abs=0.03)
    assert not network(kind="random", density=0.3)(state, None).any()
    assert network(kind="random", density=1.0)(state, draws(500, 4)).sum() == 500 * 6


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="kind must be"):
        network(kind="star")
    with pytest.raises(ValueError, match="temperature"):
        network(temperature=0.0)
