"""Actors with real actions in [-1, 1] whose gradient comes through their action: squashed Gaussian or deterministic.

Dimensions: O observation numbers, A action numbers. A head's noise is [..., 2, A]: standard draws, and the uniform
actions that replace the actor's own in its first decisions (NaN after them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.densities import SquashedGaussian
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator, uniform
from ascent.policies.actor_critic import MLP, Activation, Actor
from ascent.policies.critics import Critics
from ascent.policies.policy import Probe

LOWEST, HIGHEST = -20.0, 2.0  # of the log standard deviation, as in Haarnoja's code


def standard_normal(keys: Tensor, index: Tensor, dimensions: int) -> Tensor:
    """Float32 draws [..., A] named by int64 `keys` and `index`, shapes broadcast to [...]."""
    draws = uniform(keys[..., None], index[..., None], torch.arange(dimensions))
    return torch.special.ndtri(draws.clamp_(min=2.0**-54)).float()


@dataclass(frozen=True)
class ContinuousHead:
    """How an actor's outputs become an action in [-1, 1], in numpy, with every draw named.

    Attributes:
        dimensions: A.
        soft: outputs [2 A] are mean and log standard deviation before tanh; otherwise [A], of an action.
        exploration: deviation of the noise added to a deterministic action, >= 0.
        pull: theta in (0, 1] of the Ornstein-Uhlenbeck process that this noise is; 1 makes its draws independent.
        start: first decisions of each copy that are uniform.
        squash: a deterministic action passes through tanh; otherwise it is clipped.
    """

    dimensions: int
    soft: bool
    exploration: float = 0.0
    pull: float = 1.0
    start: int = 0
    squash: bool = True

    @property
    def outputs(self) -> int:
        """Numbers that the network gives."""
        return 2 * self.dimensions if self.soft else self.dimensions

    def noise(self, keys: Tensor, index: Tensor) -> NDArray[np.float32]:
        """Noise [..., 2, A] for the draws named by `keys` and `index` (int64, of one shape [...])."""
        size = self.dimensions
        if self.pull == 1.0:
            drawn = standard_normal(keys, index, size)
        else:
            # x_t = sum_j (1 - pull)^j xi_(t - j): the stationary process, cut where the weights fall below 1e-7.
            reach = torch.arange(int(np.ceil(np.log(1e-7) / np.log(1.0 - self.pull))))
            weights = (1.0 - self.pull) ** reach.double()
            past = standard_normal(keys[..., None], index[..., None] - reach, size)
            drawn = (past.double() * weights[:, None]).sum(-2).float()
        replaced = 2.0 * uniform(keys[..., None], index[..., None], torch.arange(size, 2 * size)) - 1.0
        replaced = torch.where(index[..., None] < self.start, replaced, torch.nan)
        numbers: NDArray[np.float32] = torch.stack((drawn, replaced.float()), dim=-2).numpy()
        return numbers

    def sample(self, outputs: NDArray[Any], log_std: NDArray[Any] | None, noise: NDArray[np.float32]) -> NDArray[Any]:
        """Actions [E, A] from outputs [E, outputs] and noise [E, 2, A]."""
        drawn, replaced = noise[:, 0], noise[:, 1]
        if self.soft:
            mean, spread = outputs[:, : self.dimensions], outputs[:, self.dimensions :]
            action = np.tanh(mean + np.exp(np.minimum(np.maximum(spread, LOWEST), HIGHEST)) * drawn)
        else:
            action = self.mode(outputs) + self.exploration * drawn
            action = np.minimum(np.maximum(action, -1.0), 1.0)
        return np.where(np.isnan(replaced), action, replaced)

    def mode(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The action without noise: tanh of the mean, or the mean clipped."""
        mean = outputs[:, : self.dimensions]
        return np.asarray(np.tanh(mean) if self.squash else np.minimum(np.maximum(mean, -1.0), 1.0))


