"""Before anything is timed: on one recorded batch every arm of the control benchmark computes the same.

The library acts; its recorded batch goes to the hand-written loop and to Stable-Baselines3 with the same weights. All
parameters are then moved, so that ratios leave 1 and some are clipped. Compared are advantages, the loss, and the
gradient of every parameter, in float64; and where the library's own learning stage, the code that is timed, takes the
parameters in two plain gradient steps. Stable-Baselines3 has no such seam: its `train` takes one plain gradient step
of size 1 on the batch in its own rollout buffer, so the step is its gradient; its clipped value loss is another formula
than CleanRL's and the library's, so it is compared without.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import torch
from control_arms import assembly, method, peer_model
from control_work import Work
from scratch_ppo import ScratchPPO
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.plan import SGD
from ascent.policies.actor_critic import ActorCritic
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Phase

TOLERANCE = 1e-6
RATE = 1e-3
Found = dict[str, float]


def recorded(work: Work) -> tuple[ActorCritic, Method, Decisions]:
    """A policy in float64, the method of one update, and a credited collection [E, T] of its own actions."""
    system = assembly(work, seed=0, rounds=1).system
    policy = system.models["policy"]
    assert isinstance(policy, ActorCritic)
    with torch.no_grad():  # The first policy is nearly uniform; scores of some size make a comparison.
        policy.actor.layers[-1].weight.mul_(50.0)
    decisions = system.program[0].stages[0].sampler.act()  # type: ignore[attr-defined]
    columns = {name: x.double() if x.is_floating_point() else x for name, x in decisions.to_tensors().items()}
    policy.double()
    ppo = method(replace(work, passes=1, minibatches=1))
    decisions = policy.annotate(Decisions.from_tensors(columns), ppo.needs & {"old_log_prob", "value", "next_value"})
    return policy, ppo, ppo.credit(decisions)


def moved(policy: ActorCritic) -> None:
    """Move every parameter by a fixed pattern, the critic's less: some of its values must stay within the clip."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            pattern = torch.sin(torch.arange(parameter.numel(), dtype=parameter.dtype))
            parameter += (0.06 if name.startswith("critic") else 0.2) * pattern.view_as(parameter)


def ours(policy: ActorCritic, ppo: Method, decisions: Decisions) -> tuple[float, list[Tensor], float]:
    """The library's loss, gradients (actor, critic, deviation) and share of clipped ratios."""
    flat = decisions.flatten()
    loss, metrics = ppo.loss(policy.evaluate(flat, ppo.evaluates), flat)
    policy.zero_grad()
    loss.backward()
    gradients = [parameter.grad for parameter in ordered(policy) if parameter.grad is not None]
    return float(loss.detach()), gradients, float(metrics["clip_fraction"])


def ordered(policy: ActorCritic) -> list[nn.Parameter]:
    """Weights and biases of the actor, of the critic, then the deviation."""
    assert policy.critic is not None
    found = [*policy.actor.parameters(), *policy.critic.parameters()]
    return found if policy.log_std is None else [*found, policy.log_std]


def hand_written(work: Work, policy: ActorCritic, decisions: Decisions) -> Found:
    """Differences of the hand-written loop; `policy` is moved."""
    other = ScratchPPO(work, seed=0, rounds=1)
    _copied(policy, other.parameters)
    context = decisions.context
    columns = [context["observation"], context["next_observation"], decisions.action, decisions.reward]
    columns += [decisions.terminated, decisions.truncated]
    batch = other.credited(*(column.transpose(0, 1).contiguous().numpy() for column in columns))
    moved(policy)
    _copied(policy, other.parameters)
    loss, gradients, _ = ours(policy, method(replace(work, passes=1, minibatches=1)), decisions)
    theirs = other.loss(batch)
    theirs.backward()
    found = [parameter.grad.clone() for parameter in other.parameters if parameter.grad is not None]
    advantage = decisions.advantage.T.flatten() - batch["advantage"]
    return {
        "advantage": float(advantage.abs().max()),
        "loss": abs(loss - float(theirs.detach())),
        "gradient": _apart(gradients, found),
        "learning stage": _walked(work, policy, decisions, other, batch),
    }


