"""PPO written by hand in one place: the least that the same mathematics costs in PyTorch.

Same network, same reductions, same truncation bootstrap, same optimiser as `ascent train --method ppo`. It acts in
numpy, computes log-probs and values once per rollout, and shuffles into contiguous minibatches.

With the work "cartpole" of `control_work.py` its constants are those that CleanRL publishes in ppo.py: 4 environments,
128 steps, 4 epochs of 4 minibatches, discount 0.99, trace 0.95, clip 0.2 of ratio and value, entropy 0.01, value
0.5, normalised advantages, gradient norm 0.5, Adam 2.5e-4 (eps 1e-5) falling linearly. With "halfcheetah_1" they are
those of ppo_continuous_action.py (2048 steps, 10 epochs of 32 minibatches, 3e-4, no entropy bonus) save what its
work says. No line is CleanRL's; unlike there, truncated episodes bootstrap and no step is lost at a reset.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from control_work import Work
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from ascent.core.densities import HALF_LOG_TAU


def network(observations: int, outputs: int, gain: float, draw: torch.Generator) -> nn.Sequential:
    """64-64 tanh, orthogonal."""
    sizes, gains = (observations, 64, 64, outputs), (2**0.5, 2**0.5, gain)
    layers: list[nn.Module] = []
    for inputs, width, each in zip(sizes[:-1], sizes[1:], gains, strict=True):
        layer = nn.Linear(inputs, width)
        nn.init.orthogonal_(layer.weight, each, generator=draw)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class ScratchPPO:
    """One process, discrete or real actions, no logging.

    Args:
        work: environment, sizes and constants.
        seed: of the weights, the environments, the noise and the shuffles.
        rounds: over which the learning rate falls, where it does.
    """

    def __init__(self, work: Work, seed: int, rounds: int) -> None:
        makers = [lambda: gymnasium.make(work.env, disable_env_checker=True)] * work.environments
        self.vector = SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        self.work, self.rounds, self.done, self.clip = work, rounds, 0, work.clip
        space = self.vector.single_action_space
        self.discrete = isinstance(space, gymnasium.spaces.Discrete)
        size = self.vector.single_observation_space.shape[0]
        outputs = int(space.n) if self.discrete else space.shape[0]
        self.low, self.high = (None, None) if self.discrete else (space.low, space.high)
        self.draw = torch.Generator().manual_seed(seed)
        self.actor, self.critic = network(size, outputs, 0.01, self.draw), network(size, 1, 1.0, self.draw)
        self.log_std = nn.Parameter(torch.zeros(0 if self.discrete else outputs))
        self.parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.parameters += [] if self.discrete else [self.log_std]
        self.optimiser = torch.optim.Adam(self.parameters, lr=work.learning_rate, eps=1e-5, fused=True)
        self.rng = np.random.default_rng(seed)
        self.observation = self.vector.reset(seed=seed)[0].astype(np.float32)

    def log_prob(self, outputs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies [M]."""
        if self.discrete:
            log_probs = outputs.log_softmax(-1)
            chosen = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
            return chosen, -(log_probs.exp() * log_probs).sum(-1)
        width, total = outputs.shape[-1], self.log_std.sum()
        distance = (action - outputs) * (-self.log_std).exp()
        chosen = -0.5 * distance.square().sum(-1) - total - HALF_LOG_TAU * width
        return chosen, (total + (0.5 + HALF_LOG_TAU) * width).expand(len(action))

    def collect(self) -> dict[str, Tensor]:
        """A rollout as flat columns [T * E] with advantages."""
        actor = [(layer.weight.detach().numpy().T, layer.bias.detach().numpy()) for layer in list(self.actor)[::2]]
        deviation = np.exp(self.log_std.detach().numpy())
        shape = (self.work.steps, self.work.environments)
        width = self.actor[-1].out_features
        observations = np.empty((*shape, self.observation.shape[1]), np.float32)
        successors = np.empty_like(observations)
        actions = np.empty(shape, np.int64) if self.discrete else np.empty((*shape, width), np.float32)
        rewards = np.empty(shape, np.float32)
        terminated, truncated = np.empty(shape, bool), np.empty(shape, bool)
        noise = self.rng.gumbel(size=(*shape, width)) if self.discrete else self.rng.standard_normal((*shape, width))
        noise = noise.astype(np.float32)
        observation = self.observation
        for t in range(self.work.steps):
            x = observation
            for weight, bias in actor[:-1]:
                x = np.tanh(x @ weight + bias)
            x = x @ actor[-1][0] + actor[-1][1]
            action = (x + noise[t]).argmax(1) if self.discrete else x + deviation * noise[t]
            observations[t], actions[t] = observation, action
            # Plain integers pass the environments' own checks several times faster than numpy's.
            sent = action.tolist() if self.discrete else np.clip(action, self.low, self.high)
            observation, rewards[t], terminated[t], truncated[t], _ = self.vector.step(sent)
            successors[t] = observation
            ended = terminated[t] | truncated[t]
            if ended.any():
                observation = self.vector.reset(options={"reset_mask": ended})[0]
            observation = observation.astype(np.float32)
        self.observation = observation
        return self.credited(observations, successors, actions, rewards, terminated, truncated)

    @torch.no_grad()
    def credited(
        self, observations: Any, successors: Any, actions: Any, rewards: Any, terminated: Any, truncated: Any
    ) -> dict[str, Tensor]:
        """Old log-probs, values, GAE and returns, flat."""
        flat = torch.from_numpy(observations).flatten(0, 1)
        action = torch.from_numpy(actions).flatten(0, 1)
        edge = truncated & ~terminated
        edge[-1] |= ~terminated[-1]
        values = self.critic(torch.cat([flat, torch.from_numpy(successors[edge])])).squeeze(-1).numpy()
        value = values[: rewards.size].reshape(rewards.shape)
        following = np.zeros_like(value)
        following[:-1] = value[1:]
        following[edge] = values[rewards.size :]
        following[terminated] = 0.0
        delta = rewards + self.work.discount * following - value
        alive = self.work.discount * self.work.trace * ~(terminated | truncated)
        advantage = np.empty_like(value)
        running = np.zeros_like(value[0])
        for t in range(len(rewards) - 1, -1, -1):
            running = advantage[t] = delta[t] + alive[t] * running
        log_prob, _ = self.log_prob(self.actor(flat), action)
        columns = {"advantage": advantage, "value": value, "target": advantage + value}
        return {
            "observation": flat,
            "action": action,
            "log_prob": log_prob,
            **{name: torch.from_numpy(column).flatten() for name, column in columns.items()},
        }

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The PPO loss of one minibatch."""
        log_prob, entropy = self.log_prob(self.actor(batch["observation"]), batch["action"])
        value = self.critic(batch["observation"]).squeeze(-1)
        advantage = batch["advantage"]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = (log_prob - batch["log_prob"]).exp()
        low, high = 1 - self.clip, 1 + self.clip
        surrogate = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(low, high)).mean()
        cost, range_ = (value - batch["target"]).square(), self.work.value_clip
        if range_ is not None:
            moved = batch["value"] + (value - batch["value"]).clamp(-range_, range_)
            cost = torch.maximum(cost, (moved - batch["target"]).square())
        loss = surrogate + self.work.value * 0.5 * cost.mean()
        return loss - self.work.entropy * entropy.mean() if self.work.entropy else loss

    def learn(self, batch: dict[str, Tensor]) -> None:
        """All passes over one rollout."""
        count = len(batch["advantage"])
        left = 1 - self.done / self.rounds
        if self.work.anneal != "none":
            self.optimiser.param_groups[0]["lr"] = self.work.learning_rate * left
        self.clip = self.work.clip * (left if self.work.anneal == "both" else 1.0)
        for _ in range(self.work.passes):
            order = torch.randperm(count, generator=self.draw)
            for places in order.tensor_split(self.work.minibatches):
                loss = self.loss({name: column[places] for name, column in batch.items()})
                loss.backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5, foreach=True)
                self.optimiser.step()
                self.optimiser.zero_grad(set_to_none=True)
        self.done += 1

    def round(self) -> None:
        """Collect and learn once."""
        self.learn(self.collect())
