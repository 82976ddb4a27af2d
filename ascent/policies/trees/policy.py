"""Actor and critic as ensembles of decision trees, whose parameter is the function itself; the critic may be a network.

An evaluation hands out leaves of the gradient's graph, F(s) = (logits or means, value). After the loss was
differentiated, `grow` fits a tree to the gradient at these leaves: gradient descent in the space of functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.core.plan import AppendTree
from ascent.core.random import generator
from ascent.policies.action_head import Head
from ascent.policies.actor_critic import MLP, Actor, boundaries, evaluate_head, following_values
from ascent.policies.policy import Probe
from ascent.policies.trees.ensemble import Ensemble

PLACE = "tree_place"
COLLECTION = 40  # the bit from which a place tells which collection it is of


class TreeActorCritic(nn.Module):
    """Trees for the action distribution and the state value: one ensemble for both, or one each.

    With `step.critic` the value is a network's, `critic`, which learns by autograd as usual.

    Args:
        observation_size: F, numbers in an observation.
        head: family of the action distribution.
        step: shape of the trees, whether actor and critic share them, or the step of a network for the critic.
        critic: give values; without it `value` cannot be asked for.
        categorical: [F] True where an observation's number is the code of a category; None: nowhere.
        log_std: initial state-independent log standard deviation, a parameter that is no tree.
        names, words: of features and categories, for printing.
        hidden: sizes of the hidden layers of a network for the value.
        seed: of its initial weights.
    """

    # A tree is grown on the whole update: its candidates, its means.
    splittable = False
    recurrent = False

    def __init__(
        self,
        observation_size: int,
        head: Head,
        step: AppendTree | None = None,
        critic: bool = True,
        categorical: Sequence[bool] | None = None,
        log_std: float = -2.0,
        names: Sequence[str] | None = None,
        words: Mapping[int, Sequence[str]] | None = None,
        hidden: Sequence[int] = (64, 64),
        seed: int = 0,
    ) -> None:
        super().__init__()
        step = step or AppendTree()
        kinds = (False,) * observation_size if categorical is None else tuple(categorical)
        if len(kinds) != observation_size:
            raise ValueError(f"categorical must be one truth a feature, {observation_size}; got {len(kinds)}.")
        self.head, self.has_critic = head, critic
        self.critic: MLP | None = None
        if critic and step.critic is not None:
            self.critic = MLP((observation_size, *hidden, 1), 1.0, generator(seed, "critic"))
        grown = self.valued_by_trees
        self.shared = step.shared and (grown or not critic)
        sizes = [head.outputs + grown] if step.shared else [head.outputs, *[1] * grown]
        self.ensembles = [Ensemble(size, step.shape, kinds, None, names, words, step.adam) for size in sizes]
        self.log_std = nn.Parameter(torch.full((head.dimensions,), log_std)) if head.continuous else None
        self._seen: NDArray[np.float32] | None = None
        self._said: NDArray[np.float64] | None = None
        self._moments: list[NDArray[np.float64] | None] = [None] * len(sizes)
        self._collection = 0
        self._pending: tuple[Decisions, Tensor, Tensor | None] | None = None

    @property
    def trees(self) -> int:
        """Of the ensemble that decides."""
        return self.ensembles[0].trees

    @property
    def outputs(self) -> int:
        """Columns of F: the head's, and the value where trees give it."""
        return self.head.outputs + self.valued_by_trees

    @property
    def valued_by_trees(self) -> bool:
        """Whether the value is a column of F."""
        return self.has_critic and self.critic is None

    def numpy_actor(self) -> Actor:
        """The actor on the present trees."""
        deciding, columns = self.ensembles[0], self.head.outputs
        return Actor(self.head, self.log_std, lambda x: deciding.predict(x, columns).astype(np.float32))

    def predicted(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """F(x) [n, outputs] at observations [n, F]."""
        return np.concatenate([ensemble.predict(x) for ensemble in self.ensembles], 1)

    def _function(self, decisions: Decisions) -> Tensor:
        """F [N, T, outputs] at the decisions: out of what is kept of the collection, else from all trees."""
        shape = decisions.mask.shape
        places = decisions.extras[PLACE].numpy().reshape(-1) if PLACE in decisions.extras else None
        if places is not None and self._said is not None and (places >> COLLECTION == self._collection).all():
            found = self._said[places & (1 << COLLECTION) - 1]
        else:
            found = self.predicted(_rows(decisions.context["observation"]))
        return torch.from_numpy(found).to(torch.get_default_dtype()).view(*shape, -1)

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] | None = None
    ) -> Evaluation:
        """Those of log_prob, entropy, value, outputs and probes that are in `needs`; the gradient ends at F's leaves.

        Args:
            decisions: with context "observation" [N, T, F] and `action`.
            needs: names of evaluated columns.
            probes: further probes, called with (outputs [N, T, K], F [N, T, K], action).
        """
        function = self._function(decisions)
        learning = torch.is_grad_enabled()
        outputs = function[..., : self.head.outputs].clone().requires_grad_(learning)
        leaf: Tensor | None = None
        if "value" in needs:
            self._require_critic()
            if self.critic is None:
                leaf = function[..., -1].clone().requires_grad_(learning)
        columns, found = evaluate_head(
            self.head, outputs, self.log_std, outputs, decisions, needs - {"value"}, probes or {}
        )
        if "value" in needs:
            columns["value"] = self._network(decisions.context["observation"]) if leaf is None else leaf
        if learning:
            self._pending = (decisions, outputs, leaf)
        return Evaluation(**columns, probes=found)

    def _network(self, observation: Tensor) -> Tensor:
        """The network's value [...] of observations [..., F]."""
        assert self.critic is not None
        return self.critic(observation).squeeze(-1)

    def _require_critic(self) -> None:
        if not self.has_critic:
            raise ValueError("this policy has no critic, so it gives no value; build it with critic=True.")

    @torch.no_grad()
    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """Write those of `old_log_prob`, `value`, `next_value` in `needs`, and keep F of the collection at hand.

        What is kept is moved by every tree that follows, and found again by the extra "tree_place" of each row; where
        rows come without it, all trees are read again and say the same.
        """
        observation = decisions.context["observation"]
        self._seen = _rows(observation)
        said = self._keep(self._seen)
        shape = decisions.mask.shape
        function = torch.from_numpy(said).to(torch.get_default_dtype()).view(*shape, -1)
        columns: dict[str, Tensor] = {}
        if "old_log_prob" in needs:
            density = self.head.distribution(function[..., : self.head.outputs], self.log_std)
            columns["old_log_prob"] = density.log_prob(decisions.action)
        if {"value", "next_value"} & needs:
            self._require_critic()
            columns["value"] = function[..., -1].clone() if self.critic is None else self._network(observation)
        if "next_value" in needs:
            edge = boundaries(decisions)
            following = decisions.context["next_observation"][edge]
            if self.critic is None:
                edge_values = torch.from_numpy(self.predicted(_rows(following))[:, -1]).to(function.dtype)
            else:
                edge_values = self._network(following)
            columns["next_value"] = following_values(columns["value"], edge_values, edge, decisions.terminated)
        self._collection += 1
        places = torch.arange(decisions.mask.numel()).view(shape) | self._collection << COLLECTION
        return decisions.replace(**columns).with_extras({PLACE: places})

    @torch.no_grad()
    def distribution_parameters(self, decisions: Decisions) -> Tensor:
        """[N, T, K] parameters of the action distribution: logits, or mean and log-std one after the other."""
        return self.head.parameters(self._function(decisions)[..., : self.head.outputs], self.log_std)

    def clear(self) -> None:
        """Forget the last evaluation: no tree grows of it."""
        self._pending = None

    def grow(self, step: AppendTree, rate: float, value_rate: float) -> float:
        """Append one tree (to each ensemble) fitted to the gradient at the last evaluation's leaves.

        The loss is a mean over decisions, so that each decision's own gradient is its leaf's times their number.
        Masked decisions have none and take no part.

        Returns:
            The Euclidean norm of the gradient of the loss by F, before clipping.
        """
        if self._pending is None:
            raise RuntimeError("there is no evaluation to grow a tree of; evaluate and differentiate a loss first.")
        decisions, outputs, value = self._pending
        self._pending = None
        mask = decisions.mask.numpy().reshape(-1)
        number, columns = int(mask.sum()), self.head.outputs
        if not number:
            return 0.0
        leaf = _gradient(outputs).reshape(-1, columns)[mask]
        of_value = np.zeros((number, 0))
        if self.valued_by_trees:
            of_value = (np.zeros(mask.size) if value is None else _gradient(value).reshape(-1))[mask][:, None]
        norm = float(np.sqrt((leaf**2).sum() + (of_value**2).sum()))
        if not np.isfinite(norm):
            return norm
        policy = clipped(number * leaf, step.max_policy_gradient)
        critic = clipped(number * of_value, step.max_value_gradient)
        x = _rows(decisions.context["observation"])[mask]
        parts = [policy, critic][: len(self.ensembles)]
        if len(self.ensembles) == 1:
            parts = [np.concatenate([policy, critic], 1)]
        rates = np.array([rate] * columns + [value_rate] * self.valued_by_trees)
        start = 0
        for ensemble, gradient in zip(self.ensembles, parts, strict=True):
            stop = start + ensemble.outputs
            ensemble.step(x, gradient, rates[start:stop], step.control_variates)
            start = stop
        self._move_kept()
        if step.limit is not None and self.trees >= step.limit:
            self._distil(step.limit)
        return norm

    def _keep(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """What all trees say at `x`, and the moments of those that move by Adam."""
        self._moments = [ensemble.moments(len(x)) for ensemble in self.ensembles]
        read = zip(self.ensembles, self._moments, strict=True)
        self._said = np.concatenate([ensemble.predict(x, moments=moments) for ensemble, moments in read], 1)
        return self._said

    def _move_kept(self) -> None:
        """Add the last tree to what is kept of the collection."""
        if self._seen is None or self._said is None:
            return
        start = 0
        for ensemble, moments in zip(self.ensembles, self._moments, strict=True):
            stop = start + ensemble.outputs
            said = np.ascontiguousarray(self._said[:, start:stop])
            ensemble.add(self._seen, said, ensemble.trees - 1, moments=moments)
            self._said[:, start:stop] = said
            start = stop

    def _distil(self, limit: int) -> None:
        """Replace the trees by a quarter as many that imitate them on what was seen last."""
        if self._seen is None:
            return
        for place, ensemble in enumerate(self.ensembles):
            self.ensembles[place] = distilled(ensemble, self._seen, max(limit // 4, 1))
        self._keep(self._seen)

    def get_extra_state(self) -> dict[str, Any]:
        """The trees as tensors, for checkpoints."""
        return {
            str(place): {name: torch.from_numpy(np.array(array)) for name, array in ensemble.state().items()}
            for place, ensemble in enumerate(self.ensembles)
        }

    def set_extra_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """The inverse of `get_extra_state`."""
        for place, ensemble in enumerate(self.ensembles):
            ensemble.load_state({name: tensor.numpy() for name, tensor in state[str(place)].items()})
        self._seen = self._said = self._pending = None

    def save(self, folder: Path) -> None:
        """trees.safetensors, or policy_trees and value_trees (critic where it is a network); log_std.safetensors where
        actions are real numbers."""
        names = ("trees",) if self.shared else ("policy_trees", "value_trees")
        for name, ensemble in zip(names, self.ensembles, strict=False):
            ensemble.save(folder / f"{name}.safetensors")
        if self.critic is not None:
            save_file(self.critic.state_dict(), folder / "critic.safetensors")
        if self.log_std is not None:
            save_file({"log_std": self.log_std.detach()}, folder / "log_std.safetensors")


def distilled(teacher: Ensemble, x: NDArray[np.float32], trees: int, rate: float = 0.3) -> Ensemble:
    """A student of so many trees, fitted to what the teacher says at `x` [n, F], from its mean there."""
    target = teacher.predict(x)
    student = Ensemble(
        teacher.outputs, teacher.shape, teacher.categorical, target.mean(0), teacher.names, teacher.words
    )
    student.fit(x, target, trees, [rate] * teacher.outputs)
    return student


def clipped(gradient: NDArray[np.float64], limit: float | None) -> NDArray[np.float64]:
    """Rows [n, K] cut to this Euclidean norm."""
    if limit is None or not gradient.size:
        return gradient
    norm = np.linalg.norm(gradient, axis=1, keepdims=True)
    return gradient * np.minimum(1.0, limit / np.maximum(norm, 1e-300))


def _gradient(leaf: Tensor) -> NDArray[np.float64]:
    grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return grad.detach().numpy().astype(np.float64)


def _rows(observation: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(observation.reshape(-1, observation.shape[-1]).numpy(), np.float32)
