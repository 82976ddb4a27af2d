"""A language model whose logits at supervised positions are asked for more than one token: one-step bandits.

The true prefix is the state, every token of the vocabulary an action. Full [N, T, V] logits never exist: positions are
taken in chunks, whose logits are computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ascent.core.decisions import Decisions
from ascent.core.evaluation import Evaluation
from ascent.policies.causal import NO_PROBES, CausalPolicy
from ascent.policies.head import upcast
from ascent.policies.policy import Probe

Bandit = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]
"""(logits [M, V], action [M], keys [M]) -> columns [M]; rows are independent, gradient flows through the logits."""

NAMES = ("one_token", "one_token_hits")
CHUNK = 2**22
"""Numbers in the logits of one chunk."""


class OneTokenPolicy(nn.Module):
    """A causal language model that also gives the probes `one_token` and `one_token_hits`.

    Args:
        policy: the language model, which is trained and saved as ever.
        bandit: what is made of the logits of a chunk of positions.
        chunk: numbers in the logits of one chunk, >= 1.

    Raises:
        ValueError: the architecture changes its logits after the head, so that they cannot be computed apart.
    """

    splittable = True

    def __init__(self, policy: CausalPolicy, bandit: Bandit, chunk: int = CHUNK) -> None:
        super().__init__()
        if not policy.splits:
            raise ValueError(
                f"{type(policy.base).__name__} changes its logits after the head, so one-token rollouts cannot compute "
                "them in chunks; choose another model."
            )
        self.policy, self.bandit, self.chunk = policy, bandit, chunk

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] = NO_PROBES
    ) -> Evaluation:
        """As `CausalPolicy.evaluate`; the bandit's columns are 0 where `mask` is False."""
        own = needs & {f"probe:{name}" for name in NAMES}
        if not own:
            return self.policy.evaluate(decisions, needs, probes)
        now = self.policy.evaluate(decisions, (needs - own) | {"features"}, probes)
        mask = decisions.mask
        columns = self._columns(
            now.features[mask], decisions.action[mask], decisions.per_decision("one_token_key", "OneTokenPolicy")[mask]
        )
        spread = {name: column.new_zeros(mask.shape).masked_scatter(mask, column) for name, column in columns.items()}
        kept = {name: now.column(name) for name in now if f"probe:{name}" not in needs and name != "features"}
        if "features" in needs:
            kept["features"] = now.features
        return Evaluation(**kept, probes={**now.probes, **spread})

    def _columns(self, hidden: Tensor, action: Tensor, keys: Tensor) -> dict[str, Tensor]:
        output = self.policy.base.get_output_embeddings()
        assert output is not None
        temperature = self.policy.temperature

        def piece(hidden: Tensor, action: Tensor, keys: Tensor) -> tuple[Tensor, ...]:
            found = self.bandit(upcast(output(hidden)) / temperature, action, keys)
            return tuple(found[name] for name in NAMES)

        vocabulary = len(self.policy.base.get_input_embeddings().weight)  # type: ignore[arg-type]
        rows = max(self.chunk // vocabulary, 1)
        parts = []
        for start in range(0, max(len(hidden), 1), rows):
            part = slice(start, start + rows)
            inputs = (hidden[part], action[part], keys[part])
            one = len(hidden) <= rows
            parts.append(piece(*inputs) if one else checkpoint(piece, *inputs, use_reentrant=False))
        return {name: torch.cat(columns) for name, columns in zip(NAMES, zip(*parts, strict=True), strict=True)}

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        return self.policy.annotate(decisions, needs)
