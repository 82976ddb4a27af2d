"""Steps per second of PPO: this library, Stable-Baselines3, a hand-written loop, and the environment alone.

    OMP_NUM_THREADS=1 python benchmarks/control.py                  # CartPole, 4 environments
    OMP_NUM_THREADS=1 python benchmarks/control.py --env HalfCheetah-v5
    OMP_NUM_THREADS=1 python benchmarks/control.py --profile        # where the library's time goes

Same environments, network (64-64 tanh, separate), number of updates and optimiser for all. Arms are run in turn, A B
A B, after two warm-up rollouts each; wall and process CPU time, median and range over the repeats. Peers that are
not installed are left out. First, the gradient of one update is compared with the hand-written loop's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from report import machine, write
from scratch_ppo import ScratchPPO

import ascent
from ascent.core.decisions import Decisions
from ascent.core.method import Method
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import ActorCritic
from ascent.sampling.vector import VectorSampler
from ascent.training.learn import Learn
from ascent.training.loop import Loop, System
from ascent.training.memory import Fresh
from ascent.training.program import Collect, Phase
from ascent.worlds.gym import Environments

# env: (environments, steps, passes, minibatches)
SETTINGS = {"CartPole-v1": (4, 128, 4, 4), "HalfCheetah-v5": (1, 2048, 10, 32), "Hopper-v5": (1, 2048, 10, 32)}
Round = Callable[[], None]


def method(passes: int, minibatches: int) -> Method:
    """The library's PPO with the constants that all arms share."""
    return ascent.method("ppo", passes=passes, minibatches=minibatches, entropy_coefficient=0.01)


def ours(env: str, seed: int) -> Round:
    """One round of the library's loop."""
    count, steps, passes, minibatches = SETTINGS[env]
    worlds = Environments(env, count)
    policy = ActorCritic(worlds.observation_size, Head.of(worlds.actions), seed=seed)
    memory = Fresh()
    stages = [
        Collect("collect", VectorSampler(policy, worlds, steps, seed), memory),
        Learn("policy", policy, method(passes, minibatches), memory, seed=seed),
    ]
    phase = Phase("train", stages, 0)
    loop = Loop(System({"policy": policy}, {"fresh": memory}, [phase]))

    def round_() -> None:
        phase.until += 1
        phase.run(loop)

    return round_


def scratch(env: str, seed: int) -> Round:
    """One round of the hand-written loop."""
    count, steps, passes, minibatches = SETTINGS[env]
    return ScratchPPO(env, count, steps, passes, minibatches, seed).round


