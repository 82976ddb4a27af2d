"""Compiled networks say and learn what PyTorch's do; wherever they do not fit, nothing is lost but time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.policies import native_mlp
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import MLP, ActorCritic
from ascent.policies.continuous import ContinuousActor, ContinuousHead, Judged
from ascent.policies.critics import Critics
from ascent.policies.learning import (
    Learning,
    LearningCritics,
    LearningJudged,
    constant_actor,
    constant_critics,
    joined,
    layers,
    learning,
    stacked,
)
from ascent.policies.native_mlp import Stack, library, passed

needs_compiler = pytest.mark.skipif(library(torch.float64) is None, reason="no C compiler here")
CLOSE = {torch.float64: {"rtol": 1e-12, "atol": 1e-13}, torch.float32: {"rtol": 2e-5, "atol": 2e-5}}
BOTH = pytest.mark.parametrize("dtype", list(CLOSE), ids=str)
SAID = frozenset({"log_prob", "entropy", "value"})
ROWS, COLUMNS, SIZE, ACTIONS = 7, 11, 5, 3


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "inputs"), dtype=torch.float64).to(dtype)


def shaken(module: nn.Module, dtype: torch.dtype = torch.float64) -> Any:
    """With biases and weights that are not special."""
    draw = generator(5, "shaken")
    module = module.to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64).to(dtype)
    return module


def gradients(module: nn.Module, loss: Callable[[], Tensor]) -> list[Tensor | None]:
    """Of every parameter, after one backward pass; forgotten again."""
    loss().backward()
    found = [None if x.grad is None else x.grad.clone() for x in module.parameters()]
    for parameter in module.parameters():
        parameter.grad = None
    return found


def equal(found: list[Tensor | None], expected: list[Tensor | None], dtype: torch.dtype = torch.float64) -> None:
    """Both absent, or close relative to the largest of their numbers."""
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None and theirs.numel():
            scale = theirs.abs().max().clamp(min=1.0)
            torch.testing.assert_close(mine / scale, theirs / scale, **CLOSE[dtype])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which compiled passes were made."""
    made: list[str] = []
    for kind in (native_mlp.Pass, native_mlp.Through):
        plain = kind.apply

        def apply(*inputs: Any, plain: Any = plain, name: str = kind.__name__) -> Any:
            made.append(name)
            return plain(*inputs)

        monkeypatch.setattr(kind, "apply", apply)
    yield made


@needs_compiler
@settings(deadline=None, max_examples=80)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=2, max_size=5),
    rows=st.sampled_from([0, 1, 2, 15, 16, 17, 63, 64, 65, 150]),
    activation=st.sampled_from(["tanh", "relu"]),
    dtype=st.sampled_from(list(CLOSE)),
    seed=st.integers(0, 1000),
)
def test_a_network_of_any_shape_says_and_learns_the_same(
    sizes: list[int], rows: int, activation: Any, dtype: torch.dtype, seed: int
) -> None:
    network = shaken(MLP(sizes, 1.0, generator(seed, "network"), activation), dtype)
    x, gradient = normal(rows, sizes[0], seed=seed, dtype=dtype), normal(rows, sizes[-1], seed=seed + 1, dtype=dtype)
    stack = stacked(network)
    found = passed([(stack, (x,))])
    plain = lambda: network.last(network.hidden(x))  # noqa: E731
    assert found is not None
    equal([found[0].detach()], [plain().detach()], dtype)
    again = lambda: (passed([(stack, (x,))])[0] * gradient).sum()  # type: ignore[index]  # noqa: E731
    equal(gradients(network, again), gradients(network, lambda: (plain() * gradient).sum()), dtype)


