"""How well a token objective stands for the sequence objective: expected gradients by enumeration, not by sampling.

    J_seq = E_{y ~ mu} prod_t r_t R       J_token = E_{y ~ mu} sum_t r_t R,       r_t = pi(y_t) / mu(y_t) = 1 + delta_t

Both have the same gradient up to O(delta) (arXiv 2512.01374). Any term of a method is put to the same test.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ascent.core.method import Method
from ascent.core.term import Term
from ascent.evaluation.exact.policy import TabularPolicy
from ascent.evaluation.exact.tree import Tree, flat


def expected_gradient(
    term: Term, tree: Tree, policy: TabularPolicy, sampler: TabularPolicy, old: TabularPolicy | None = None
) -> Tensor:
    """[P] what ascends in expectation where `sampler` answers, advantages are the returns, and `term` is the loss.

    Args:
        term: of mean over responses, whose loss is linear in the size of the advantage.
        tree: every trajectory.
        policy: that learns; its logits are the parameters.
        sampler: mu, who answers.
        old: pi_old; the policy itself when not given (on policy).
    """
    log_prob = frozenset({"log_prob"})
    with torch.no_grad():
        rows = tree.decisions()
        chance = tree.prompt_probability[tree.prompt] * tree.log_probability(sampler).exp()
        # A mean over all trajectories, each as often as it is drawn.
        advantage = (chance * len(tree))[:, None] * tree.to_go()[:, :1]
        rows = rows.replace(
            advantage=advantage.expand(tree.mask.shape),
            behaviour_log_prob=sampler.evaluate(rows, log_prob).log_prob,
            old_log_prob=(policy if old is None else old).evaluate(rows, log_prob).log_prob,
        )
    method = Method("first_order", {"policy": term})
    loss, _ = method.loss(policy.evaluate(rows, log_prob | method.evaluates), rows)
    return flat(torch.autograd.grad(-loss, [policy.logits]))


def token_objective(tree: Tree, policy: TabularPolicy, sampler: TabularPolicy) -> Tensor:
    """J_token, a scalar: the expectation over the sampler of the summed ratios times the return."""
    log_prob = frozenset({"log_prob"})
    rows = tree.decisions()
    ratio = (policy.evaluate(rows, log_prob).log_prob - sampler.evaluate(rows, log_prob).log_prob).exp()
    chance = tree.prompt_probability[tree.prompt] * tree.log_probability(sampler).exp()
    return (chance * torch.where(tree.mask, ratio, 0.0).sum(1) * tree.to_go()[:, 0]).sum()


def agreement(found: Tensor, true: Tensor) -> tuple[float, float]:
    """Cosine of two gradients, and the length of their difference relative to the true one's."""
    cosine = torch.nn.functional.cosine_similarity(found, true, dim=0)
    return float(cosine), float((found - true).norm() / true.norm())
