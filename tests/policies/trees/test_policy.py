"""Trees as a policy: leaves of the gradient's graph, what is kept of a collection, two rates, checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import ascent
from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.part import Clock
from ascent.core.plan import Adam, AppendTree, Linear, TreeAdam, TreeShape
from ascent.evaluation.returns import evaluate_returns
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.trees.ensemble import Ensemble
from ascent.policies.trees.policy import PLACE, TreeActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.training.steps import TreeStepper, stepper_for
from ascent.worlds.gym import Environments

DISCRETE, REAL = Head("categorical", (3,)), Head("gaussian", (), 2)
STEP = AppendTree(0.5, 0.1, TreeShape(3, bins=10))


@pytest.fixture
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def collected(head: Head = DISCRETE, rows: int = 3, columns: int = 8, seed: int = 0) -> Decisions:
    draw = torch.Generator().manual_seed(seed)
    shape = (rows, columns)
    action = (
        torch.randint(3, shape, generator=draw) if head is DISCRETE else 0.15 * torch.randn(*shape, 2, generator=draw)
    )
    ends = torch.rand(shape, generator=draw)
    return Decisions(
        mask=torch.ones(shape, dtype=torch.bool),
        context={name: torch.randn(*shape, 4, generator=draw) for name in ("observation", "next_observation")},
        action=action,
        behaviour_log_prob=torch.full(shape, -1.0),
        reward=torch.randn(shape, generator=draw),
        terminated=ends < 0.1,
        truncated=ends > 0.9,
    )


def credited(policy: TreeActorCritic, method: Method, decisions: Decisions) -> Decisions:
    needs = frozenset({"old_log_prob", "value", "next_value"})
    return method.credit(policy.annotate(decisions, needs))


def update(policy: TreeActorCritic, method: Method, decisions: Decisions, step: AppendTree = STEP) -> dict[str, Tensor]:
    loss, _ = method.loss(policy.evaluate(decisions, method.evaluates), decisions)
    loss.backward()
    return stepper_for(step, policy).step(Clock())


def grown(head: Head = DISCRETE, shared: bool = True, trees: int = 4) -> tuple[TreeActorCritic, Method, Decisions]:
    policy = TreeActorCritic(4, head, dataclasses.replace(STEP, shared=shared))
    method = ascent.method("ppo", entropy_coefficient=0.1)
    decisions = credited(policy, method, collected(head))
    for _ in range(trees):
        update(policy, method, decisions)
    return policy, method, decisions


def captured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What every tree is grown on."""
    seen: list[tuple[Any, Any]] = []
    grow = Ensemble.step

    def step(self: Ensemble, x: Any, gradient: Any, *rest: Any) -> Any:
        seen.append((x, gradient))
        return grow(self, x, gradient, *rest)

    monkeypatch.setattr(Ensemble, "step", step)
    return seen


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("head", [DISCRETE, REAL], ids=["discrete", "real"])
@pytest.mark.parametrize("name", ["ppo", "a2c", "gbrl"])
def test_the_gradient_is_each_decisions_own(head: Head, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """n times the autograd of the mean loss against finite differences of it, output by output."""
    options = {"algorithm": "awr", "temperature": 2.0} if name == "gbrl" else {}
    method = ascent.method(name, entropy_coefficient=0.1, **options)
    policy, _, decisions = grown(head)
    decisions = credited(policy, method, decisions)
    seen = captured(monkeypatch)
    method_step = method.loss(policy.evaluate(decisions, method.evaluates), decisions)[0]
    method_step.backward()
    function = policy._function(decisions)
    policy.grow(STEP, 0.1, 0.1)
    number, small = decisions.mask.numel(), 1e-6

    def loss(moved: Tensor) -> float:
        monkeypatch.setattr(policy, "_function", lambda _: moved)
        return float(method.loss(policy.evaluate(decisions, method.evaluates), decisions)[0].detach())

    expected = torch.zeros_like(function)
    for place in np.ndindex(*function.shape):
        shift = torch.zeros_like(function)
        shift[place] = small
        expected[place] = number * (loss(function + shift) - loss(function - shift)) / (2 * small)
    np.testing.assert_allclose(seen[0][1], expected.reshape(number, -1), atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("adam", [None, TreeAdam()])
def test_what_is_kept_of_a_collection_is_what_all_trees_say(shared: bool, adam: TreeAdam | None) -> None:
    step = dataclasses.replace(STEP, shared=shared, adam=adam)
    policy, method = TreeActorCritic(4, DISCRETE, step), ascent.method("ppo", entropy_coefficient=0.1)
    update(policy, method, credited(policy, method, collected(seed=5)), step)
    decisions = credited(policy, method, collected())
    for _ in range(5):
        update(policy, method, decisions, step)
        kept = policy.evaluate(decisions, frozenset({"log_prob", "outputs", "value"}))
        flat = decisions.flatten().rows(torch.randperm(24))
        bare = decisions.replace(extras={k: v for k, v in decisions.extras.items() if k != PLACE})
        full = policy.evaluate(bare, frozenset({"log_prob", "outputs", "value"}))
        for name in kept:
            assert torch.equal(kept.column(name), full.column(name))
        # Single decisions find their places.
        shuffled = policy.evaluate(flat, frozenset({"outputs"})).outputs
        observed = torch.from_numpy(policy.predicted(flat.context["observation"].reshape(-1, 4).numpy()))
        assert torch.equal(shuffled[:, 0], observed[:, :3].to(shuffled.dtype))


def test_places_of_another_collection_are_not_mistaken() -> None:
    policy, method, old = grown()
    credited(policy, method, collected(seed=9))
    said = policy.evaluate(old, frozenset({"outputs"})).outputs
    expected = policy.predicted(old.context["observation"].reshape(-1, 4).numpy())[:, :3]
    assert torch.equal(said.reshape(-1, 3), torch.from_numpy(expected).float())


@pytest.mark.parametrize("shared", [True, False])
def test_a_rate_of_zero_leaves_policy_or_value(shared: bool) -> None:
    for rates, still in (((0.0, 0.2), slice(0, 3)), ((0.2, 0.0), slice(3, 4))):
        policy, method, decisions = grown(shared=shared)
        x = decisions.context["observation"].reshape(-1, 4).numpy()
        before = policy.predicted(x)
        update(policy, method, decisions, AppendTree(*rates, STEP.shape, shared))
        after = policy.predicted(x)
        assert np.array_equal(after[:, still], before[:, still])
        assert not np.array_equal(after, before)


def test_schedules_are_read_by_the_clock() -> None:
    policy, method, decisions = grown(trees=1)
    loss, _ = method.loss(policy.evaluate(decisions, method.evaluates), decisions)
    loss.backward()
    stepper = stepper_for(AppendTree(Linear(0.4, 0.0), Linear(0.0, 1.0), STEP.shape), policy)
    told = stepper.step(Clock(5, 0.25))
    np.testing.assert_allclose(policy.ensembles[0].array("rate")[1], [0.3, 0.3, 0.3, 0.25], rtol=1e-6)
    assert float(told["learning_rate"]) == pytest.approx(0.3)
    assert float(told["trees"]) == 2


def test_gradients_are_cut_decision_by_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, method, decisions = grown()
    seen = captured(monkeypatch)
    update(policy, method, decisions)
    update(policy, method, decisions, dataclasses.replace(STEP, max_policy_gradient=0.3, max_value_gradient=0.1))
    plain, cut = seen[0][1], seen[1][1]
    assert np.linalg.norm(plain[:, :3], axis=1).max() > 0.3
    assert np.linalg.norm(cut[:, :3], axis=1).max() <= 0.3 + 1e-9
    assert np.abs(cut[:, 3]).max() <= 0.1 + 1e-9


def test_masked_decisions_take_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, method, decisions = grown(trees=0)
    mask = decisions.mask.clone()
    mask[:, 3] = False
    garbage = decisions.context["observation"].clone()
    garbage[:, 3] = 1e9
    seen = captured(monkeypatch)
    update(policy, method, decisions.replace(mask=mask, context={**decisions.context, "observation": garbage}))
    assert seen[0][0].shape == (21, 4)
    assert np.abs(seen[0][0]).max() < 1e3


@pytest.mark.parametrize("head", [DISCRETE, REAL], ids=["discrete", "real"])
def test_acting_and_learning_say_the_same(head: Head) -> None:
    policy, _, decisions = grown(head)
    x = decisions.context["observation"][:, 0]
    outputs = policy.evaluate(decisions, frozenset({"outputs"})).outputs
    np.testing.assert_array_equal(policy.numpy_actor().outputs(x.numpy()), outputs[:, 0].detach().numpy())
    assert policy.distribution_parameters(decisions).shape[-1] == (3 if head is DISCRETE else 4)


def test_values_of_successors() -> None:
    policy, _, decisions = grown()
    found = policy.annotate(decisions, frozenset({"value", "next_value"}))
    ended = decisions.terminated
    assert (found.next_value[ended] == 0).all()
    inner = ~ended[:, :-1] & ~decisions.truncated[:, :-1]
    assert torch.equal(found.next_value[:, :-1][inner], found.value[:, 1:][inner])
    after = policy.predicted(decisions.context["next_observation"].reshape(-1, 4).numpy())[:, -1].reshape(3, 8)
    cut = (decisions.truncated & ~ended).numpy()
    np.testing.assert_allclose(found.next_value.numpy()[cut], after[cut], rtol=1e-6)


def test_the_deviation_of_real_actions_has_an_optimiser_of_its_own() -> None:
    policy, method, decisions = grown(REAL, trees=0)
    assert policy.log_std is not None
    assert policy.log_std.tolist() == [-2.0, -2.0]
    loss, _ = method.loss(policy.evaluate(decisions, method.evaluates), decisions)
    loss.backward()
    stepper = stepper_for(dataclasses.replace(STEP, others=Adam(0.01, max_gradient_norm=None)), policy)
    stepper.step(Clock())
    # Adam's first step is its rate.
    np.testing.assert_allclose((policy.log_std + 2.0).abs().tolist(), [0.01, 0.01], rtol=1e-4)
    assert policy.trees == 1
    assert [tuple(state) for state in stepper.state_dict().values()]


NETWORK = dataclasses.replace(STEP, critic=Adam(0.01, max_gradient_norm=None))


def with_network(head: Head = DISCRETE) -> tuple[TreeActorCritic, Method, Decisions]:
    policy = TreeActorCritic(4, head, NETWORK, seed=3)
    method = ascent.method("ppo", value_coefficient=0.872)
    return policy, method, credited(policy, method, collected(head))


@pytest.mark.usefixtures("float64")
def test_a_network_for_the_value_learns_by_autograd() -> None:
    """Its gradient is that of c / 2 mean (V - target)^2 for V = w tanh(W2 tanh(W1 s)), and no tree grows on it."""
    policy, method, decisions = with_network()
    assert policy.critic is not None
    assert (policy.outputs, [ensemble.outputs for ensemble in policy.ensembles]) == (3, [3])
    mask = decisions.mask.clone()
    mask[:, 2] = False
    decisions = decisions.replace(mask=mask)
    loss, _ = method.loss(policy.evaluate(decisions, method.evaluates), decisions)
    loss.backward()
    weights = [parameter.detach().clone().requires_grad_() for parameter in policy.critic.parameters()]
    first, first_bias, second, second_bias, last, last_bias = weights
    x = decisions.context["observation"]
    hidden = torch.tanh(torch.tanh(x @ first.T + first_bias) @ second.T + second_bias)
    error = (hidden @ last.T + last_bias)[..., 0] - decisions.value_target
    expected = torch.autograd.grad(0.872 * 0.5 * (error**2)[mask].mean(), weights)
    for parameter, gradient in zip(policy.critic.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-12)
    before = [parameter.detach().clone() for parameter in policy.critic.parameters()]
    norm = torch.cat([gradient.reshape(-1) for gradient in expected]).norm()
    told = stepper_for(NETWORK, policy).step(Clock())
    torch.testing.assert_close(told["critic_gradient_norm"], norm)
    assert float(told["gradient_norm"]) > float(norm)
    # Adam's first step is its rate, against the gradient's sign.
    for parameter, old, gradient in zip(policy.critic.parameters(), before, expected, strict=True):
        sure = gradient.abs() > 1e-4
        torch.testing.assert_close((parameter - old)[sure], -0.01 * gradient.sign()[sure], rtol=1e-3, atol=0.0)
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert policy.trees == 1


def test_values_of_a_network_are_an_actor_critics() -> None:
    """Of the same seed, now and of successors, bit for bit; the policy's trees are those that grow without it."""
    policy, method, decisions = with_network()
    network = ActorCritic(4, DISCRETE, seed=3)
    needs = frozenset({"value", "next_value"})
    expected = network.annotate(collected(), needs)
    assert torch.equal(decisions.value, expected.value)
    assert torch.equal(decisions.next_value, expected.next_value)
    alone = TreeActorCritic(4, DISCRETE, dataclasses.replace(STEP, shared=False))
    alone.annotate(decisions, frozenset({"old_log_prob"}))
    x = decisions.context["observation"].reshape(-1, 4).numpy()
    for _ in range(3):
        update(policy, method, decisions, NETWORK)
        update(alone, method, decisions)
        assert np.array_equal(policy.predicted(x), alone.predicted(x)[:, :3])


@pytest.mark.parametrize("head", [DISCRETE, REAL], ids=["discrete", "real"])
def test_a_network_for_the_value_travels(head: Head, tmp_path: Path) -> None:
    """In the state, with the moments of its Adam, and in a file of its own."""
    policy, method, decisions = with_network(head)
    stepper = stepper_for(NETWORK, policy)
    method.loss(policy.evaluate(decisions, method.evaluates), decisions)[0].backward()
    stepper.step(Clock())
    other = TreeActorCritic(4, head, NETWORK, seed=4)
    other.load_state_dict(policy.state_dict())
    resumed = stepper_for(NETWORK, other)
    resumed.load_state_dict(stepper.state_dict())
    for one, moves in ((policy, stepper), (other, resumed)):
        method.loss(one.evaluate(decisions, method.evaluates), decisions)[0].backward()
        moves.step(Clock())
    for mine, theirs in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    policy.save(tmp_path)
    fresh = TreeActorCritic(4, head, NETWORK, seed=5)
    assert fresh.critic is not None
    fresh.critic.load_state_dict(load_file(tmp_path / "critic.safetensors"))
    found = fresh.evaluate(decisions, frozenset({"value"})).value
    assert torch.equal(found, policy.evaluate(decisions, frozenset({"value"})).value)
    with pytest.raises(ValueError, match=r"AppendTree\.critic is None"):
        stepper_for(STEP, policy)


@pytest.mark.parametrize("shared", [True, False])
def test_trees_travel_in_the_state(shared: bool) -> None:
    policy, method, decisions = grown(shared=shared)
    other = TreeActorCritic(4, DISCRETE, dataclasses.replace(STEP, shared=shared))
    other.load_state_dict(policy.state_dict())
    x = decisions.context["observation"].reshape(-1, 4).numpy()
    assert np.array_equal(other.predicted(x), policy.predicted(x))
    for one in (policy, other):
        update(one, method, decisions)
    assert np.array_equal(other.predicted(x), policy.predicted(x))


def test_at_the_limit_a_student_takes_over() -> None:
    policy, method, decisions = grown(trees=0)
    step = dataclasses.replace(STEP, limit=8)
    x = decisions.context["observation"].reshape(-1, 4).numpy()
    for _ in range(7):
        update(policy, method, decisions, step)
    before = policy.predicted(x)
    update(policy, method, decisions, step)
    assert policy.trees == 2
    after = policy.predicted(x)
    assert np.corrcoef(before[:, 0], after[:, 0])[0, 1] > 0.5
    update(policy, method, decisions, step)
    assert policy.trees == 3


def test_it_refuses_what_does_not_fit() -> None:
    policy, method, decisions = grown()
    with pytest.raises(TypeError, match="Adam does not move a TreeActorCritic"):
        stepper_for(Adam(), policy)
    with pytest.raises(TypeError, match="AppendTree does not move a ActorCritic"):
        stepper_for(AppendTree(), ActorCritic(4, DISCRETE))
    policy.clear()
    with pytest.raises(RuntimeError, match="no evaluation to grow a tree of"):
        policy.grow(STEP, 0.1, 0.1)
    bare = TreeActorCritic(4, DISCRETE, STEP, critic=False)
    with pytest.raises(ValueError, match="has no critic"):
        bare.evaluate(decisions, frozenset({"value"}))
    with pytest.raises(ValueError, match="categorical must be one truth a feature, 4; got 2"):
        TreeActorCritic(4, DISCRETE, STEP, categorical=[True, False])
    memory = Fresh()
    memory.put(decisions)
    learn = Learn("policy", TreeActorCritic(4, DISCRETE, STEP), method.replace(step=STEP), memory, micro_rows=2)
    loop = Loop(System({}, {}, (Phase("train", (learn,), 1),)))
    with pytest.raises(ValueError, match="rows of stage 'policy''s model are coupled"):
        loop.run()


@pytest.mark.parametrize(
    ("algorithm", "more"),
    [("ppo", {}), ("a2c", {}), ("awr", {}), ("ppo", {"critic": "network"}), ("ppo", {"optimiser": "adam"})],
    ids=["ppo", "a2c", "awr", "network", "adam"],
)
def test_every_algorithm_learns_with_trees(algorithm: str, more: dict[str, Any]) -> None:
    """A pole that falls after 10 steps by chance stands for 100 or more."""
    options: dict[str, Any] = {"a2c": {"learning_rate": 0.135, "value_learning_rate": 0.0474, "trace": 1.0}}.get(
        algorithm, {}
    )
    if algorithm == "awr":
        options = {"temperature": 5.0, "passes": 4, "value_learning_rate": 0.02}
    method = ascent.method("gbrl", algorithm=algorithm, **options, **more)
    horizon, rounds = (8, 250) if algorithm == "a2c" else (64, 40)
    environments = Environments("CartPole-v1", 8)
    policy = TreeActorCritic(4, Head.of(environments.actions), method.step)  # type: ignore[arg-type]
    memory = Fresh()
    collect = Collect("collect", VectorSampler(policy, environments, horizon), memory)
    stages = (collect, Learn("policy", policy, method, memory))
    Loop(System({"policy": policy}, {"fresh": memory}, (Phase("train", stages, rounds),))).run()
    assert policy.trees == rounds * method.plan.passes * method.plan.minibatches
    assert evaluate_returns(policy, "CartPole-v1", 10).mean > 100


def test_steps_of_a_tree_stepper_without_other_parameters(tmp_path: Path) -> None:
    policy, _, _ = grown()
    stepper = stepper_for(STEP, policy)
    assert isinstance(stepper, TreeStepper)
    assert stepper.parameters == []
    assert stepper.state_dict() == {}
    policy.save(tmp_path)
    again = Ensemble.load(tmp_path / "trees.safetensors")
    assert again.trees == policy.trees
