"""The team's policy: joint probabilities, MAPPO with the empty graph, replayed draws."""

from __future__ import annotations

import itertools

import pytest
import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.random import uniform
from ascent.policies.bayesian_network import BayesianNetwork
from ascent.policies.graphs import Kind

AGENTS, OBSERVATION, STATE = 3, 4, 5
NEEDS = frozenset({"log_prob", "entropy", "value", "probe:open_ratio"})


def policy(graph: Kind = "learned", actions: int = 2, seed: int = 0, **more: object) -> BayesianNetwork:
    made = BayesianNetwork(AGENTS, OBSERVATION, actions, STATE, graph, hidden=(8,), seed=seed, **more).double()  # type: ignore[arg-type]
    with torch.no_grad():  # so that parents matter
        made.weight.mul_(100.0)
    return made


def moments(made: BayesianNetwork, rows: int = 4, length: int = 6, seed: int = 0) -> Decisions:
    """Decisions of rows copies over `length` moments, drawn by the policy itself."""
    draw = torch.Generator().manual_seed(seed)
    shape = (rows, length * AGENTS)
    observation = torch.randn(rows * length, AGENTS, OBSERVATION, generator=draw, dtype=torch.float64)
    state = torch.randn(rows * length, STATE, generator=draw, dtype=torch.float64)
    keys = torch.arange(rows * length)[:, None, None] + (seed << 32)
    drawn = uniform(keys, torch.arange(AGENTS)[:, None], torch.arange(1 + made.graph.draws))
    noise = drawn[..., 1:] if made.graph.draws else None
    first = None if made.cell is None else torch.zeros(rows * length, AGENTS, 8).double()
    action, log_prob, _ = made.act(observation, state, drawn[..., 0], noise, memory=first)
    wide = state.repeat_interleave(AGENTS, 0).view(*shape, -1)
    time = torch.arange(length).repeat_interleave(AGENTS).expand(shape)
    ended = time == length - 1
    return Decisions(
        mask=torch.ones(shape, dtype=torch.bool),
        context={
            "observation": observation.view(*shape, -1),
            "next_observation": observation.view(*shape, -1).roll(-AGENTS, 1),
            "state": wide,
            "next_state": wide.roll(-AGENTS, 1),
            **({} if made.cell is None else {"memory": torch.randn(rows, AGENTS, 8, generator=draw).double()}),
        },
        action=action.view(shape),
        behaviour_log_prob=log_prob.view(shape),
        reward=torch.randn(rows, length, generator=draw, dtype=torch.float64).repeat_interleave(AGENTS, 1),
        terminated=ended,
        truncated=torch.zeros_like(ended),
        segment=time.contiguous(),
        extras={
            "agent": torch.arange(shape[1]).expand(shape) % AGENTS,
            "left": torch.zeros_like(ended),
            **({} if noise is None else {"graph_noise": noise.reshape(*shape, -1)}),
        },
    )


@pytest.mark.parametrize("graph", ["learned", "empty", "complete", "line", "random"])
def test_joint_probabilities_of_every_action_add_up_to_one(graph: Kind) -> None:
    made = policy(graph)
    one = moments(made, rows=1, length=1)
    total = 0.0
    for action in itertools.product(range(2), repeat=AGENTS):
        total += float(made.evaluate(one.replace(action=torch.tensor([action])), NEEDS).log_prob.sum().exp().detach())
    assert total == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("graph", ["learned", "complete"])
def test_frequencies_are_the_joint_probabilities(graph: Kind) -> None:
    made, count = policy(graph, seed=2), 20_000
    one = moments(made, rows=1, length=1)
    observation = one.context["observation"].expand(count, -1, -1)
    state = one.context["state"][:, 0].expand(count, -1)
    noise = one.extras["graph_noise"].expand(count, -1, -1) if made.graph.draws else None
    action, _, _ = made.act(observation, state, uniform(torch.arange(count)[:, None], torch.arange(AGENTS)), noise)
    frequency = torch.bincount((action * torch.tensor([4, 2, 1])).sum(-1), minlength=8) / count
    for number, joint in enumerate(itertools.product(range(2), repeat=AGENTS)):
        chance = made.evaluate(one.replace(action=torch.tensor([joint])), NEEDS).log_prob.sum().exp()
        assert float(frequency[number]) == pytest.approx(float(chance), abs=0.015)