class ContinuousActor(nn.Module):
    """A network that acts in [-1, 1] and can be differentiated through its action.

    Args:
        observation_size: O.
        head: soft or deterministic.
        hidden: widths of the hidden layers.
        activation: "relu" or "tanh".
        seed: of the initial weights, uniform within 1 / sqrt(inputs) as in `torch.nn.Linear`.
        final: bound of the last layer's initial weights instead, > 0; None takes the same.
    """

    def __init__(
        self,
        observation_size: int,
        head: ContinuousHead,
        hidden: Sequence[int] = (256, 256),
        activation: Activation = "relu",
        seed: int = 0,
        final: float | None = None,
    ) -> None:
        super().__init__()
        self.head = head
        draw = generator(seed, "actor")
        self.network = MLP((observation_size, *hidden, head.outputs), 1.0, draw, activation)
        with torch.no_grad():
            for place, layer in enumerate(self.network.layers):
                own = final if final is not None and place == len(hidden) else None
                for parameter in layer.parameters():
                    bound = layer.get_parameter("weight").shape[1] ** -0.5 if own is None else own
                    parameter.uniform_(-bound, bound, generator=draw)

    def fresh(self, observation: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions [..., A] for observations [..., O], and their log-probs [...], None of a deterministic actor.

        Args:
            observation: [..., O].
            noise: [..., A] standard normal, which a deterministic actor does not read.
        """
        return self.drawn(self.network(observation), noise)

    def drawn(self, outputs: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """`fresh`, of the network's outputs [..., outputs]."""
        if not self.head.soft:
            return outputs.tanh(), None
        if noise is None:
            raise ValueError("noise must be [..., A] standard normal draws for an actor that draws; got None.")
        mean, log_std = outputs.chunk(2, dim=-1)
        return SquashedGaussian(mean, log_std.clamp(LOWEST, HIGHEST)).drawn(noise)

    def numpy_actor(self) -> Actor:
        """The actor on views of the present weights, for stepping environments."""
        return Actor(self.head, None, self.network.numpy())

    def description(self) -> dict[str, Any]:
        """What it takes to build one that these weights fit."""
        return {"hidden": [layer.out_features for layer in list(self.network.layers)[:-1]], "soft": self.head.soft}


class Judged:
    """An actor as a Learn sees it: what its own fresh action is worth to critics whose weights are constants.

    Args:
        actor: whose parameters learn.
        critics: the judges.
        first: only the first so many of them; None is all.
    """

    splittable = True

    def __init__(self, actor: ContinuousActor, critics: Critics, first: int | None = None) -> None:
        self.actor, self.critics, self.first = actor, critics, first
        self.named_parameters = actor.named_parameters

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """`outcome` [N, T, K], Q_k(s, a~) of the action that the recorded `action_noise` picks, and its log-prob.

        The latter is the probe "own_log_prob" [N, T]. Log-probs of the recorded actions, which other policies took,
        are not given.
        """
        action, log_prob = self.actor.fresh(decisions.context["observation"], self.noise(decisions))
        return self.told(decisions, action, log_prob, partial(self.critics, frozen=True, first=self.first))

    def noise(self, decisions: Decisions) -> Tensor | None:
        """The recorded noise that picks the actor's own action."""
        return decisions.column("action_noise", "a policy that draws") if self.actor.head.soft else None

    def told(
        self,
        decisions: Decisions,
        action: Tensor,
        log_prob: Tensor | None,
        judges: Callable[[Tensor, Tensor], Tensor],
    ) -> Evaluation:
        """The evaluation of the actor's own actions, by judges of observations and actions."""
        outcome = judges(decisions.context["observation"], action)
        return Evaluation(outcome=outcome, probes={} if log_prob is None else {"own_log_prob": log_prob})

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """The decisions as they are; nothing of them is this actor's."""
        return decisions


class Temperature(nn.Module):
    """alpha = exp(one number), the price of entropy.

    Args:
        initial: alpha at the start, > 0.
    """

    splittable = True

    def __init__(self, initial: float = 1.0) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(float(initial)).log())

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """The probe "temperature" [N, T]."""
        return Evaluation(probes={"temperature": self.log.exp().expand(decisions.mask.shape)})

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """The decisions as they are."""
        return decisions
