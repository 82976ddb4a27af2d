"""Training seconds until CartPole is solved: this library beside Stable-Baselines3, the same tuned settings.

    OMP_NUM_THREADS=1 python benchmarks/time_to_reward.py --seeds 15

Settings of rl-baselines3-zoo: 8 environments, 32 steps, minibatches of 256, 20 epochs, discount 0.98, trace 0.8,
learning rate and clip range falling linearly from 1e-3 and 0.2 over 100,000 steps, no entropy bonus. Every 2,560 steps
both play 20 held-out episodes with deterministic actions, off the clock; a run ends at a mean return of 475. The
arms take turns seed by seed, so that both see the same machine. CPU seconds are those of the process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from report import machine, write

import ascent
from ascent.evaluation.returns import evaluate_returns
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.gym import Environments

ENV, SOLVED, BUDGET, EPISODES = "CartPole-v1", 475.0, 100_000, 20
COUNT, STEPS, EVERY = 8, 32, 10


class Solved(Exception):
    """The run has reached the return."""


@dataclass
class Clock:
    """Training time; stopped while something else happens."""

    wall: float = 0.0
    cpu: float = 0.0
    since: tuple[float, float] = (0.0, 0.0)

    def start(self) -> None:
        self.since = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall += time.perf_counter() - self.since[0]
        self.cpu += time.process_time() - self.since[1]


def ours(seed: int, clock: Clock) -> int | None:
    """Steps until solved, or None."""
    worlds = Environments(ENV, COUNT)
    policy = ActorCritic(worlds.observation_size, Head.of(worlds.actions), seed=seed)
    method = ascent.method(
        "ppo",
        discount=0.98,
        trace=0.8,
        passes=20,
        minibatches=1,
        learning_rate=1e-3,
        anneal="both",
        value_coefficient=1.0,  # of half the squared error, which the peer takes whole and halves by its coefficient
    )
    memory = Fresh()
    sampler = VectorSampler(policy, worlds, STEPS, seed)
    stages = [Collect("collect", sampler, memory), Learn("policy", policy, method, memory, seed=seed)]

    class Watch:
        def updated(self, loop: Loop) -> None:
            pass

        def evaluated(self, loop: Loop, scores: Any) -> None:
            pass

        def stepped(self, loop: Loop, metrics: Any) -> None:
            if loop.step % EVERY == 0:
                clock.stop()
                if evaluate_returns(policy, ENV, EPISODES, environments=8).mean >= SOLVED:
                    raise Solved
                clock.start()

    system = System({"policy": policy}, {"fresh": memory}, (Phase("train", stages, BUDGET // (COUNT * STEPS)),))
    clock.start()
    try:
        Loop(system, [Watch()]).run()
    except Solved:
        return int(sampler.consumed)
    clock.stop()
    return None


def peer(seed: int, clock: Clock) -> int | None:
    """The same with Stable-Baselines3."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    class Watch(BaseCallback):
        rollouts, solved = 0, False

        def _on_step(self) -> bool:
            return not self.solved

        def _on_rollout_start(self) -> None:
            # A rollout starts after the update before it, so these are whole iterations.
            if self.rollouts and self.rollouts % EVERY == 0:
                clock.stop()
                score, _ = evaluate_policy(self.model, held_out, EPISODES, deterministic=True)
                self.solved = float(score) >= SOLVED
                if not self.solved:
                    clock.start()
            self.rollouts += 1

    held_out = make_vec_env(ENV, 8, seed=seed + 1000)
    model = PPO(
        "MlpPolicy",
        make_vec_env(ENV, COUNT, seed=seed),
        n_steps=STEPS,
        batch_size=COUNT * STEPS,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        ent_coef=0.0,
        learning_rate=lambda left: 1e-3 * left,
        clip_range=lambda left: 0.2 * left,
        seed=seed,
        device="cpu",
    )
    watch = Watch()
    clock.start()
    model.learn(BUDGET, callback=watch)
    if not watch.solved:
        clock.stop()
        return None
    return EVERY * COUNT * STEPS * ((watch.rollouts - 1) // EVERY)


ARMS: dict[str, Callable[[int, Clock], int | None]] = {"ascent": ours, "stable-baselines3": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=15)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        for name, arm in ARMS.items():
            clock = Clock()
            steps = arm(seed, clock)
            solved = steps is not None
            spent = {"wall seconds": clock.wall if solved else inf, "CPU seconds": clock.cpu if solved else inf}
            runs[name].append({"seed": seed, "steps": steps, **spent})
            print(f"{name} seed {seed}: {steps} steps, {clock.wall:.2f} s wall, {clock.cpu:.2f} s CPU", flush=True)
    rows = []
    for name, found in runs.items():
        middle = {
            f"median {key}": statistics.median(inf if run[key] is None else run[key] for run in found)
            for key in ("steps", "wall seconds", "CPU seconds")
        }
        rows.append({"arm": name, "solved": f"{sum(run['steps'] is not None for run in found)}/{seeds}", **middle})
    packages = ("torch", "gymnasium", "stable-baselines3")
    notes = "Each run, in order of seeds (steps, CPU seconds):\n\n" + "\n".join(
        f"- {name}: " + ", ".join(f"{run['steps']} ({run['CPU seconds']:.1f})" for run in found)
        for name, found in runs.items()
    )
    write("time_to_reward", f"Training until a mean return of {SOLVED:.0f} on {ENV}", rows, machine(*packages), notes)


if __name__ == "__main__":
    main()