@pytest.mark.parametrize("graph", ["learned", "empty", "complete", "line", "random"])
def test_recorded_draws_give_ratio_one_at_the_old_parameters(graph: Kind) -> None:
    made = policy(graph)
    decisions = moments(made, rows=8)
    found = made.evaluate(decisions, NEEDS).log_prob
    assert torch.allclose(found, decisions.behaviour_log_prob, atol=1e-12)
    assert torch.allclose(made.annotate(decisions, frozenset({"old_log_prob"})).old_log_prob, found, atol=0)


def test_a_graph_drawn_anew_is_off_ratio_one_and_the_option_draws_it() -> None:
    made = policy("learned")
    decisions = made.annotate(moments(made, rows=8), frozenset({"old_log_prob", "value", "next_value"}))
    for resample in (False, True):
        method = ascent.method("bayesian_network_marl", resample_graph=resample)
        credited = method.credit(decisions)
        ratio = (made.evaluate(credited, NEEDS).log_prob - credited.old_log_prob).exp()
        assert bool((ratio - 1).abs().max() < 1e-12) is not resample
        assert torch.equal(credited.extras["graph_noise"], decisions.extras["graph_noise"]) is not resample
        assert torch.equal(method.credit(decisions).extras["graph_noise"], credited.extras["graph_noise"])


def ppo_loss(made: BayesianNetwork, decisions: Decisions, own: bool) -> torch.Tensor:
    """Multi-agent PPO written out: independent heads, a central critic, one advantage a moment (MAPPO).

    With `own`, the critic and the advantage of each agent are its own (IPPO).
    """
    rows, columns = decisions.mask.shape
    length = columns // AGENTS
    observation = decisions.context["observation"].view(rows, length, AGENTS, -1)
    features = made.encoder(observation).tanh()
    logits = torch.stack(
        [features[:, :, i] @ made.weight[i, : features.shape[-1]] + made.bias[i] for i in range(AGENTS)], 2
    )
    law = torch.distributions.Categorical(logits=logits)
    log_prob = law.log_prob(decisions.action.view(rows, length, AGENTS))
    if own:
        value = torch.cat([critic(observation[:, :, i]) for i, critic in enumerate(made.critic.each)], -1)
    else:
        value = made.critic(decisions.context["state"][:, ::AGENTS]).expand(-1, -1, AGENTS)
    old = value.detach()
    reward = decisions.reward.view(rows, length, AGENTS)
    advantage, running = torch.zeros_like(old), torch.zeros(rows, AGENTS, dtype=torch.float64)
    for t in reversed(range(length)):
        following = old[:, t + 1] if t + 1 < length else torch.zeros_like(running)
        running = reward[:, t] + 0.99 * following - old[:, t] + 0.99 * 0.95 * running * (t + 1 < length)
        advantage[:, t] = running
    target = advantage + old
    normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    ratio = (log_prob - decisions.old_log_prob.view(rows, length, AGENTS)).exp()
    policy_loss = -torch.minimum(ratio * normal, ratio.clamp(0.8, 1.2) * normal).mean()
    value_loss = torch.nn.functional.huber_loss(value, target, delta=10.0)
    return policy_loss + value_loss - 0.01 * law.entropy().mean()


