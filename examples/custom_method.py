"""A method out of parts of several papers, registered and trained.

    python examples/custom_method.py

GRPO's loss with RLOO's baseline, DAPO's wider upper clip and token mean, only the tokens where the policy hesitates
most (the "forking tokens" of arXiv 2506.01939), and a small entropy bonus.
"""

from __future__ import annotations

import dataclasses

import ascent
from ascent.core.divergences import Entropy
from ascent.core.registry import register
from ascent.core.selectors import Top
from ascent.core.term import Term
from ascent.systems.config import LanguageConfig
from ascent.systems.run import train


@register(
    "forking_rloo",
    title="GRPO's clip, RLOO's baseline, forking tokens",
    paper="an example",
    year=2026,
    url="",
    family="language",
    status="example",
)
def forking_rloo(fraction: float = 0.3, bonus: float = 0.003) -> ascent.Method:
    """Parts of four papers in one method.

    Args:
        fraction: of the tokens that learn, those of highest entropy, in [0, 1].
        bonus: coefficient of the entropy bonus, >= 0.
    """
    method = ascent.method("grpo", clip_high=0.28, kl_coefficient=0.0, reduction="token-mean")
    policy = dataclasses.replace(method.losses["policy"], keep=Top("entropy", fraction))
    method = method.replace(advantage=ascent.method("rloo").advantage)
    return method.with_terms(policy=policy, entropy=Term(Entropy(), bonus))


def main() -> None:
    # The four lines that work anywhere: on any tensors, inside any trainer.
    method = ascent.method("forking_rloo")
    evaluation, decisions = method.example(rows=8, columns=6, seed=0)
    decisions = method.credit(decisions)
    loss, metrics = method.loss(evaluation, decisions)
    loss.backward()
    print(f"loss {float(loss.detach()):.4f}, gradient reaches {int((evaluation.log_prob.grad != 0).sum())} of "
          f"{int(decisions.mask.sum())} tokens, metrics: {', '.join(sorted(metrics))}")
    # The same method in the library's own loop.
    train(LanguageConfig(method="forking_rloo", task="arithmetic", steps=20))


if __name__ == "__main__":
    main()
