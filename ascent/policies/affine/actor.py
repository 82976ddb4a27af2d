"""An actor that begins as a piecewise-affine law and learns beside it, and a critic that begins as its cost.

    u(theta)  = K_i theta + r_i + N_i(theta)                            in the region i that theta lies in
    Q(s, u)   = -(s'Q1 s + s'Q2 u + u'Q3 u + net([s, u]))               a reward is the negative of a cost

Regions, K and r are constants; the networks N_i and all of the critic's numbers learn. Policy actions are those of
the rest of the library, [-1, 1] for the box of the plant's inputs. Dimensions: p regions, n states, m inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.policies.actor_critic import Actor
from ascent.policies.affine.injected import Injected, ZeroLayer
from ascent.policies.affine.linear import Matrix
from ascent.policies.affine.regions import PiecewiseAffine
from ascent.policies.continuous import ContinuousHead
from ascent.policies.policy import Probe


class Inward(torch.autograd.Function):
    """x clipped to [-1, 1]; at and beyond a bound, a gradient passes only if following it leads back inside.

    A plain clip has no gradient beyond a bound, so that an action which has crossed it could never return.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (gradient,) = gradients
        # Descent moves x against its gradient.
        outward = ((x >= 1.0) & (gradient < 0)) | ((x <= -1.0) & (gradient > 0))
        return gradient.masked_fill(outward, 0.0)


class AffineActor(nn.Module):
    """A controller out of a piecewise-affine law and one zero-start network a region.

    Args:
        law: of states to inputs in the plant's units.
        controls: (low, high) of the inputs, [m] each, finite: what policy actions -1 and 1 stand for.
        width: h of the networks' layers.
        bound: of their random weights.
        zero: their layer that begins with zeros.
        seed: of the random weights.
        exploration: deviation of normal noise on the actions taken, in half action ranges; 0 is the method's.
    """

    def __init__(
        self,
        law: PiecewiseAffine,
        controls: tuple[Matrix, Matrix],
        width: int = 16,
        bound: float = 0.01,
        zero: ZeroLayer = "first",
        seed: int = 0,
        exploration: float = 0.0,
    ) -> None:
        super().__init__()
        self.law = law
        low, high = (np.asarray(end, np.float64) for end in controls)
        gains, offsets = law.gains, law.offsets
        self.middle, self.reach = (low + high) / 2, (high - low) / 2
        # One more region, with no law and a network that is never used, stands for "outside".
        self._gains = np.concatenate((gains, np.zeros_like(gains[:1])))
        self._offsets = np.concatenate((offsets, np.zeros_like(offsets[:1])))
        self.register_buffer("reach_tensor", torch.from_numpy(self.reach), persistent=False)
        self.head = ContinuousHead(len(low), False, exploration, squash=False)
        self.networks = Injected(
            len(gains), gains.shape[2], len(low), width, bound, generator(seed, "injected actor"), zero
        )

    def _known(self, state: NDArray[Any]) -> tuple[NDArray[np.int64], Matrix]:
        """Region numbers [B], -1 outside, and the law's inputs [B, m], scaled to policy actions."""
        exact = state.astype(np.float64)
        index = self.law.index(exact)
        control = np.einsum("bmn,bn->bm", self._gains[index], exact) + self._offsets[index]
        return index, (control - self.middle) / self.reach

    def before_bounds(self, state: Tensor) -> Tensor:
        """Policy actions [..., m] of states [..., n], not yet clipped to [-1, 1].

        The regions are found in float64 without gradient: steps have none.
        """
        flat = state.reshape(-1, state.shape[-1])
        index, known = self._known(flat.detach().cpu().numpy())
        where = torch.from_numpy(index)
        added = self.networks(flat)[where.clamp_min(0), torch.arange(len(flat))] / self.reach_tensor.to(flat.dtype)
        added = torch.where((where >= 0)[:, None], added, 0.0)
        return (torch.from_numpy(known).to(flat.dtype) + added).reshape(*state.shape[:-1], -1)

    def control(self, state: Tensor) -> Tensor:
        """Inputs [..., m] in the plant's units, not yet clipped."""
        return self.before_bounds(state) * self.reach_tensor.to(state.dtype) + torch.from_numpy(self.middle).to(
            state.dtype
        )

    def fresh(self, observation: Tensor, noise: Tensor | None) -> tuple[Tensor, None]:
        """Actions [..., m] in [-1, 1], differentiable; the noise is not read."""
        action: Tensor = Inward.apply(self.before_bounds(observation))  # type: ignore[no-untyped-call]
        return action, None

    def numpy_actor(self) -> Actor:
        """The actor on views of the present weights, for stepping environments."""
        added = self.networks.numpy()

        def forward(state: NDArray[Any]) -> NDArray[Any]:
            index, known = self._known(state)
            more = added(state, np.maximum(index, 0)) / self.reach
            return (known + np.where((index >= 0)[:, None], more, 0.0)).astype(state.dtype)

        return Actor(self.head, None, forward)

    def description(self) -> dict[str, Any]:
        """The law's regions, gains and offsets; with the saved weights they are the controller."""
        regions = [
            {"rows": one.rows.tolist(), "limits": one.limits.tolist(), "gain": one.gain.tolist(),
             "offset": one.offset.tolist()} for one in self.law.regions
        ]  # fmt: skip
        return {"regions": regions, "outside": self.law.outside, "width": self.networks.width}


