"""A method out of parts of several papers, trained in the library's own loop.

    python examples/custom_method.py

GRPO's loss with RLOO's baseline, DAPO's wider upper clip and token mean, only the tokens where the policy hesitates
most (the "forking tokens" of arXiv 2506.01939), and a small entropy bonus.
"""

from __future__ import annotations

import dataclasses

import ascent
from ascent.core.divergences import Entropy
from ascent.core.selectors import Top
from ascent.core.term import Term


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
    method = forking_rloo()
    # The contract that works anywhere: on any tensors, inside any trainer.
    evaluation, decisions = method.example(rows=8, columns=6, seed=0)
    decisions = method.credit(decisions)
    loss, metrics = method.loss(evaluation, decisions)
    loss.backward()
    reached = int((evaluation.log_prob.grad != 0).sum())
    print(f"loss {float(loss.detach()):.4f}; {reached} of {int(decisions.mask.sum())} tokens learn")
    print("metrics:", ", ".join(sorted(metrics)))
    # The same method in the library's own loop.
    ascent.train(method, task="arithmetic", steps=20, output="runs/forking_rloo")


if __name__ == "__main__":
    main()
