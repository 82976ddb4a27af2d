"""BN-MAPPO: the edge budget, the composition, and what the options refuse; graphs and policies have their own tests."""

from __future__ import annotations

import pytest
import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.part import Clock
from ascent.core.plan import at
from ascent.core.random import uniform
from ascent.core.teams import EachAgent, Team
from ascent.methods.bayesian_network_marl import EdgeBudget
from ascent.policies.bayesian_network import BayesianNetwork
from ascent.policies.graphs import open_ratio


def rows(ratio: list[list[float]], progress: float = 0.0) -> tuple[Evaluation, Decisions]:
    probe = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    mask = torch.ones_like(probe, dtype=torch.bool)
    extras = {"progress": torch.full((len(ratio),), progress)}
    return Evaluation(probes={"open_ratio": probe}), Decisions(mask=mask, extras=extras)


def cost(part: EdgeBudget, evaluation: Evaluation, decisions: Decisions) -> torch.Tensor:
    return part(evaluation, decisions.with_extras(part.prepare(decisions, evaluation.detach(), {})))


@pytest.mark.parametrize(("tau", "sign"), [(0.2, 1.0), (0.9, -1.0), (0.5, 0.0)])
def test_the_budget_is_the_distance_of_the_whole_updates_ratio(tau: float, sign: float) -> None:
    evaluation, decisions = rows([[0.0, 1.0], [0.25, 0.75]])
    found = cost(EdgeBudget(tau), evaluation, decisions)
    assert float(found.mean()) == pytest.approx(abs(0.5 - tau))
    found.mean().backward()
    assert torch.allclose(evaluation.probes["open_ratio"].grad, torch.full((2, 2), sign / 4).double())


def test_halves_of_an_update_add_up_to_it() -> None:
    """The sign is of the whole update: the second half alone would lie on the other side of the budget."""
    evaluation, decisions = rows([[1.0, 1.0], [0.0, 0.1]])
    part = EdgeBudget(0.3)
    whole = decisions.with_extras(part.prepare(decisions, evaluation.detach(), {}))
    halves = [part(evaluation.rows(slice(i, i + 1)), whole.rows(slice(i, i + 1))).sum() for i in range(2)]
    assert float(sum(halves)) / 4 == pytest.approx(abs(2.1 / 4 - 0.3))


def test_the_schedules_of_the_release() -> None:
    method = ascent.method("bayesian_network_marl", anneal=True)
    tau, alpha = method.losses["edges"].value.tau, method.losses["edges"].coefficient
    assert [at(tau, Clock(progress=p)) for p in (0.0, 0.4, 0.55, 0.7, 1.0)] == pytest.approx([1, 1, 0.5, 0, 0])
    assert at(tau, Clock(progress=0.4 + 0.3 * 1.5 / 40)) == pytest.approx(1 - 1 / 40)
    assert [at(alpha, Clock(progress=p)) for p in (0.0, 0.7, 0.85, 1.0)] == pytest.approx([0.1, 0.1, 0.55, 1.0])
    assert "edges" not in ascent.method("bayesian_network_marl").losses


def test_an_empty_budget_with_a_large_weight_closes_the_graph() -> None:
    policy = BayesianNetwork(4, 3, 2, 5, "learned", hidden=(16,))
    state = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    keys = torch.arange(64)[:, None, None]
    step = torch.optim.Adam(policy.graph.parameters(), lr=1e-2)
    ratios = []
    for round_ in range(150):
        noise = uniform(keys + (round_ << 32), torch.arange(4)[:, None], torch.arange(12)).float()
        ratio = open_ratio(policy.graph(state, noise))[:, None]
        decisions = Decisions(mask=torch.ones(64, 1, dtype=torch.bool), extras={"progress": torch.zeros(64)})
        step.zero_grad()
        cost(EdgeBudget(0.0), Evaluation(probes={"open_ratio": ratio}), decisions).mean().backward()
        step.step()
        ratios.append(float(ratio.detach().mean()))
    assert ratios[0] > 0.4 and ratios[-1] < 0.01


def test_the_composition() -> None:
    method = ascent.method("bayesian_network_marl")
    assert isinstance(method.advantage, Team) and method.plan.unit == "row"
    assert method.plan.passes == 5 and method.plan.minibatches == 1
    assert "probe:open_ratio" in ascent.method("bayesian_network_marl", anneal=True).evaluates
    assert "graph_noise" in ascent.method("bayesian_network_marl", resample_graph=True).needs


def test_own_critics_change_the_credit_and_nothing_else() -> None:
    central, own = (ascent.method("bayesian_network_marl", critic=critic) for critic in ("central", "own"))
    assert central == ascent.method("bayesian_network_marl")
    assert own.advantage == EachAgent(central.advantage.of) and own.value_target == EachAgent(central.value_target.of)
    assert own.replace(advantage=central.advantage, value_target=central.value_target) == central
    assert own.needs - central.needs == {"agent", "left"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"graph": "star"}, "graph"),
        ({"critic": "shared"}, "critic must be one of 'central', 'own'; got 'shared'"),
        ({"graph": "empty", "anneal": True}, "learned graph"),
        ({"graph": "complete", "resample_graph": True}, "resample_graph needs"),
        ({"anneal_from": 0.8}, "anneal_from"),
        ({"density": 1.5}, "density"),
        ({"huber": 0.0}, "huber"),
        ({"stairs": 0}, "stairs"),
        ({"anneal": "maybe"}, "anneal must be one of True, False"),
        ({"popart": 1}, "popart must be one of"),
        ({"resample_graph": "no"}, "resample_graph must be one of"),
    ],
)
def test_bad_parameters_are_refused_by_name(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ascent.method("bayesian_network_marl", **wrong)
