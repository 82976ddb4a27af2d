"""SAC written by hand in one place: the least that the same mathematics costs in PyTorch.

Same networks, same targets, same order of steps as `ascent train --method sac`: critics as one batched product, the
policy through critics with constant weights, the temperature by the log-prob that the policy's update saw. One
environment, numpy acting, no logging, no checkpoints.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

Batch = dict[str, Tensor]


class ScratchSAC:
    """One process, one environment, actions in a finite box.

    Args:
        environment: Gymnasium id.
        hidden: widths of two hidden layers.
        batch, capacity, start: of the replay memory; `start` uniform actions come first.
        seed: of everything.
    """

    def __init__(
        self,
        environment: str,
        hidden: tuple[int, int] = (256, 256),
        batch: int = 256,
        capacity: int = 100_000,
        start: int = 1000,
        seed: int = 0,
        discount: float = 0.99,
        rate: float = 0.005,
        learning_rate: float = 3e-4,
    ) -> None:
        torch.manual_seed(seed)
        self.world = gymnasium.make(environment)
        space, box = self.world.observation_space, self.world.action_space
        assert isinstance(box, gymnasium.spaces.Box) and space.shape is not None
        observations, self.size = space.shape[0], box.shape[0]
        self.low, self.half = box.low, (box.high - box.low) / 2
        self.batch, self.capacity, self.start = batch, capacity, start
        self.discount, self.rate = discount, rate
        self.actor = self.layers((observations, *hidden, 2 * self.size), 1)
        self.critics = self.layers((observations + self.size, *hidden, 1), 2)
        self.targets = [parameter.detach().clone() for parameter in self.critics]
        self.log_temperature = nn.Parameter(torch.zeros(()))
        groups = (self.actor, self.critics, [self.log_temperature])
        self.optimisers = [torch.optim.Adam(group, lr=learning_rate, fused=True) for group in groups]
        self.ring = {
            "observation": torch.zeros(capacity, observations),
            "next_observation": torch.zeros(capacity, observations),
            "action": torch.zeros(capacity, self.size),
            "reward": torch.zeros(capacity),
            "terminated": torch.zeros(capacity),
        }
        self.written = 0
        self.rng = np.random.default_rng(seed)
        self.seen = self.world.reset(seed=seed)[0]

    @staticmethod
    def layers(sizes: tuple[int, ...], count: int) -> list[nn.Parameter]:
        """Weights and biases in turn: [outputs, inputs] of one network, [count, inputs, outputs] of several."""
        found = []
        for inputs, outputs in pairwise(sizes):
            bound = 1 / math.sqrt(inputs)
            shapes = ((outputs, inputs), (outputs,)) if count == 1 else ((count, inputs, outputs), (count, 1, outputs))
            found += [nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for shape in shapes]
        return found

    def draw(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [B, A] and their log-probs [B]."""
        first, second, last = zip(self.actor[::2], self.actor[1::2], strict=True)
        hidden = linear(linear(observation, *first).relu_(), *second).relu_()
        mean, log_std = linear(hidden, *last).chunk(2, -1)
        log_std = log_std.clamp(-20.0, 2.0)
        before = mean + log_std.exp() * noise
        slope = 2.0 * (before + softplus(-2.0 * before) - math.log(2.0))
        log_prob = (slope - log_std - 0.5 * noise.square() - 0.5 * math.log(2.0 * math.pi)).sum(-1)
        return before.tanh(), log_prob

    @staticmethod
    def values(weights: list[Any], observation: Tensor, action: Tensor) -> Tensor:
        """Both critics [2, B]."""
        x = torch.cat((observation, action), -1)
        x = x.expand(2, *x.shape)
        for place in range(0, len(weights), 2):
            x = torch.bmm(x, weights[place]).add_(weights[place + 1])
            x = x.relu_() if place < len(weights) - 2 else x
        return x.squeeze(-1)

    def critic_loss(self, batch: Batch) -> Tensor:
        """Half squared errors, added over both critics."""
        with torch.no_grad():
            action, log_prob = self.draw(batch["next_observation"], batch["next_noise"])
            following = self.values(self.targets, batch["next_observation"], action).amin(0)
            following -= self.log_temperature.exp() * log_prob
            target = batch["reward"] + self.discount * (1.0 - batch["terminated"]) * following
        value = self.values(self.critics, batch["observation"], batch["action"])
        return 0.5 * (value - target).square().mean(1).sum()

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the policy minimises, and the log-probs [B] of its fresh actions."""
        action, log_prob = self.draw(batch["observation"], batch["noise"])
        constant = [parameter.detach() for parameter in self.critics]
        value = self.values(constant, batch["observation"], action).amin(0)
        return (self.log_temperature.detach().exp() * log_prob - value).mean(), log_prob.detach()

    def temperature_loss(self, log_prob: Tensor) -> Tensor:
        """By log alpha, the entropy to keep is minus the numbers of an action."""
        return -(self.log_temperature * (log_prob - self.size)).mean()

    def sampled(self) -> Batch:
        """A uniform batch with its noise."""
        places = torch.randint(0, min(self.written, self.capacity), (self.batch,))
        batch = {name: column[places] for name, column in self.ring.items()}
        shape = (self.batch, self.size)
        return {**batch, "noise": torch.randn(shape), "next_noise": torch.randn(shape)}

    def learn(self) -> None:
        """One update of critics, policy, temperature and targets."""
        batch = self.sampled()
        actor, critics, temperature = self.optimisers
        self.improve(critics, self.critic_loss(batch))
        loss, log_prob = self.actor_loss(batch)
        self.improve(actor, loss)
        self.improve(temperature, self.temperature_loss(log_prob))
        with torch.no_grad():
            torch._foreach_lerp_(self.targets, self.critics, self.rate)

    @staticmethod
    def improve(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    def act(self) -> np.ndarray[Any, Any]:
        """An action in [-1, 1] for what is seen now."""
        if self.written < self.start:
            return self.rng.uniform(-1.0, 1.0, self.size).astype(np.float32)
        weights = [parameter.detach().numpy() for parameter in self.actor]
        x = self.seen
        for place in range(0, len(weights), 2):
            x = weights[place] @ x + weights[place + 1]
            x = np.maximum(x, 0.0) if place < len(weights) - 2 else x
        mean, log_std = x[: self.size], np.clip(x[self.size :], -20.0, 2.0)
        return np.tanh(mean + np.exp(log_std) * self.rng.standard_normal(self.size, np.float32))

    def step(self) -> None:
        """One step of the environment, one update."""
        action = self.act()
        successor, reward, terminated, truncated, _ = self.world.step(self.low + (action + 1.0) * self.half)
        place = self.written % self.capacity
        row = (self.seen, successor, action, float(reward), float(terminated))
        for column, entry in zip(self.ring.values(), row, strict=True):
            column[place] = torch.as_tensor(entry)
        self.written += 1
        self.seen = self.world.reset()[0] if terminated or truncated else successor
        if self.written > self.start:
            self.learn()

    def twin(self) -> ScratchSAC:
        """A copy in double precision, for the gate."""
        other = copy.copy(self)
        other.actor = [nn.Parameter(parameter.detach().double()) for parameter in self.actor]
        other.critics = [nn.Parameter(parameter.detach().double()) for parameter in self.critics]
        other.targets = [parameter.double() for parameter in self.targets]
        other.log_temperature = nn.Parameter(self.log_temperature.detach().double())
        return other
