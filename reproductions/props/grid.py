"""B: a tabular softmax learns the 5x5 grid (corners worth 0.5 and 1) by REINFORCE.

Exact gradients prefer the better goal; chance in small batches may lock a run onto the worse one.
"""

from __future__ import annotations

from typing import Any

import torch

import ascent
from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.core.plan import Adam
from ascent.evaluation.sampling_error import tabular_sampling_error
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.worlds.gym import Environments
from ascent.worlds.toy import MOVES

from .sampling import Buffer, play

RUNS, BATCH, BEHAVIOUR_BATCH, UPDATES = 50, 100, 20, 30
SIZE, HORIZON, GOALS = 5, 15, {(0, 0): 0, (4, 4): 1}
SETTINGS = {
    "clip": 0.3,
    "kl_coefficient": 0.0,
    "behaviour_target_kl": 0.5,
    "behaviour_passes": 8,
    "behaviour_minibatches": 1,
    "behaviour_learning_rate": 0.1,
}
# Of REINFORCE: the best of 0.05, 0.1, 0.2 for the on-policy arm in a pilot (all alike).
LEARNING_RATE = 0.1
# What collects, with which buffer, and how many times the steps of the others.
ARMS: dict[str, tuple[str, int, int]] = {
    "on-policy": ("target", 1, 1),
    "PROPS": ("props", 1, 1),
    "greedy": ("greedy", 1, 1),
    "on-policy, twice the steps": ("target", 1, 2),
    "buffer b = 2": ("target", 2, 1),
    "PROPS b = 2": ("props", 2, 1),
}


def goal_chances(target: ActorCritic) -> list[float]:
    """Chance that an episode ends in the corner worth 0.5, and in the one worth 1, exactly."""
    with torch.no_grad():
        policy = torch.softmax(target.actor(torch.eye(SIZE * SIZE)).double(), -1)
    place = torch.zeros(SIZE * SIZE, dtype=torch.float64)
    place[2 * SIZE + 2] = 1.0
    ended = [0.0, 0.0]
    for _ in range(HORIZON):
        following = torch.zeros_like(place)
        for state in range(SIZE * SIZE):
            row, column = divmod(state, SIZE)
            for action, (down, right) in enumerate(MOVES):
                mass = float(place[state] * policy[state, action])
                to = (min(max(row + down, 0), SIZE - 1), min(max(column + right, 0), SIZE - 1))
                if to in GOALS:
                    ended[GOALS[to]] += mass
                else:
                    following[to[0] * SIZE + to[1]] += mass
        place = following
    return ended


def grid(name: str, seed: int) -> dict[str, Any]:
    """One run: the chances of the worse and of the better end, and the sampling error before each update."""
    kind, batches, times = ARMS[name]
    environments = Environments("ascent/GridWorld5-v0")
    target = ActorCritic(
        environments.observation_size, Head.of(environments.actions), hidden=(), critic=False, gain=0.0
    )
    step = Adam(LEARNING_RATE, max_gradient_norm=None)
    learner = ascent.method("reinforce", discount=0.99, reduction="token-mean").replace(step=step)
    behaviour: Method | str = kind
    if kind == "props":
        behaviour = ascent.method("props", **SETTINGS).companions["behaviour"]
    errors: list[float] = []

    def look(buffer: Decisions, turn: int) -> None:
        errors.append(tabular_sampling_error(target, buffer))

    buffer = Buffer(BATCH * times, BEHAVIOUR_BATCH * times, batches, fresh=batches == 1)
    play(environments, target, buffer, UPDATES, seed, behaviour=behaviour, learner=learner, look=look)
    return {"ends": goal_chances(target), "errors": errors}