def peer(env: str, seed: int) -> Round:
    """One rollout and its updates of Stable-Baselines3."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    count, steps, passes, minibatches = SETTINGS[env]
    batch = count * steps // minibatches
    vector = make_vec_env(env, count, seed=seed)
    model = PPO(
        "MlpPolicy", vector, n_steps=steps, batch_size=batch, n_epochs=passes, ent_coef=0.01, seed=seed, device="cpu"
    )

    def round_() -> None:
        model.learn(count * steps, reset_num_timesteps=False)

    return round_


def raw(env: str, seed: int) -> Round:
    """The vector environment with random actions."""
    count, steps, _, _ = SETTINGS[env]
    worlds = Environments(env, count)
    worlds.reset([seed + place for place in range(count)], np.ones(count, bool))
    worlds.vector.action_space.seed(seed)
    actions = [worlds.vector.action_space.sample() for _ in range(steps)]

    def round_() -> None:
        for action in actions:
            _, _, terminated, truncated = worlds.step(action)
            ended = terminated | truncated
            if ended.any():
                worlds.reset([None] * count, ended)

    return round_


def gradient_difference(env: str = "CartPole-v1") -> float:
    """Largest difference of one update's gradient from the hand-written loop's, relative to the largest gradient."""
    count, steps, _, _ = SETTINGS[env]
    worlds = Environments(env, count)
    policy = ActorCritic(worlds.observation_size, Head.of(worlds.actions), gain=1.0).double()
    by_hand = ScratchPPO(env, count, steps, 1, 1, seed=0)
    for mine, theirs in zip(
        _linears(policy.actor) + _linears(policy.critic),
        _linears(by_hand.actor) + _linears(by_hand.critic),
        strict=True,
    ):
        theirs.weight.data, theirs.bias.data = mine.weight.data.clone(), mine.bias.data.clone()
    by_hand.log_std.data = by_hand.log_std.data.double()
    decisions = _double(VectorSampler(policy.float(), worlds, steps).act())
    policy.double()
    ppo = method(1, 1)
    decisions = ppo.credit(policy.annotate(decisions, ppo.needs & {"old_log_prob", "value", "next_value"}))
    columns = [
        decisions.context["observation"],
        decisions.context["next_observation"],
        decisions.action,
        decisions.reward,
    ]
    columns += [decisions.terminated, decisions.truncated]
    batch = by_hand.credited(*(column.transpose(0, 1).contiguous().numpy() for column in columns))
    with torch.no_grad():  # Move both, so that ratios leave 1 and some are clipped.
        for parameter in policy.parameters():
            parameter += 0.05 * torch.sin(torch.arange(parameter.numel(), dtype=torch.float64)).view_as(parameter)
        for parameter, other in zip(by_hand.parameters, policy.parameters(), strict=False):
            parameter.data = other.data.clone()
    flat = decisions.flatten()
    loss, _ = ppo.loss(policy.evaluate(flat, ppo.evaluates), flat)
    loss.backward()
    by_hand.loss(batch).backward()
    mine = torch.cat([parameter.grad.flatten() for parameter in policy.parameters() if parameter.grad is not None])
    theirs = torch.cat([parameter.grad.flatten() for parameter in by_hand.parameters])
    return float((mine - theirs).abs().max() / theirs.abs().max())


def _linears(module: torch.nn.Module) -> list[torch.nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]


def _double(decisions: Decisions) -> Decisions:
    flat = {name: x.double() if x.is_floating_point() else x for name, x in decisions.to_tensors().items()}
    return Decisions.from_tensors(flat)


def measure(env: str, names: list[str], steps: int, repeats: int, busy: float) -> list[dict[str, Any]]:
    """One row per arm: steps per second by wall and CPU time, and its time relative to the hand-written loop."""
    arms = {"ascent": ours, "scratch": scratch, "stable-baselines3": peer, "environment": raw}
    count, length, _, _ = SETTINGS[env]
    rounds: dict[str, Round] = {}
    for name in names:
        try:
            rounds[name] = arms[name](env, 0)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        rounds[name]()
        rounds[name]()
    walls: dict[str, list[float]] = {name: [] for name in rounds}
    cpus: dict[str, list[float]] = {name: [] for name in rounds}
    number = max(1, steps // (count * length))
    for _ in range(repeats):
        if os.getloadavg()[0] > busy:
            raise SystemExit(
                f"load average {os.getloadavg()[0]:.2f} > {busy}: other work disturbs the timing (see --busy)."
            )
        for name, round_ in rounds.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(number):
                round_()
            walls[name].append(number * count * length / (time.perf_counter() - wall))
            cpus[name].append(number * count * length / (time.process_time() - cpu))
    table = []
    for name in rounds:
        ratios = (
            [base / own for base, own in zip(cpus["scratch"], cpus[name], strict=True)] if "scratch" in cpus else []
        )
        table.append(
            {
                "arm": name,
                "steps/s (wall)": round(statistics.median(walls[name])),
                "wall range": f"{min(walls[name]):.0f} to {max(walls[name]):.0f}",
                "steps per CPU second": round(statistics.median(cpus[name])),
                "CPU range": f"{min(cpus[name]):.0f} to {max(cpus[name]):.0f}",
                "time / hand-written": round(statistics.median(ratios), 3) if ratios else "",
            }
        )
    return table


def profile(env: str, rounds: int) -> None:
    """Print the library's functions by their own time."""
    import cProfile
    import pstats

    round_ = ours(env, 0)
    round_()
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(rounds):
        round_()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", choices=sorted(SETTINGS))
    parser.add_argument("--arms", nargs="+", default=["ascent", "scratch", "stable-baselines3", "environment"])
    parser.add_argument("--steps", type=int, default=25_000, help="environment steps of an arm per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", type=float, default=1.5, help="refuse to time above this load average")
    parser.add_argument("--profile", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.profile:
        profile(chosen.env, 20)
        return
    difference = gradient_difference()
    print(f"largest relative gradient difference from the hand-written loop: {difference:.2g}")
    if difference > 1e-6:
        raise SystemExit("the gradients differ, so the arms do not do the same work.")
    table = measure(chosen.env, chosen.arms, chosen.steps, chosen.repeats, chosen.busy)
    count, length, passes, minibatches = SETTINGS[chosen.env]
    notes = (
        f"{count} environments x {length} steps, {passes} passes x {minibatches} minibatches, actor and critic "
        f"64-64 tanh. Median of {chosen.repeats} interleaved repeats of {chosen.steps} steps; gradient of one update "
        f"equal to the hand-written loop's to {difference:.1g}. Load average {os.getloadavg()[0]:.2f}."
    )
    name = f"control_{chosen.env.split('-')[0].lower()}"
    write(name, f"PPO on {chosen.env}", table, machine("torch", "gymnasium", "numpy", "stable-baselines3"), notes)


if __name__ == "__main__":
    main()
