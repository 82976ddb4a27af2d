"""A softmax policy in a table: one row of logits per state, so that its gradient has a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.densities import Categorical
from ascent.core.evaluation import Evaluation
from ascent.core.random import generator
from ascent.evaluation.exact.tree import Tree
from ascent.policies.policy import Probe

NO_PROBES: Mapping[str, Probe] = MappingProxyType({})


class TabularPolicy(nn.Module):
    """pi(a | s) = softmax(logits[s])[a], with a tabular critic beside it. Float64.

    A policy in the library's sense: `evaluate` and `annotate` read the contexts `state` and `next_state`.

    Attributes:
        logits: [S, A] parameter.
        values: [S + F] parameter, the critic; the objective does not depend on it.
    """

    splittable = True

    def __init__(self, logits: Tensor, values: Tensor | None = None) -> None:
        super().__init__()
        if logits.dim() != 2:
            raise ValueError(f"logits must be [states, actions]; got {list(logits.shape)}.")
        self.logits = nn.Parameter(logits.detach().to(torch.float64).clone())
        start = torch.zeros(len(logits), dtype=torch.float64) if values is None else values.detach().to(torch.float64)
        self.values = nn.Parameter(start.clone())

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] = NO_PROBES
    ) -> Evaluation:
        """What the table says of the decisions: only the columns in `needs`.

        Args:
            decisions: with the context `state`; for the probes `kl_reference` = KL(self || reference) and
                `reverse_kl_reference`, exact over all actions, also the extra `reference_distribution` [N, T, A].
            needs: of `log_prob`, `entropy`, `value`, `outputs` (logits), `features` (one-hot states), `probe:<name>`.
            probes: further probes, called with logits [M, A], features [M, S] and actions [M] of the decided entries.

        Raises:
            ValueError: `needs` names a probe that nobody gave.
        """
        mask, state = decisions.mask, decisions.context["state"]
        logits = self.logits[state]
        density = Categorical(logits)
        features = nn.functional.one_hot(state, len(self.logits)).to(logits.dtype)
        columns: dict[str, Tensor] = {}
        if "log_prob" in needs:
            columns["log_prob"] = density.log_prob(decisions.action)
        if "entropy" in needs:
            columns["entropy"] = density.entropy()
        if "value" in needs:
            columns["value"] = self.values[state]
        if "outputs" in needs:
            columns["outputs"] = logits
        if "features" in needs:
            columns["features"] = features
        seen: dict[str, Tensor] = {}
        for name in sorted(need.removeprefix("probe:") for need in needs if need.startswith("probe:")):
            if name in probes:
                numbers = probes[name](logits[mask], features[mask], decisions.action[mask])
                seen[name] = numbers.new_zeros(*mask.shape, *numbers.shape[1:]).index_put((mask,), numbers)
            elif name in ("kl_reference", "reverse_kl_reference"):
                other = Categorical(decisions.column("reference_distribution", f"probe {name!r}"))
                seen[name] = density.kl(other) if name == "kl_reference" else other.kl(density)
            else:
                known = sorted({*probes, "kl_reference", "reverse_kl_reference"})
                raise ValueError(f"probe {name!r} is unknown to this policy; it knows {', '.join(known)}.")
        return Evaluation(**columns, probes=seen)

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """Write those of `old_log_prob`, `value` and `next_value` that are in `needs`, without gradient."""
        with torch.no_grad():
            columns: dict[str, Tensor] = {}
            if "old_log_prob" in needs:
                columns["old_log_prob"] = self.evaluate(decisions, frozenset({"log_prob"})).log_prob
            if "value" in needs:
                columns["value"] = self.values[decisions.context["state"]]
            if "next_value" in needs:
                columns["next_value"] = torch.where(
                    decisions.terminated, 0.0, self.values[decisions.context["next_state"]]
                )
            return decisions.replace(**columns)


def tabular(tree: Tree, scale: float = 1.0, seed: int = 0, critic: bool = True) -> TabularPolicy:
    """A policy for `tree` with normal logits of standard deviation `scale`; `critic` fills in its exact values."""
    logits = scale * torch.randn(tree.states, tree.actions, generator=generator(seed, "tabular"), dtype=torch.float64)
    bare = TabularPolicy(logits)
    zeros = torch.zeros(tree.states + len(tree.final_value), dtype=torch.float64)
    return TabularPolicy(logits, tree.state_value(bare) if critic else zeros)
