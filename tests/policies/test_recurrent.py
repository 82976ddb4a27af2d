"""The recurrent policy against a plain step-by-step loop over torch's own GRU cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ascent.core.decisions import Decisions
from ascent.core.random import generator
from ascent.policies.action_head import Head
from ascent.policies.recurrent import RecurrentActorCritic

ROWS, COLUMNS, SIZE, HIDDEN = 3, 6, 4, 5


def build() -> tuple[RecurrentActorCritic, Decisions]:
    draw = generator(0, "recurrent test")
    policy = RecurrentActorCritic(SIZE, Head("categorical", (3,)), hidden=HIDDEN, gain=1.0).double()
    nn.init.normal_(policy.state.bias, generator=draw)
    flags = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    terminated, truncated = flags.clone(), flags.clone()
    terminated[0, 2] = truncated[1, 0] = truncated[1, 4] = True
    context = {
        "observation": torch.randn(ROWS, COLUMNS, SIZE, generator=draw, dtype=torch.float64),
        "memory": torch.randn(ROWS, HIDDEN, generator=draw, dtype=torch.float64),
    }
    action = torch.randint(0, 3, (ROWS, COLUMNS), generator=draw)
    return policy, Decisions(mask=~flags, context=context, action=action, terminated=terminated, truncated=truncated)


def plain_loop(policy: RecurrentActorCritic, decisions: Decisions) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and values, one row and one step at a time."""
    cell = nn.GRUCell(HIDDEN, HIDDEN).double()
    cell.weight_ih, cell.bias_ih = policy.input.weight, policy.input.bias
    cell.weight_hh, cell.bias_hh = policy.state.weight, policy.state.bias
    log_probs, values = [], []
    for row in range(ROWS):
        memory = decisions.context["memory"][row : row + 1]
        for column in range(COLUMNS):
            x = torch.tanh(policy.encoder(decisions.context["observation"][row, column]))
            memory = cell(x[None], memory)
            logs = policy.actor(memory)[0].log_softmax(-1)
            log_probs.append(logs[decisions.action[row, column]])
            values.append(policy.critic(memory)[0, 0])
            if decisions.terminated[row, column] or decisions.truncated[row, column]:
                memory = torch.zeros_like(memory)
    return torch.stack(log_probs).view(ROWS, COLUMNS), torch.stack(values).view(ROWS, COLUMNS)


def test_numbers_and_gradients_are_those_of_a_plain_loop():
    policy, decisions = build()
    found = policy.evaluate(decisions, frozenset({"log_prob", "value"}))
    log_prob, value = plain_loop(policy, decisions)
    torch.testing.assert_close(found.log_prob, log_prob)
    torch.testing.assert_close(found.value, value)
    weights = torch.linspace(-1, 1, ROWS * COLUMNS, dtype=torch.float64).view(ROWS, COLUMNS)
    parameters = list(policy.parameters())
    mine = torch.autograd.grad((weights * (found.log_prob + found.value)).sum(), parameters)
    theirs = torch.autograd.grad((weights * (log_prob + value)).sum(), parameters)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_passes_the_end_of_an_episode():
    policy, decisions = build()
    before = policy.evaluate(decisions, frozenset({"value"})).value
    observation = decisions.context["observation"].clone()
    observation[0, :3] += 1.0
    changed = decisions.replace(context={**decisions.context, "observation": observation})
    after = policy.evaluate(changed, frozenset({"value"})).value
    torch.testing.assert_close(after[0, 3:], before[0, 3:])
    assert not torch.allclose(after[0, :3], before[0, :3])


def test_acting_in_numpy_step_by_step_is_the_same_policy():
    policy, decisions = build()
    policy.float()
    actor = policy.numpy_actor()
    actor.begin(ROWS)
    actor.memory = decisions.context["memory"].float().numpy()
    outputs = []
    for column in range(COLUMNS):
        outputs.append(actor.outputs(decisions.context["observation"][:, column].float().numpy()))
        actor.restart((decisions.terminated | decisions.truncated)[:, column].numpy())
    policy.double()
    wanted = policy.distribution_parameters(decisions)
    np.testing.assert_allclose(np.stack(outputs, 1), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_single_decisions_are_refused():
    policy, decisions = build()
    with pytest.raises(ValueError, match="Plan\\(unit='row'\\)"):
        policy.evaluate(
            decisions.replace(context={**decisions.context, "memory": torch.zeros(2, HIDDEN)}), frozenset({"value"})
        )