@needs_compiler
@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 4),
    hidden=st.lists(st.integers(1, 40), min_size=0, max_size=3),
    rows=st.sampled_from([0, 1, 31, 64, 130]),
    activation=st.sampled_from(["tanh", "relu"]),
    first=st.integers(1, 4),
)
def test_stacked_critics_and_their_gradient_by_the_action(
    count: int, hidden: list[int], rows: int, activation: Any, first: int
) -> None:
    critics = shaken(Critics(3, 2, count, hidden, activation))
    observation, weights = normal(rows, 1, 3, seed=0), normal(rows, 1, min(first, count), seed=1)
    mine, theirs = (normal(rows, 1, 2, seed=2).requires_grad_() for _ in range(2))
    said = constant_critics(critics, min(first, count))(observation, mine)
    expected = critics(observation, theirs, frozen=True, first=min(first, count))
    equal([said.detach()], [expected.detach()])
    if rows:
        (said * weights).sum().backward()
        (expected * weights).sum().backward()
        equal([mine.grad], [theirs.grad])
    assert all(parameter.grad is None for parameter in critics.parameters())
    stack, weights = Stack(layers(critics), activation == "relu"), normal(count, rows, 1, seed=3)
    x = joined(observation, mine.detach())
    found = gradients(critics, lambda: (passed([(stack, (x,))])[0] * weights).sum())  # type: ignore[index]
    plain = lambda: (critics(observation, mine.detach())[:, 0].t()[..., None] * weights).sum()  # noqa: E731
    equal(found, gradients(critics, plain))


@needs_compiler
def test_tanh_is_tanh_at_every_size() -> None:
    network = MLP((1, 1, 1), 1.0, generator(0, "network")).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float(parameter.dim() == 2))
    x = torch.cat([torch.logspace(-300, 3, 400, dtype=torch.float64), torch.tensor([0.0, 19.0, 1e308])])
    x = torch.cat([x, -x])[:, None]
    (found,) = passed([(stacked(network), (x,))]) or ()
    torch.testing.assert_close(found.detach(), x.tanh(), rtol=1e-14, atol=0.0)
    nan = torch.full((1, 1), torch.nan, dtype=torch.float64)
    assert (passed([(stacked(network), (nan,))]) or (x,))[0].isnan().all()


def decisions(head: Head, dtype: torch.dtype, contiguous: bool = True) -> Decisions:
    observation, action = normal(ROWS, COLUMNS, SIZE, seed=0, dtype=dtype), normal(ROWS, COLUMNS, ACTIONS, seed=1)
    action = action.to(dtype) if head.continuous else action[..., 0].abs().long().clamp(max=2)
    if not contiguous:
        observation = observation.transpose(0, 1).contiguous().transpose(0, 1)
        action = action.transpose(0, 1).contiguous().transpose(0, 1)
    return Decisions(
        mask=torch.ones(ROWS, COLUMNS, dtype=torch.bool), context={"observation": observation}, action=action
    )


HEADS = {
    "gaussian": Head("gaussian", (), ACTIONS),
    "tanh_mean": Head("gaussian", (), ACTIONS, tanh_mean=True),
    "squashed_gaussian": Head("squashed_gaussian", (), ACTIONS),
    "categorical": Head("categorical", (3,)),
}


def weighed(said: Evaluation) -> Tensor:
    """A loss of all columns."""
    total = torch.zeros((), dtype=torch.float64)
    for place, name in enumerate(sorted(said)):
        column = said.column(name)
        total = total + (normal(*column.shape, seed=place + 7) * column.double()).sum()
    return total


@needs_compiler
@BOTH
@pytest.mark.parametrize(
    "needs", [SAID, {"log_prob"}, {"value"}, {"entropy"}, {"log_prob", "value", "outputs"}], ids=str
)
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("kind", HEADS)
def test_an_actor_critic_learns_the_same(
    kind: str, contiguous: bool, needs: frozenset[str], dtype: torch.dtype, counted: list[str]
) -> None:
    head = HEADS[kind]
    if kind == "squashed_gaussian" and "entropy" in needs:
        needs = frozenset(needs - {"entropy"}) or SAID - {"entropy"}
    policy, rows = shaken(ActorCritic(SIZE, head, hidden=(13, 20)), dtype), decisions(head, dtype, contiguous)
    if head.kind == "squashed_gaussian":
        rows = rows.replace(action=rows.action.tanh())
    fast = learning(policy)
    assert isinstance(fast, Learning)
    mine, theirs = fast.evaluate(rows, frozenset(needs)), policy.evaluate(rows, frozenset(needs))
    assert counted == ["Pass"] and set(mine) == set(theirs)
    equal([mine.column(name).detach() for name in mine], [theirs.column(name).detach() for name in mine], dtype)
    found = gradients(policy, lambda: weighed(fast.evaluate(rows, frozenset(needs))))
    expected = gradients(policy, lambda: weighed(policy.evaluate(rows, frozenset(needs))))
    equal(found, expected, dtype)


