"""The sides of the control benchmark: each does so many rollouts, with their updates, per call.

| arm | what |
|---|---|
| ascent | the assembly that `ascent train --method ppo` builds, walked by the library's loop |
| stable-baselines3 | its PPO and DummyVecEnv as published, with the same constants |
| stable-baselines3, fused Adam | the same with the optimiser that the other two arms use |
| hand-written | `scratch_ppo.py`: the least that the same mathematics costs in PyTorch |
| environment | Gymnasium's vector environment with random actions: the floor |

All step copies one after the other in this process (Gymnasium's SyncVectorEnv; Stable-Baselines3 has its own of the
same kind), without the environments' checkers, and keep returns of finished episodes, save the last two arms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from control_work import Work
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scratch_ppo import ScratchPPO

import ascent
from ascent.core.method import Method
from ascent.systems.assembly import Assembly
from ascent.systems.config import ControlConfig
from ascent.systems.control import build
from ascent.training.loop import Loop
from ascent.training.processes import Processes

Arm = Callable[[int], object]
"""Does so many rounds: rollouts with their updates."""


def method(work: Work) -> Method:
    """The library's PPO with the constants that all arms share."""
    return ascent.method(
        "ppo",
        clip_low=work.clip,
        clip_high=work.clip,
        discount=work.discount,
        trace=work.trace,
        value_coefficient=work.value,
        value_clip=work.value_clip,
        entropy_coefficient=work.entropy,
        passes=work.passes,
        minibatches=work.minibatches,
        learning_rate=work.learning_rate,
        anneal=work.anneal,
    )


def assembly(work: Work, seed: int, rounds: int) -> Assembly:
    """What `ascent train --method ppo` would run for `rounds` steps."""
    config = ControlConfig(
        method="ppo",
        env=work.env,
        environments=work.environments,
        horizon=work.steps,
        steps=rounds,
        seed=seed,
        normalise_observation=False,
        normalise_reward=False,
    )
    return build(config, method(work), Processes())


def ours(work: Work, seed: int, rounds: int) -> Arm:
    """The library's loop, without a recorder on either side."""
    system = assembly(work, seed, rounds).system
    loop, phase = Loop(system), system.program[0]

    def go(more: int) -> None:
        phase.until = phase.round + more
        phase.run(loop)

    return go


def hand_written(work: Work, seed: int, rounds: int) -> Arm:
    """The hand-written loop."""
    loop = ScratchPPO(work, seed, rounds)

    def go(more: int) -> None:
        for _ in range(more):
            loop.round()

    return go


def peer_model(work: Work, seed: int, rounds: int, **more: Any) -> Any:
    """Stable-Baselines3's PPO with the constants of `work`, and `more` of its arguments."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    made: list[Any] = []  # `learn` is called piece by piece, so its own progress is not that of the run

    def left() -> float:
        return 1 - made[0].num_timesteps / (rounds * work.size) if made else 1.0

    model = PPO(
        "MlpPolicy",
        make_vec_env(work.env, work.environments, seed=seed, env_kwargs={"disable_env_checker": True}),
        n_steps=work.steps,
        batch_size=work.size // work.minibatches,
        n_epochs=work.passes,
        gamma=work.discount,
        gae_lambda=work.trace,
        clip_range=(lambda _: work.clip * left()) if work.anneal == "both" else work.clip,
        clip_range_vf=work.value_clip,
        ent_coef=work.entropy,
        vf_coef=work.value / 2,  # its squared error is whole
        max_grad_norm=0.5,
        learning_rate=work.learning_rate if work.anneal == "none" else lambda _: work.learning_rate * left(),
        seed=seed,
        device="cpu",
        **more,
    )
    made.append(model)
    return model


def peer(work: Work, seed: int, rounds: int, fused: bool = False) -> Arm:
    """Stable-Baselines3, one `learn` per call."""
    more = {"policy_kwargs": {"optimizer_kwargs": {"fused": True, "eps": 1e-5}}} if fused else {}
    model = peer_model(work, seed, rounds, **more)
    return lambda rounds_: model.learn(rounds_ * work.size, reset_num_timesteps=False)


def raw(work: Work, seed: int, rounds: int) -> Arm:
    """The vector environment with random actions."""
    makers = [lambda: gymnasium.make(work.env, disable_env_checker=True)] * work.environments
    vector = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)
    vector.reset(seed=seed)
    vector.action_space.seed(seed)
    drawn = [vector.action_space.sample() for _ in range(work.steps)]
    # Plain integers pass the environments' own checks several times faster than numpy's.
    actions: list[Any] = [a.tolist() for a in drawn] if isinstance(drawn[0][0], np.integer) else drawn

    def go(more: int) -> None:
        for action in actions * more:
            _, _, terminated, truncated, _ = vector.step(action)
            ended = terminated | truncated
            if ended.any():
                vector.reset(options={"reset_mask": ended})

    return go


PEER, FUSED, FLOOR, HAND, OURS = (
    "stable-baselines3",
    "stable-baselines3, fused Adam",
    "environment",
    "hand-written",
    "ascent",
)
ARMS: Mapping[str, Callable[[Work, int, int], Arm]] = {
    OURS: ours,
    PEER: peer,
    HAND: hand_written,
    FLOOR: raw,
    FUSED: partial(peer, fused=True),
}
USUAL = (OURS, PEER, HAND, FLOOR)
