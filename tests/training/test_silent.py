"""Rows without advantage go without a backward pass, and nothing that can be seen changes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.method import Method
from ascent.core.plan import Adam
from ascent.core.registry import cards
from ascent.core.surrogates import DecoupledClip
from ascent.core.term import Term
from ascent.training.annotate import evaluated, log_prob_of
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from tests.training.test_learn import Softmax, collection

# Every method of a language model, with and without what teaches on rows without advantage.
METHODS: dict[str, tuple[Method, bool]] = {
    "reinforce": (ascent.method("reinforce", baseline="batch"), True),
    "reinforce-entropy": (ascent.method("reinforce", entropy_coefficient=0.1), False),
    "rloo": (ascent.method("rloo"), True),
    "rloo-kl": (ascent.method("rloo", kl_coefficient=0.1), True),
    "grpo": (ascent.method("grpo", kl_coefficient=0.0), True),
    "grpo-kl": (ascent.method("grpo", kl_coefficient=0.1), False),
    "dr_grpo": (ascent.method("dr_grpo"), True),
    "dapo": (ascent.method("dapo"), True),
    "gspo": (ascent.method("gspo"), True),
    "gspo-token": (ascent.method("gspo", variant="token"), True),
    "cispo": (ascent.method("cispo"), True),
    "reinforce_plus_plus": (ascent.method("reinforce_plus_plus"), True),  # the divergence is part of the reward
    "reinforce_plus_plus-baseline": (ascent.method("reinforce_plus_plus", variant="baseline"), False),
    "entropy_mechanism": (ascent.method("entropy_mechanism", clip_fraction=0.3, covariance_low=0.1), True),
    "entropy_mechanism-kl": (ascent.method("entropy_mechanism", variant="kl_cov", kl_fraction=0.3), False),
    "copg": (ascent.method("copg"), False),
    "naive_pg": (ascent.method("naive_pg"), False),
    "dpo": (ascent.method("dpo"), False),
    "ipo": (ascent.method("ipo"), False),
    "sft": (ascent.method("sft"), True),
    "bapo": (ascent.method("bapo"), True),
    "forking_tokens": (ascent.method("forking_tokens", overlong_buffer=0.0), True),
    "p3o": (ascent.method("p3o"), False),
    "kdrl": (ascent.method("kdrl"), False),
    "capo": (ascent.method("capo"), True),
    "stabilizing_rl": (ascent.method("stabilizing_rl"), True),
    "ppo": (ascent.method("ppo"), False),
    "a2c": (ascent.method("a2c"), False),
    "decoupled": (ascent.method("grpo", kl_coefficient=0.0).replace(losses={"policy": Term(DecoupledClip())}), True),
}


class Counting(Softmax):
    """Notes how many rows were evaluated with a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0

    def evaluate(self, decisions: Decisions, needs: frozenset[str], probes: Mapping = {}) -> Evaluation:
        self.heard += len(decisions) * torch.is_grad_enabled()
        return super().evaluate(decisions, needs, probes)


def unequal(silent_groups: int) -> Decisions:
    """Rows of four groups of three; every response of the first groups scored alike."""
    found = collection(1)
    last = found.terminated
    score = torch.where(torch.arange(12) // 3 < silent_groups, 0.5, torch.arange(12) % 3 / 2).double()
    return found.replace(reward=torch.where(last, score[:, None], 0.0))


def learnt(method: Method, silent_groups: int, **options) -> tuple[Counting, dict[str, list[torch.Tensor]]]:
    policy, memory = Counting(), Fresh()
    scorers = {f"{name}_log_prob": log_prob_of(Softmax(seed)) for name, seed in (("reference", 5), ("teacher", 7))}
    learn = Learn("policy", policy, method, memory, scorers=scorers, monitor=frozenset({"entropy"}), **options)
    loop = Loop(System({"policy": policy}, {"fresh": memory}, ()))
    for round_ in range(2):
        memory.put(unequal(silent_groups if round_ else 1))
        learn.run(loop, round_)
    return policy, loop.recorded


def test_every_language_method_is_here() -> None:
    named = {name.partition("-")[0] for name in METHODS}
    assert {card.slug for card in cards() if card.family in ("language", "both")} <= named


# capo reads the features of a network, which this policy has not.
@pytest.mark.parametrize(("silent_groups", "micro_rows"), [(1, None), (4, 3)])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "capo"])
def test_nothing_changes(
    name: str, silent_groups: int, micro_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and metrics after two updates with momentum; the second may hold no advantage at all."""
    method = METHODS[name][0].replace(step=Adam(0.01))
    policy, recorded = learnt(method, silent_groups, micro_rows=micro_rows)
    monkeypatch.setattr(Method, "silent", lambda self, decisions: None)
    whole, expected = learnt(method, silent_groups, micro_rows=micro_rows)
    assert torch.allclose(policy.vector, whole.vector, atol=1e-10, rtol=0)
    assert set(recorded) == set(expected)
    for metric, numbers in expected.items():
        assert torch.stack(recorded[metric]).double() == pytest.approx(torch.stack(numbers).double(), abs=1e-10), metric
    if name in ("grpo", "dr_grpo", "rloo", "gspo"):
        assert policy.heard < whole.heard


@pytest.mark.parametrize("name", METHODS)
def test_rows_without_advantage_have_no_gradient_exactly_where_it_is_said(name: str) -> None:
    method, follows = METHODS[name]
    assert method.follows_advantage == follows
    now, decisions = method.example(8, 5, 3, torch.float64)
    advantage = torch.where(torch.arange(8)[:, None] < 3, 0.0, torch.randn(8, 5, dtype=torch.float64))
    decisions = decisions.replace(advantage=advantage)
    silent = method.silent(decisions)
    if not follows:
        assert silent is None
        return
    assert silent is not None and bool(silent[:3].all())
    loss, _ = method.loss(now, decisions)
    loss.backward()
    assert now.log_prob.grad is not None
    assert not now.log_prob.grad[silent].any() and now.log_prob.grad[~silent].any()


def test_silent_rows_are_evaluated_without_gradient_at_their_places() -> None:
    policy = Counting()
    decisions = collection()
    silent = torch.arange(12) % 3 == 0
    wanted = frozenset({"log_prob", "entropy"})
    now = evaluated(policy, decisions, wanted, silent)
    assert policy.heard == 8
    expected = policy.evaluate(decisions, wanted)
    for column in ("log_prob", "entropy"):
        assert torch.equal(now.column(column), expected.column(column))
    (slope,) = torch.autograd.grad(now.log_prob[silent].sum(), [policy.actor])
    assert not slope.any()


def test_a_coupled_model_is_evaluated_whole() -> None:
    policy = Counting()
    policy.splittable = False
    evaluated(policy, collection(), frozenset({"log_prob"}), torch.ones(12, dtype=torch.bool))
    assert policy.heard == 12