@needs_compiler
@pytest.mark.parametrize("changes", [{"members": 3}, {"members": 2, "spread": 0.5}], ids=str)
def test_an_ensemble_of_values_learns_the_same(changes: dict[str, Any], counted: list[str]) -> None:
    policy = shaken(ActorCritic(SIZE, HEADS["gaussian"], hidden=(9,), **changes))
    rows, needs = decisions(policy.head, torch.float64), frozenset({"log_prob", "value"})
    if "spread" in changes:
        needs |= {"probe:value_spread"}
    fast = learning(policy)
    found = gradients(policy, lambda: weighed(fast.evaluate(rows, needs)))
    equal(found, gradients(policy, lambda: weighed(policy.evaluate(rows, needs))))
    assert counted == ["Pass"]


@needs_compiler
def test_features_and_probes_are_read_by_the_plain_way(counted: list[str]) -> None:
    policy = ActorCritic(SIZE, HEADS["gaussian"]).double()
    rows, fast = decisions(policy.head, torch.float64), learning(policy)
    said = fast.evaluate(rows, frozenset({"features", "log_prob"}))
    assert counted == [] and said.features.shape == (ROWS, COLUMNS, 64)
    fast.evaluate(rows, frozenset({"probe:own"}), {"own": lambda outputs, hidden, action: hidden.sum(-1)})
    assert counted == []


@needs_compiler
@pytest.mark.parametrize("soft", [True, False])
def test_an_actor_learns_the_same_through_its_judges(soft: bool, counted: list[str]) -> None:
    actor = shaken(ContinuousActor(SIZE, ContinuousHead(ACTIONS, soft), (17, 30)))
    critics = shaken(Critics(SIZE, ACTIONS, 2, (12, 40)))
    rows = decisions(HEADS["gaussian"], torch.float64)
    rows = rows.with_extras({"action_noise": normal(ROWS, COLUMNS, ACTIONS, seed=3)})
    judged = Judged(actor, critics, None if soft else 1)
    fast = learning(judged)
    assert isinstance(fast, LearningJudged)
    needs = frozenset({"outcome"})
    found = gradients(actor, lambda: weighed(fast.evaluate(rows, needs)))
    assert counted == ["Pass", "Through"]
    equal(found, gradients(actor, lambda: weighed(judged.evaluate(rows, needs))))
    assert all(parameter.grad is None for parameter in critics.parameters())
    noise = rows.extras["action_noise"] if soft else None
    own, theirs = (ask(rows.context["observation"], noise) for ask in (constant_actor(actor), actor.fresh))
    equal([None if x is None else x.detach() for x in own], [None if x is None else x.detach() for x in theirs])


@needs_compiler
def test_critics_learn_the_same(counted: list[str]) -> None:
    critics = shaken(Critics(SIZE, ACTIONS, 3, (12, 40)))
    rows, fast = decisions(HEADS["gaussian"], torch.float64), learning(critics)
    assert isinstance(fast, LearningCritics)
    found = gradients(critics, lambda: weighed(fast.evaluate(rows, frozenset({"value"}))))
    assert counted == ["Pass"]
    equal(found, gradients(critics, lambda: weighed(critics.evaluate(rows, frozenset({"value"})))))


@needs_compiler
def test_gradients_of_parts_of_an_update_add_up() -> None:
    policy = shaken(ActorCritic(SIZE, HEADS["gaussian"], hidden=(9,)))
    rows, fast, needs = decisions(policy.head, torch.float64), learning(policy), SAID

    def loss(said: Evaluation) -> Tensor:
        return (said.log_prob * said.value + said.entropy).sum()

    def apart() -> Tensor:
        for part in (rows.rows(slice(0, 3)), rows.rows(slice(3, 5))):
            loss(fast.evaluate(part, needs)).backward()
        return loss(fast.evaluate(rows.rows(slice(5, ROWS)), needs))

    found = gradients(policy, apart)
    equal(found, gradients(policy, lambda: loss(policy.evaluate(rows, needs))))
    # What is there already stays, whoever put it there.
    loss(policy.evaluate(rows.rows(slice(0, 4)), needs)).backward()
    equal(gradients(policy, lambda: loss(fast.evaluate(rows.rows(slice(4, ROWS)), needs))), found)
    # Two forwards before the first backward, and one without gradient between them.
    first, second = (fast.evaluate(rows.rows(part), needs) for part in (slice(0, 2), slice(2, ROWS)))
    with torch.no_grad():
        fast.evaluate(rows, needs)
    loss(first).backward()
    equal(gradients(policy, lambda: loss(second)), found)