@pytest.mark.parametrize("critic", ["central", "own"])
def test_the_empty_graph_is_mappo_or_ippo_in_loss_and_gradient(critic: str) -> None:
    made = policy("empty", actions=3, critic=critic)
    decisions = made.annotate(moments(made), frozenset({"value", "next_value"}))
    moved = decisions.behaviour_log_prob + 0.3 * torch.sin(torch.arange(decisions.mask.numel())).view_as(
        decisions.reward
    )
    decisions = decisions.replace(old_log_prob=moved.detach())
    method = ascent.method("bayesian_network_marl", graph="empty", critic=critic)
    loss, _ = method.loss(made.evaluate(decisions, method.evaluates), decisions)
    found = torch.autograd.grad(loss, list(made.parameters()))
    wanted_loss = ppo_loss(made, decisions, critic == "own")
    wanted = torch.autograd.grad(wanted_loss, list(made.parameters()), allow_unused=True)
    assert float(loss) == pytest.approx(float(wanted_loss), abs=1e-12)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, torch.zeros_like(one) if other is None else other, atol=1e-12)


def test_an_own_critic_sees_its_own_agents_observation_only() -> None:
    made = policy("complete", critic="own")
    decisions = moments(made, rows=2, length=2)
    before = made.annotate(decisions, frozenset({"value", "next_value"}))
    assert torch.equal(before.next_value[:, :AGENTS], before.value[:, AGENTS:])
    assert not before.next_value[:, AGENTS:].any()  # of a terminated moment
    for agent in range(AGENTS):
        observation = decisions.context["observation"].clone()
        observation[:, agent::AGENTS] += 1.0
        context = {**decisions.context, "observation": observation, "state": decisions.context["state"] + 1.0}
        moved = made.evaluate(decisions.replace(context=context), NEEDS).value != before.value
        assert moved[:, agent::AGENTS].all() and moved.sum() == 2 * 2
        (gradient,) = torch.autograd.grad(
            made.evaluate(decisions, NEEDS).value[:, agent::AGENTS].sum(), [made.value_layers[agent].weight]
        )
        assert gradient.any()
    others = torch.autograd.grad(
        made.evaluate(decisions, NEEDS).value[:, ::AGENTS].sum(), [made.value_layers[1].weight], allow_unused=True
    )
    assert others[0] is None or not others[0].any()
    first, second = (layer.weight for layer in made.value_layers[:2])
    assert not torch.equal(first, second)


def test_a_critic_is_central_or_own() -> None:
    with pytest.raises(ValueError, match="critic must be one of"):
        policy(critic="shared")


def test_a_learned_graph_without_open_edges_is_the_empty_one() -> None:
    learned, plain = policy("learned"), policy("empty")
    with torch.no_grad():
        bias = learned.graph.edge.layers[-1].get_parameter("bias")
        bias[0::2], bias[1::2] = 60.0, -60.0
    decisions = moments(learned)
    found, wanted = learned.evaluate(decisions, NEEDS), plain.evaluate(decisions, NEEDS)
    assert torch.allclose(found.log_prob, wanted.log_prob, atol=0) and not found.probes["open_ratio"].any()


def test_gradient_reaches_the_graph_through_the_parents_actions() -> None:
    made = policy("learned")
    decisions = moments(made)
    made.evaluate(decisions, NEEDS).log_prob.sum().backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in made.graph.parameters())  # type: ignore[union-attr]


def test_who_left_is_not_heard_and_has_no_say() -> None:
    made = policy("complete")
    decisions = moments(made, rows=2, length=2)
    mask = decisions.mask.clone()
    mask[:, 0] = False
    one = made.evaluate(decisions.replace(mask=mask), NEEDS).log_prob
    other = made.evaluate(decisions.replace(mask=mask, action=decisions.action * mask), NEEDS).log_prob
    assert torch.allclose(one[mask], other[mask], atol=0)
    alone = made.own(decisions.context["observation"].view(-1, AGENTS, OBSERVATION)).log_softmax(-1)
    assert torch.allclose(one[0, 1], alone[0, 1, decisions.action[0, 1]], atol=1e-12)


def test_forbidden_actions_are_never_taken() -> None:
    made = policy("complete", actions=3)
    observation, state = torch.zeros(500, AGENTS, OBSERVATION).double(), torch.zeros(500, STATE).double()
    available = torch.ones(500, AGENTS, 3, dtype=torch.bool)
    available[:, :, 1] = False
    action, log_prob, _ = made.act(
        observation, state, uniform(torch.arange(500)[:, None], torch.arange(AGENTS)), None, None, available
    )
    assert set(action.unique().tolist()) == {0, 2} and torch.isfinite(log_prob).all()
    likely, _, _ = made.act(observation, state, None, None, None, available)
    assert len(torch.unique(likely, dim=0)) == 1


