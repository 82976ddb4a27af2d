"""How far recorded actions are from a policy: the sampling error of a finite batch (PROPS, arXiv 2311.08290).

    SE = mean over (s, a) in D of log pi_D(a|s) - log pi(a|s),  pi_D the maximum-likelihood policy of the data

It estimates E KL(pi_D || pi), nats, and is above 0 for any finite sample even if it was drawn from pi: compare it only
with the same number of an on-policy sample of equal size, from the same policies and with the same fit.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ascent.core.decisions import Decisions
from ascent.methods.props import sampling_error
from ascent.policies.actor_critic import ActorCritic


def state_counts(decisions: Decisions, choices: int) -> tuple[Tensor, Tensor]:
    """The distinct observations [S, O] and how often each of `choices` actions was taken there [S, choices]."""
    observation = decisions.context["observation"][decisions.mask]
    states, place = torch.unique(observation, dim=0, return_inverse=True)
    count = torch.zeros(len(states), choices, dtype=torch.float64)
    count.index_put_(
        (place, decisions.action[decisions.mask]), torch.ones(len(place), dtype=torch.float64), accumulate=True
    )
    return states, count


@torch.no_grad()
def tabular_sampling_error(policy: ActorCritic, decisions: Decisions) -> float:
    """The exact sampling error where states repeat (one-hot or grid observations), by counts.

    Args:
        policy: whose actions they should be; a categorical head.
        decisions: the batch, context "observation" [N, T, O] and `action` [N, T].

    Raises:
        ValueError: the actions are not single choices.
    """
    if policy.head.kind != "categorical":
        raise ValueError(
            f"tabular_sampling_error counts single choices; got a {policy.head.kind} head. Use fitted_sampling_error."
        )
    states, count = state_counts(decisions, policy.head.outputs)
    probability = policy.actor(states).double().softmax(-1)
    return float(sampling_error(probability, count))


def fitted_sampling_error(
    policy: ActorCritic, decisions: Decisions, steps: int = 2000, learning_rate: float = 1e-3
) -> float:
    """The sampling error with pi_D fitted: the policy's last layer (and log-std) by maximum likelihood.

    The hidden layers stay frozen, full-batch Adam takes `steps` steps with a linearly falling rate, and the
    log-std stays in [-3, 1] (the official code). The fit begins at the policy, which is left unchanged.

    Args:
        policy: whose actions they should be.
        decisions: the batch.
        steps: >= 1; fewer underestimate the error, because the fit is not done.
        learning_rate: of Adam at the first step, > 0.
    """
    if steps < 1:
        raise ValueError(f"steps must be an integer >= 1; got {steps!r}.")
    mask = decisions.mask
    action = decisions.action[mask]
    with torch.no_grad():
        hidden = policy.actor.hidden(decisions.context["observation"][mask])
        wanted = policy.head.distribution(policy.actor.last(hidden), policy.log_std).log_prob(action)
    last = copy.deepcopy(policy.actor.layers[-1])
    log_std = None if policy.log_std is None else policy.log_std.detach().clone().requires_grad_()
    fitted = [*last.parameters(), *([] if log_std is None else [log_std])]
    optimiser = torch.optim.Adam(fitted, lr=learning_rate, fused=True)

    def log_prob() -> Tensor:
        return policy.head.distribution(last(hidden), log_std).log_prob(action)

    for step in range(steps):
        optimiser.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimiser.zero_grad()
        (-log_prob().mean()).backward()
        optimiser.step()
        if log_std is not None:
            log_std.data.clamp_(-3.0, 1.0)
    with torch.no_grad():
        return float((log_prob() - wanted).double().mean())
