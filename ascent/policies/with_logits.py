"""A language model that also gives its logits [N, T, V], for methods that need whole distributions.

For vocabularies whose logits fit in memory. Everything else is the language model's own.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ascent.core.decisions import Decisions
from ascent.core.evaluation import EVALUATED, Evaluation
from ascent.policies.causal import NO_PROBES, CausalPolicy
from ascent.policies.policy import Probe


def logits_of(logits: Tensor, hidden: Tensor, action: Tensor) -> Tensor:
    """The probe that keeps the logits [M, V], divided by the temperature."""
    return logits


class WithLogits(nn.Module):
    """`outputs` of its evaluations are the logits [N, T, V], with gradient, 0 where `mask` is False.

    Args:
        policy: the language model, which is trained and saved as ever.
    """

    def __init__(self, policy: CausalPolicy) -> None:
        super().__init__()
        self.policy = policy

    @property
    def splittable(self) -> bool:
        return self.policy.splittable

    def evaluate(
        self, decisions: Decisions, needs: frozenset[str], probes: Mapping[str, Probe] = NO_PROBES
    ) -> Evaluation:
        """As `CausalPolicy.evaluate`; logits only where `needs` names `outputs`."""
        if "outputs" not in needs:
            return self.policy.evaluate(decisions, needs, probes)
        wanted = (needs - {"outputs"}) | {"probe:logits"}
        now = self.policy.evaluate(decisions, wanted, {**probes, "logits": logits_of})
        own = {name: now.column(name) for name in EVALUATED if name in now}
        others = {name: column for name, column in now.probes.items() if name != "logits"}
        return Evaluation(**own, outputs=now.probes["logits"], probes=others)

    def annotate(self, decisions: Decisions, needs: frozenset[str]) -> Decisions:
        """As `CausalPolicy.annotate`."""
        return self.policy.annotate(decisions, needs)