def _walked(
    work: Work, policy: ActorCritic, decisions: Decisions, other: ScratchPPO, batch: dict[str, Tensor]
) -> float:
    """How far apart two plain gradient steps of `Learn` and of the hand-written loss end, relative to the longest."""
    policy.zero_grad()
    start = [parameter.detach().clone() for parameter in ordered(policy)]
    plain = method(replace(work, passes=2, minibatches=1)).replace(step=SGD(RATE))
    memory = Fresh()
    memory.put(decisions)
    learn = Learn("policy", policy, plain, memory)
    Loop(System({"policy": policy}, {"fresh": memory}, (Phase("train", (learn,), 1),))).run()
    for _ in range(2):
        for parameter in other.parameters:
            parameter.grad = None
        other.loss(batch).backward()
        with torch.no_grad():
            for parameter in other.parameters:
                assert parameter.grad is not None
                parameter -= RATE * parameter.grad
    paths = [
        [end.detach() - begin for begin, end in zip(start, ends, strict=True)]
        for ends in (ordered(policy), other.parameters)
    ]
    return _apart(*paths)


def stable_baselines(work: Work, policy: ActorCritic, decisions: Decisions) -> Found:
    """Differences of Stable-Baselines3 without value clipping; `policy` is moved."""
    plain = replace(work, value_clip=None, anneal="none", passes=1, minibatches=1)
    model = peer_model(plain, seed=0, rounds=1)
    model._setup_learn(work.size)
    model.policy.double()
    # It casts observations to float32, which loses nothing here, and goes on in float64.
    model.policy.features_extractor.register_forward_hook(lambda _, __, features: features.double())
    parts = model.policy.mlp_extractor
    modules = [parts.policy_net, model.policy.action_net, parts.value_net, model.policy.value_net]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    parameters += [model.policy.log_std] if policy.log_std is not None else []

    _filled(model, plain, decisions)
    advantage = decisions.advantage.T.numpy() - model.rollout_buffer.advantages
    moved(policy)
    _copied(policy, parameters)
    model.policy.optimizer = torch.optim.SGD(model.policy.parameters(), lr=1.0)
    model.lr_schedule, model.max_grad_norm = (lambda _: 1.0), inf
    before = [parameter.detach().clone() for parameter in parameters]
    model.train()
    loss, gradients, _ = ours(policy, method(plain), decisions)
    return {
        "advantage": float(np.abs(advantage).max()),
        "loss": abs(loss - model.logger.name_to_value["train/loss"]),
        "gradient": _apart(gradients, [old - new.detach() for old, new in zip(before, parameters, strict=True)]),
    }


def _filled(model: Any, work: Work, decisions: Decisions) -> None:
    """The recorded rollout in the peer's buffer, as its `collect_rollouts` would leave it."""
    buffer = model.rollout_buffer
    buffer.reset()

    def first(column: Tensor) -> Any:
        return column.transpose(0, 1).contiguous().numpy()

    following, value = first(decisions.next_value), first(decisions.value)
    terminated, truncated = first(decisions.terminated), first(decisions.truncated)
    ended = terminated | truncated
    # It adds the value of a truncated episode's final observation to the reward.
    buffer.rewards = first(decisions.reward) + work.discount * following * (truncated & ~terminated)
    buffer.observations = first(decisions.context["observation"])
    buffer.actions[:] = first(decisions.action).reshape(buffer.actions.shape)
    buffer.episode_starts = np.concatenate([np.ones_like(value[:1]), ended[:-1]])
    buffer.values, buffer.log_probs = value, first(decisions.old_log_prob)
    buffer.advantages = np.zeros_like(value)
    buffer.compute_returns_and_advantage(torch.from_numpy(following[-1]), ended[-1])
    buffer.full, buffer.pos = True, work.steps


def _copied(policy: ActorCritic, parameters: list[nn.Parameter]) -> None:
    for mine, theirs in zip(ordered(policy), parameters, strict=False):
        theirs.data = mine.data.clone()


def _apart(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of an entry, relative to the largest entry."""
    pairs = list(zip(ours, theirs, strict=True))
    return float(max((a - b).abs().max() for a, b in pairs) / max(b.abs().max() for _, b in pairs))


def gate(work: Work, with_peer: bool) -> dict[str, Found]:
    """The differences of each other arm.

    Raises:
        SystemExit: an arm computes something else.
    """
    arms = {"hand-written": hand_written, **({"stable-baselines3": stable_baselines} if with_peer else {})}
    found = {}
    for name, arm in arms.items():
        policy, _, decisions = recorded(work)
        found[name] = arm(work, policy, decisions)
        for quantity, difference in found[name].items():
            if not difference <= TOLERANCE:
                raise SystemExit(f"the gate is shut: {quantity} of {name} differs by {difference:.2g} in {work.title}.")
    return found
