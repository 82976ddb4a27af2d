"""Actor-critic networks: equal in torch and numpy, values at boundaries, exact divergences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ascent.core.decisions import Decisions
from ascent.core.random import generator
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.policies.recurrent import RecurrentActorCritic

HEADS = {
    "categorical": Head("categorical", (3,)),
    "multi_categorical": Head("multi_categorical", (2, 3)),
    "gaussian": Head("gaussian", (), 2),
    "tanh_mean": Head("gaussian", (), 2, tanh_mean=True),
    "squashed_gaussian": Head("squashed_gaussian", (), 2),
}
ROWS, COLUMNS, SIZE = 3, 5, 4


def decisions_for(head: Head, memory: int = 0) -> Decisions:
    draw = generator(0, "test")
    observation = torch.randn(ROWS, COLUMNS, SIZE, generator=draw, dtype=torch.float64)
    action = {
        "categorical": torch.randint(0, 3, (ROWS, COLUMNS), generator=draw),
        "multi_categorical": torch.randint(0, 2, (ROWS, COLUMNS, 2), generator=draw),
    }.get(head.kind, torch.rand(ROWS, COLUMNS, 2, generator=draw, dtype=torch.float64) - 0.5)
    context = {
        "observation": observation,
        "next_observation": torch.randn(ROWS, COLUMNS, SIZE, generator=draw, dtype=torch.float64),
    }
    if memory:
        context["memory"] = torch.randn(ROWS, memory, generator=draw, dtype=torch.float64)
    ended = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    terminated, truncated = ended.clone(), ended.clone()
    terminated[0, 1] = truncated[1, 2] = terminated[2, 4] = True
    mask = torch.ones(ROWS, COLUMNS, dtype=torch.bool)
    mask[1, 4] = False
    return Decisions(mask=mask, context=context, action=action, terminated=terminated, truncated=truncated)


def reference_log_prob(
    head: Head, outputs: torch.Tensor, log_std: torch.Tensor | None, action: torch.Tensor
) -> torch.Tensor:
    """By torch.distributions."""
    if head.kind == "categorical":
        return torch.distributions.Categorical(logits=outputs).log_prob(action)
    if head.kind == "multi_categorical":
        parts = outputs.split(list(head.sizes), -1)
        logs = [torch.distributions.Categorical(logits=part).log_prob(action[..., n]) for n, part in enumerate(parts)]
        return torch.stack(logs).sum(0)
    mean = torch.tanh(outputs) if head.tanh_mean else outputs
    normal = torch.distributions.Independent(torch.distributions.Normal(mean, log_std.exp().expand_as(mean)), 1)
    if head.kind == "squashed_gaussian":
        transform = torch.distributions.transforms.TanhTransform()
        return torch.distributions.TransformedDistribution(normal, [transform]).log_prob(action)
    return normal.log_prob(action)


@pytest.mark.parametrize("name", HEADS)
def test_log_prob_is_that_of_torch_distributions(name):
    head = HEADS[name]
    policy = ActorCritic(SIZE, head, gain=1.0, log_std=-0.3).double()
    decisions = decisions_for(head)
    found = policy.evaluate(decisions, frozenset({"log_prob", "entropy", "outputs", "features"}))
    wanted = reference_log_prob(head, policy.actor(decisions.context["observation"]), policy.log_std, decisions.action)
    torch.testing.assert_close(found.log_prob, wanted, rtol=1e-9, atol=1e-9)
    assert found.entropy.shape == (ROWS, COLUMNS)
    assert found.features.shape == (ROWS, COLUMNS, 64)
    annotated = policy.annotate(decisions, frozenset({"old_log_prob"}))
    torch.testing.assert_close(annotated.old_log_prob, found.log_prob.detach())


@pytest.mark.parametrize("name", HEADS)
def test_acting_in_numpy_is_the_same_policy(name):
    head = HEADS[name]
    policy = ActorCritic(SIZE, head, gain=1.0, log_std=-0.3)
    observation = torch.randn(6, SIZE, generator=generator(1, "observation"))
    actor = policy.numpy_actor()
    outputs = actor.outputs(observation.numpy())
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(outputs), policy.actor(observation), rtol=1e-5, atol=1e-6)
        density = head.distribution(policy.actor(observation), policy.log_std)
    np.testing.assert_allclose(head.mode(outputs), density.mode().numpy(), rtol=1e-5, atol=1e-6)


def test_the_numpy_actor_reads_the_present_weights():
    policy = ActorCritic(SIZE, HEADS["categorical"])
    actor = policy.numpy_actor()
    observation = np.ones((1, SIZE), np.float32)
    before = actor.outputs(observation)
    with torch.no_grad():
        policy.actor.layers[-1].bias += 1.0
    np.testing.assert_allclose(actor.outputs(observation), before + 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", HEADS)
def test_samples_follow_the_distribution(name):
    head = HEADS[name]
    count = 40_000
    outputs = torch.tensor([0.4, -0.5, 0.9, 0.1, -0.2][: head.outputs])
    log_std = torch.tensor([-0.2, 0.3]) if head.continuous else None
    noise = head.noise(torch.full((count,), 7), torch.arange(count))
    tiled = np.tile(outputs.numpy(), (count, 1))
    actions = torch.from_numpy(head.sample(tiled, None if log_std is None else log_std.numpy(), noise))
    density = head.distribution(outputs.expand(count, -1), log_std)
    # The mean log-probability of samples is minus the entropy.
    log_prob = density.log_prob(actions)
    error = float(log_prob.std()) / count**0.5
    assert abs(float(log_prob.mean() + density.entropy()[0])) < 4 * error + 1e-4


def test_noise_depends_only_on_what_it_is_for():
    head = HEADS["gaussian"]
    keys, index = torch.tensor([5, 6, 7]), torch.arange(4)[:, None].expand(4, 3)
    whole = head.noise(keys.expand(4, 3), index)
    np.testing.assert_array_equal(head.noise(keys[1:], index[2, 1:]), whole[2, 1:])
    assert len(np.unique(whole)) == whole.size


@pytest.mark.parametrize("memory", [0, 8])
def test_next_values_are_zero_bootstrapped_or_shifted(memory):
    head = HEADS["categorical"]
    policy = RecurrentActorCritic(SIZE, head, hidden=memory).double() if memory else ActorCritic(SIZE, head).double()
    decisions = decisions_for(head, memory)
    found = policy.annotate(decisions, frozenset({"value", "next_value"}))
    evaluated = policy.evaluate(decisions, frozenset({"value"}))
    torch.testing.assert_close(found.value, evaluated.value.detach())
    successor = decisions.context["next_observation"]
    for row in range(ROWS):
        for column in range(COLUMNS):
            if not decisions.mask[row, column]:
                continue
            last = column == COLUMNS - 1 or not decisions.mask[row, column + 1]
            if decisions.terminated[row, column]:
                wanted = torch.zeros((), dtype=torch.float64)
            elif decisions.truncated[row, column] or last:
                wanted = boundary_value(policy, decisions, successor, row, column)
            else:
                wanted = found.value[row, column + 1]
            torch.testing.assert_close(found.next_value[row, column], wanted)


def boundary_value(policy, decisions, successor, row, column):
    """The value of a successor, for a recurrent policy after walking the row up to it."""
    if not policy.recurrent:
        return policy.critic(successor[row, column]).squeeze().detach()
    changed = decisions.context["observation"].clone()
    wide = torch.cat([changed, changed[:, -1:]], dim=1)
    wide[row, column + 1] = successor[row, column]
    ended = torch.zeros(ROWS, COLUMNS + 1, dtype=torch.bool)
    terminated, truncated = ended.clone(), ended.clone()
    terminated[:, :COLUMNS], truncated[:, :COLUMNS] = decisions.terminated, decisions.truncated
    truncated[row, column] = False
    context = {"observation": wide, "memory": decisions.context["memory"]}
    longer = Decisions(mask=~ended, context=context, terminated=terminated, truncated=truncated)
    return policy.evaluate(longer, frozenset({"value"})).value[row, column + 1].detach()


@pytest.mark.parametrize("name", HEADS)
def test_divergences_from_recorded_parameters(name):
    head = HEADS[name]
    first, second = (ActorCritic(SIZE, head, gain=1.0, seed=seed, log_std=0.1 * seed).double() for seed in (0, 1))
    decisions = decisions_for(head)
    recorded = second.distribution_parameters(decisions)
    decisions = decisions.with_extras({"reference_distribution": recorded})
    needs = frozenset({"probe:kl_reference", "probe:reverse_kl_reference"})
    found = first.evaluate(decisions, needs)
    observation = decisions.context["observation"]
    mine = head.distribution(first.actor(observation), first.log_std)
    theirs = head.distribution(second.actor(observation), second.log_std)
    torch.testing.assert_close(found.column("kl_reference"), mine.kl(theirs))
    torch.testing.assert_close(found.column("reverse_kl_reference"), theirs.kl(mine))
    assert bool((found.column("kl_reference") > 0).all())
    same = second.evaluate(decisions, needs)
    torch.testing.assert_close(same.column("kl_reference"), torch.zeros(ROWS, COLUMNS, dtype=torch.float64))
    found.column("kl_reference").sum().backward()
    assert first.actor.layers[0].weight.grad is not None
    assert second.actor.layers[0].weight.grad is None


def test_probes_are_called_and_unknown_ones_refused():
    policy = ActorCritic(SIZE, HEADS["categorical"]).double()
    decisions = decisions_for(HEADS["categorical"])
    found = policy.evaluate(
        decisions, frozenset({"probe:top"}), {"top": lambda outputs, hidden, action: outputs.amax(-1)}
    )
    torch.testing.assert_close(found.column("top"), policy.actor(decisions.context["observation"]).amax(-1))
    with pytest.raises(ValueError, match="probe 'nothing' is unknown"):
        policy.evaluate(decisions, frozenset({"probe:nothing"}))


def test_only_what_is_needed_is_computed():
    policy = ActorCritic(SIZE, HEADS["categorical"], critic=False).double()
    decisions = decisions_for(HEADS["categorical"])
    assert list(policy.evaluate(decisions, frozenset({"log_prob"}))) == ["log_prob"]
    with pytest.raises(ValueError, match="critic=True"):
        policy.evaluate(decisions, frozenset({"value"}))


def test_a_seed_decides_the_weights_and_they_are_orthogonal():
    first, same, other = (ActorCritic(SIZE, HEADS["categorical"], seed=seed) for seed in (3, 3, 4))
    weights = [policy.actor.layers[1].weight for policy in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    torch.testing.assert_close(weights[0] @ weights[0].T, 2 * torch.eye(64), rtol=1e-4, atol=1e-4)


def test_flat_decisions_give_the_numbers_of_rows():
    policy = ActorCritic(SIZE, HEADS["gaussian"]).double()
    decisions = decisions_for(HEADS["gaussian"])
    needs = frozenset({"log_prob", "value"})
    rows, flat = policy.evaluate(decisions, needs), policy.evaluate(decisions.flatten(), needs)
    torch.testing.assert_close(rows.log_prob[decisions.mask], flat.log_prob[:, 0])
    torch.testing.assert_close(rows.value[decisions.mask], flat.value[:, 0])