@needs_compiler
def test_a_network_that_the_loss_does_not_read_has_no_gradient() -> None:
    policy = ActorCritic(SIZE, HEADS["gaussian"]).double()
    rows, fast = decisions(policy.head, torch.float64), learning(policy)
    fast.evaluate(rows, SAID).value.sum().backward()
    assert policy.critic is not None and policy.log_std is not None
    assert all(parameter.grad is not None for parameter in policy.critic.parameters())
    assert all(parameter.grad is None for parameter in (*policy.actor.parameters(), policy.log_std))


@needs_compiler
def test_a_second_derivative_is_refused() -> None:
    critics = Critics(SIZE, ACTIONS).double()
    action = normal(4, ACTIONS, seed=0).requires_grad_()
    said = constant_critics(critics)(normal(4, SIZE, seed=1), action)
    (slope,) = torch.autograd.grad(said.square().sum(), action, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


@needs_compiler
def test_weights_are_found_where_they_are_now(counted: list[str]) -> None:
    policy = shaken(ActorCritic(SIZE, HEADS["gaussian"], hidden=(9,)))
    rows, fast = decisions(policy.head, torch.float64), learning(policy)
    fast.evaluate(rows, SAID)
    for parameter in policy.parameters():
        parameter.data = parameter.data * 0.5
    names, before = list(policy.state_dict()), list(policy.parameters())
    found = gradients(policy, lambda: weighed(fast.evaluate(rows, SAID)))
    equal(found, gradients(policy, lambda: weighed(policy.evaluate(rows, SAID))))
    policy.float()
    small = decisions(policy.head, torch.float32)
    found = gradients(policy, lambda: weighed(fast.evaluate(small, SAID)))
    equal(found, gradients(policy, lambda: weighed(policy.evaluate(small, SAID))), torch.float32)
    assert counted == ["Pass"] * 3
    assert names == list(policy.state_dict()) and all(a is b for a, b in zip(before, policy.parameters(), strict=True))


@needs_compiler
def test_what_does_not_fit_takes_the_plain_way(counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    policy, rows = ActorCritic(SIZE, HEADS["gaussian"]), decisions(HEADS["gaussian"], torch.float32)
    fast = learning(policy)
    with torch.autocast("cpu", torch.bfloat16):
        fast.evaluate(rows, SAID)
    policy.bfloat16()
    fast.evaluate(decisions(policy.head, torch.bfloat16), SAID)
    policy.float()
    policy.actor.layers[0].bias.requires_grad_(False)
    expected = gradients(policy, lambda: weighed(policy.evaluate(rows, SAID)))
    equal(gradients(policy, lambda: weighed(fast.evaluate(rows, SAID))), expected, torch.float32)
    assert counted == [] and expected[2] is None
    policy.requires_grad_(True)
    monkeypatch.setattr(native_mlp, "SMALL", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    fast.evaluate(rows, SAID)
    assert counted == []
    assert learning(shaken(Critics(SIZE, ACTIONS, spread=0.0))).__class__ is Critics


def test_without_a_compiler_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.delenv("ASCENT_NATIVE", raising=False)
    library.cache_clear()
    try:
        policy, rows = ActorCritic(SIZE, HEADS["gaussian"]), decisions(HEADS["gaussian"], torch.float32)
        fast = learning(policy)
        with caplog.at_level(logging.INFO, logger="ascent.policies.native_mlp"):
            for _ in range(2):
                said, expected = fast.evaluate(rows, SAID), policy.evaluate(rows, SAID)
        assert all(torch.equal(said.column(name), expected.column(name)) for name in SAID)
        assert [record.message for record in caplog.records] == [
            "no C compiler: small networks learn by PyTorch's operations."
        ]
    finally:
        library.cache_clear()