class QuadraticCritic(nn.Module):
    """The value of an action: minus a quadratic cost, minus a zero-start network. As `Critics` with K = 1.

    Args:
        quality: Q1 [n, n], Q2 [n, m], Q3 [m, m], of `linear.quality`.
        controls: (low, high) of the inputs, as in `AffineActor`.
        width: of the network's two layers.
        bound, zero, seed: of its weights, as in `AffineActor`.
    """

    splittable = True

    def __init__(
        self,
        quality: tuple[Matrix, Matrix, Matrix],
        controls: tuple[Matrix, Matrix],
        width: int = 64,
        bound: float = 0.01,
        zero: ZeroLayer = "first",
        seed: int = 0,
    ) -> None:
        super().__init__()
        low, high = (np.asarray(end, np.float64) for end in controls)
        self.state_cost, self.mixed_cost, self.control_cost = (
            nn.Parameter(torch.from_numpy(np.asarray(part)).float()) for part in quality
        )
        states, inputs = quality[1].shape
        self.network = Injected(1, states + inputs, 1, width, bound, generator(seed, "injected critic"), zero)
        self.register_buffer("middle", torch.from_numpy((low + high) / 2).float(), persistent=False)
        self.register_buffer("reach", torch.from_numpy((high - low) / 2).float(), persistent=False)

    def cost(self, state: Tensor, control: Tensor, frozen: bool = False) -> Tensor:
        """Q [...] to be minimised, of states [..., n] and inputs [..., m] in the plant's units."""
        own = (self.state_cost, self.mixed_cost, self.control_cost)
        one, two, three = (tensor.detach() for tensor in own) if frozen else own
        quadratic = ((state @ one) * state).sum(-1) + ((state @ two + control @ three) * control).sum(-1)
        both = torch.cat((state, control), dim=-1)
        added = self.network(both.reshape(-1, both.shape[-1]), frozen).reshape(quadratic.shape)
        return quadratic + added

    def forward(self, observation: Tensor, action: Tensor, frozen: bool = False, first: int | None = None) -> Tensor:
        """Values [..., 1] of observations [..., n] and policy actions [..., m]."""
        return -self.cost(observation, self.middle + self.reach * action, frozen)[..., None]

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """`value` [N, T, 1] of the recorded observations and actions."""
        return Evaluation(value=self(decisions.context["observation"], decisions.action))

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """The decisions as they are: what follows an action is told by the target networks."""
        return decisions