def test_rows_must_hold_whole_moments() -> None:
    made = policy("empty")
    decisions = moments(made)
    with pytest.raises(ValueError, match="whole moments"):
        made.evaluate(Decisions(mask=decisions.mask[:, :4], action=decisions.action[:, :4]), NEEDS)


def test_one_agent_is_an_ordinary_policy() -> None:
    made = BayesianNetwork(1, OBSERVATION, 2, STATE, "learned", hidden=(8,)).double()
    noise = uniform(torch.arange(5)[:, None, None], torch.zeros(1, dtype=torch.int64)[:, None], torch.arange(3))
    _, log_prob, graph = made.act(
        torch.zeros(5, 1, OBSERVATION).double(), torch.zeros(5, STATE).double(), noise[..., 0], noise
    )
    assert not graph.any() and torch.allclose(log_prob, torch.full((5, 1), 0.5).double().log(), atol=1e-6)


def test_memory_is_the_gated_unit_written_out() -> None:
    """Each agent's own, from the row's first memory on, cleared after moment 1, which ended an episode."""
    made = policy("empty", recurrent=True)
    decisions = moments(made, rows=2, length=4)
    ended = torch.arange(4 * AGENTS).expand(2, -1) // AGENTS == 1
    decisions = decisions.replace(truncated=ended)
    log_prob = made.evaluate(decisions, NEEDS).log_prob
    cell = made.cell
    assert cell is not None
    with torch.no_grad():  # so that biases matter
        cell.bias_ih.copy_(torch.linspace(-1, 1, 24))
        cell.bias_hh.copy_(torch.linspace(1, -2, 24))
    moved = made.evaluate(decisions, NEEDS).log_prob
    assert not torch.allclose(moved, log_prob)
    for row in range(2):
        for agent in range(AGENTS):
            memory = decisions.context["memory"][row, agent]
            for time in range(4):
                place = time * AGENTS + agent
                x = made.encoder(decisions.context["observation"][row, place]).tanh()
                into = cell.weight_ih @ x + cell.bias_ih
                back = cell.weight_hh @ memory + cell.bias_hh
                reset, update = (into[:16] + back[:16]).sigmoid().chunk(2)
                memory = (1 - update) * (into[16:] + reset * back[16:]).tanh() + update * memory
                law = (memory @ made.weight[agent, :8] + made.bias[agent]).log_softmax(-1)
                assert moved[row, place].item() == pytest.approx(law[decisions.action[row, place]].item(), abs=1e-12)
                memory = memory * (time != 1)


def test_what_an_agent_saw_matters_later_in_its_episode_and_to_nobody_else() -> None:
    made = policy("empty", recurrent=True)
    decisions = moments(made, rows=1, length=4)
    decisions = decisions.replace(truncated=torch.arange(4 * AGENTS)[None] // AGENTS == 2)
    observation = decisions.context["observation"].clone()
    observation[0, 1] += 1.0  # agent 1 at moment 0
    before = made.evaluate(decisions, NEEDS)
    after = made.evaluate(decisions.replace(context={**decisions.context, "observation": observation}), NEEDS)
    moved = (before.log_prob != after.log_prob).view(4, AGENTS)
    assert moved[:, 1].tolist() == [True, True, True, False] and not moved[:, [0, 2]].any()
    assert torch.equal(before.value, after.value)  # the critic has no memory


def test_a_memory_of_another_shape_is_refused() -> None:
    made = policy("empty", recurrent=True)
    decisions = moments(made, rows=2, length=2)
    context = {**decisions.context, "memory": decisions.context["memory"][:, 0]}
    with pytest.raises(ValueError, match="context 'memory' must be"):
        made.evaluate(decisions.replace(context=context), NEEDS)
